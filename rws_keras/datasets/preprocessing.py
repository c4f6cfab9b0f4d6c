"""From grey levels to binary data, and from binary data to minibatches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf


def stochastic_binarization(seed: int) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Binarises grey levels stochastically: a pixel is on with its grey level as probability.

    Each pass over the data draws again; the seed determines all draws.

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
        batch_size: Rows per batch; the last batch of an epoch may have fewer.
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


# Rows are counted where that leaves fewer than this share of them. Elsewhere it would save nothing
# worth having, and give each row other particles.
_WORTH_COUNTING = 0.75


def count_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Unique binary rows, and how often each occurs.

    For evaluation, where each row needs to be scored only once:
    `evaluate(rows, sample_weight=counts)` is the mean over all data. (For training it is better to
    draw minibatches from all rows, so that frequent rows are drawn more often than rare ones.)

    Args:
        x: Binary array `[N, D]`, NaN where a value is missing.

    Returns:
        The rows `[M, D]` in the order of `x`, and their counts `[M]`; where few or none repeat,
        `x` itself and `None`.

    Example:
    ```python
    bars = rws_keras.datasets.load("bars")
    rows, counts = rws_keras.datasets.count_rows(bars.test)  # 30 rows instead of 2,000
    ```
    """
    packed = np.packbits(np.concatenate([x == 1, np.isnan(x)], axis=1), axis=1)
    _, first, counts = np.unique(packed, axis=0, return_index=True, return_counts=True)
    if len(first) >= _WORTH_COUNTING * len(x):
        return x, None
    order = np.argsort(first)
    return x[first[order]], counts[order]
