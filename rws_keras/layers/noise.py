"""Seeds, and the uniform noise that drives every sample."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.checks import check_seed

Seed: TypeAlias = int | tf.Tensor | tfp.util.SeedStream | None
Shapes: TypeAlias = dict | list | tuple | tf.Tensor


def stateless_seed(seed: Seed) -> tf.Tensor:
    """A seed as an int32 tensor `[2]`.

    An integer always gives the same noise; in TFP itself it would depend on how many draws came
    before.

    Args:
        seed: An integer of up to 64 bits (Python's or NumPy's), an integer array or tensor
            `[2]`, TFP's `SeedStream`, or `None` for a fresh seed from TensorFlow's global
            generator.

    Raises:
        UserError: If it is something else.
    """
    if isinstance(seed, tfp.util.SeedStream):
        return stream_seed(seed())
    seed = check_seed(seed)
    if seed is None or tf.is_tensor(seed):
        return tfp.random.sanitize_seed(seed)
    # The high and the low 32 bits of the integer in two's complement.
    low = (seed + 2**31) % 2**32 - 2**31
    return tf.constant([seed >> 32, low])


def stream_seed(seed: int | None) -> tf.Tensor:
    """A seed as an int32 tensor `[2]`, from an integer of a `SeedStream`, which has 512 bits.

    In a graph it is TFP's, a new one each time that the graph is run: a joint distribution that
    batches automatically traces a draw once and runs it for each sample.
    """
    if seed is None or tf.inside_function():
        return tfp.random.sanitize_seed(seed)
    return stateless_seed((seed + 2**63) % 2**64 - 2**63)


def draw_noise(shapes: Shapes, seed: Seed) -> tf.Tensor:
    """Uniform numbers for tensors of several shapes, all drawn by one kernel.

    The generator is the one part of a step that XLA runs slowly on a CPU: the noise is drawn here,
    outside, and passed to the compiled step, which splits it into named tensors again with
    `split_noise`.

    Args:
        shapes: Shapes of the tensors wanted, nested in dicts and lists. A shape is a tuple of
            ints and scalar tensors, or an integer tensor.
        seed: See `stateless_seed`.

    Returns:
        A flat float32 tensor, to be read by `split_noise` only.
    """
    sizes = [_size(shape) for shape in _leaves(shapes)]
    return tf.random.stateless_uniform([tf.add_n(sizes) if sizes else 0], stateless_seed(seed))


def split_noise(noise: tf.Tensor, shapes: Shapes) -> Any:
    """Cuts what `draw_noise` drew into uniform noise from the open interval (0, 1).

    TensorFlow's uniform numbers are multiples of 2^-23 and include zero, so `u < p`
    switches a unit on once in 2^23 draws however small `p` is. With 100,000 particles that
    happens, and one particle that is almost impossible under Q (probability e^-40, say) has a
    weight large enough to ruin the estimate. Using the middle of each cell of width 2^-23 avoids
    this.

    Args:
        noise: Flat tensor from `draw_noise`.
        shapes: The nested shapes it was drawn for.

    Returns:
        The same nest with a float32 tensor in place of each shape.
    """
    start = 0

    def cut(shape):
        nonlocal start
        if isinstance(shape, dict):
            return {name: cut(part) for name, part in shape.items()}
        if isinstance(shape, list):
            return [cut(part) for part in shape]
        size = _size(shape)
        part = tf.reshape(noise[start : start + size], shape) + 2.0**-24
        start += size
        return part

    return cut(shapes)


def uniform_noise(shapes: Shapes, seed: Seed) -> Any:
    """Uniform float32 noise from the open interval (0, 1): `draw_noise` and `split_noise`."""
    return split_noise(draw_noise(shapes, seed), shapes)


def _leaves(shapes):
    if isinstance(shapes, dict | list):
        parts = shapes.values() if isinstance(shapes, dict) else shapes
        return [leaf for part in parts for leaf in _leaves(part)]
    return [shapes]


def _size(shape):
    return tf.reduce_prod(tf.cast(shape, tf.int32))
