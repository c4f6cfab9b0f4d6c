"""From grey levels to binary data, and from binary data to minibatches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf


def stochastic_binarization(seed: int) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Binarises grey levels by chance: a pixel is on with its level as probability.

    Each pass over the data draws anew, in an order that the seed fixes.

    Args:
        seed: Integer.

    Returns:
        A transformation for `tf.data.Dataset.apply`, of batches of grey levels in [0, 1]
        to batches of float32 zeros and ones. Levels outside [0, 1] raise a
        `tf.errors.InvalidArgumentError` when the data are read.

    Example:
    ```python
    grey = tf.data.Dataset.from_tensor_slices(images / 255.0).batch(100)
    machine.fit(grey.apply(stochastic_binarization(seed=0)))
    ```

    Reference:
        - [Salakhutdinov & Murray, 2008](https://doi.org/10.1145/1390156.1390266)
    """

    def binarize(levels, batch_seed):
        levels = tf.cast(levels, tf.float32)
        check = tf.debugging.Assert(
            tf.reduce_all((levels >= 0.0) & (levels <= 1.0)),
            ["Expected grey levels between 0 and 1; divide images of 8 bits by 255."],
        )
        with tf.control_dependencies([check]):
            noise = tf.random.stateless_uniform(tf.shape(levels), batch_seed)
            return tf.cast(noise < levels, tf.float32)

    def apply(dataset):
        seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
        return tf.data.Dataset.zip(dataset, seeds.batch(2, drop_remainder=True)).map(binarize)

    return apply


def minibatches(x: np.ndarray, batch_size: int, seed: int, first_epoch: int = 0) -> tf.data.Dataset:
    """Endless shuffled minibatches, the order of each epoch fixed by the seed.

    Epoch e has the same order whether the epochs before it were read or not, so that an
    interrupted training goes on as if it had not been.

    Args:
        x: Array `[N, D]`; it is kept in memory once.
        batch_size: Rows a batch; the last batch of an epoch may have fewer.
        seed: Integer.
        first_epoch: Where to begin.

    Returns:
        A dataset of batches `[batch_size, D]` of the dtype of `x`, to be read with
        `steps_per_epoch=ceil(N / batch_size)`.
    """
    x = tf.convert_to_tensor(x)

    def epoch(number):
        # Two words of seed: those of different epochs do not meet.
        order = tf.random.experimental.stateless_shuffle(
            tf.range(tf.shape(x)[0]), seed=tf.stack([tf.constant(seed, tf.int64), number])
        )
        batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size)
        return batches.map(lambda rows: tf.gather(x, rows))

    epochs = tf.data.Dataset.counter(start=first_epoch)
    return epochs.flat_map(epoch).prefetch(tf.data.AUTOTUNE)
