"""Distributions over binary vectors: what a stochastic layer hands out."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions


def stateless_seed(seed: int | tf.Tensor | None) -> tf.Tensor:
    """A seed as an int32 tensor `[2]`.

    An int always stands for the same noise; TFP itself would make it depend on how many
    draws came before.

    Args:
        seed: A Python int, an int32 tensor `[2]`, or `None` for a fresh seed from
            TensorFlow's global generator.
    """
    return tf.constant([0, seed]) if isinstance(seed, int) else tfp.random.sanitize_seed(seed)


def draw_noise(shapes: Sequence, seed: int | tf.Tensor | None) -> tf.Tensor:
    """Uniform numbers for tensors of several shapes, all drawn by one kernel.

    The generator is the one part of a step that XLA does badly on a CPU: the noise is drawn
    here, outside, and handed to the compiled step, which cuts it up with `split_noise`.

    Args:
        shapes: shapes of the tensors wanted, each a list of ints or of scalar tensors.
        seed: a Python int, an int32 tensor `[2]`, or `None`.

    Returns:
        A flat float32 tensor, to be read by `split_noise` only.
    """
    sizes = [_size(shape) for shape in shapes]
    return tf.random.stateless_uniform([tf.add_n(sizes) if sizes else 0], stateless_seed(seed))


def split_noise(noise: tf.Tensor, shapes: Sequence) -> list[tf.Tensor]:
    """Cuts what `draw_noise` drew into uniform noise from the open interval (0, 1).

    TensorFlow's uniform numbers are multiples of 2^-23 and include zero, so `u < p`
    switches a unit on once in 2^23 draws however small `p` is. With 100,000 particles that
    happens, and one particle which Q holds for impossible (probability e^-40, say) carries
    a weight large enough to ruin the estimate. Taking the middle of each cell of width
    2^-23 removes it.

    Args:
        noise: flat tensor from `draw_noise`.
        shapes: the shapes it was drawn for.

    Returns:
        A float32 tensor of each shape.
    """
    parts, start = [], 0
    for shape in shapes:
        size = _size(shape)
        parts.append(tf.reshape(noise[start : start + size], shape) + 2.0**-24)
        start += size
    return parts


def _size(shape):
    return tf.reduce_prod(tf.cast(shape, tf.int32))


def uniform_noise(shape: tf.Tensor, seed: int | tf.Tensor | None) -> tf.Tensor:
    """Uniform float32 noise of one shape from the open interval (0, 1); see `split_noise`."""
    return split_noise(draw_noise([shape], seed), [shape])[0]


# Most factors whose product is taken before the logarithm. Each is at most 2, so that 2^25 is
# far from float32's end; more would save little and leave fewer columns to work on at once.
_MOST_FACTORS = 25


@tf.custom_gradient
def bernoulli_log_prob(value: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """`Σ_i log p(x_i)` in nats for independent Bernoulli units with the given logits.

    For binary `x`, `log σ(a)^x (1 - σ(a))^(1-x) = -max((1 - 2x) a, 0) - log(1 + e^-|a|)`,
    exact at any logit, infinite ones too. The last term is the same for every value, and its
    sum over the units is the logarithm of a product: one logarithm serves several units. The
    gradient with respect to `a` is the residual `x - σ(a)`; the values are data or samples and
    have none.

    Args:
        value: binary tensor `[..., D]`.
        logits: tensor `[..., D]`, broadcast against `value`.

    Returns:
        Tensor of the broadcast shape without its last axis.
    """
    units = value.shape[-1]
    factors = max(n for n in range(1, _MOST_FACTORS + 1) if units % n == 0)
    shape = tf.concat([tf.shape(logits)[:-1], [factors, units // factors]], axis=0)
    product = tf.reduce_prod(tf.reshape(1.0 + tf.exp(-tf.abs(logits)), shape), axis=-2)
    log_normalizer = tf.reduce_sum(tf.math.log(product), axis=-1)
    log_prob = -tf.reduce_sum(tf.nn.relu((1.0 - 2.0 * value) * logits), axis=-1) - log_normalizer

    def gradient(upstream):
        residual = upstream[..., None] * (value - tf.sigmoid(logits))
        return None, _sum_to_shape(residual, logits)

    return log_prob, gradient


def _sum_to_shape(gradient: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Sums a gradient over the axes along which `like` was broadcast."""
    _, axes = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(gradient), s1=tf.shape(like))
    return tf.reshape(tf.reduce_sum(gradient, axes), tf.shape(like))


class BinaryDistribution(tfd.Distribution):
    """A distribution over binary vectors that factorises in the order of the units.

    `p(x) = Π_i σ(a_i)^x_i (1 - σ(a_i))^(1 - x_i)`, where the logit `a_i` may depend on
    `x_1 … x_{i-1}`. A subclass supplies the logits (`conditional_logits`) and the way to
    draw the units in order (`_ancestral_sample`); the rest is the same for all.

    The event shape is `[D]`, the dtype float32.
    """

    def __init__(self, parameters: dict, validate_args: bool, name: str):
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @abc.abstractmethod
    def conditional_logits(self, value: tf.Tensor) -> tf.Tensor:
        """Logit of every unit given the units before it in `value`, all in parallel.

        Args:
            value: binary tensor `[..., D]` that broadcasts against the batch shape.

        Returns:
            Tensor `[..., D]` of the broadcast shape (of the batch shape alone where the
            units are independent).
        """

    @abc.abstractmethod
    def _ancestral_sample(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps uniform noise `[..., D]` to the sample and the logits passed on the way."""

    def conditional_probs(self, value: tf.Tensor) -> tf.Tensor:
        """`p(x_i = 1 | x_1 … x_{i-1})` of every unit at `value`; shapes as the logits'."""
        return tf.sigmoid(self.conditional_logits(tf.cast(value, self.dtype)))

    def sample_from_noise(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The sample that given uniform noise stands for, and its log-probability.

        The noise may broadcast against the batch shape: rows that share it are driven by
        common random numbers.

        Args:
            noise: uniform numbers in (0, 1), `[..., D]`.

        Returns:
            The binary sample `[..., D]` and its log-probability in nats `[...]`.
        """
        value, logits = self._sample_and_logits(noise)
        return value, bernoulli_log_prob(value, logits)

    def _sample_and_logits(self, noise):
        shape = tf.broadcast_static_shape(noise.shape, self.batch_shape + self.event_shape)
        value, logits = self._ancestral_sample(noise)
        return tf.ensure_shape(value, shape), logits

    def _log_prob(self, value):
        return bernoulli_log_prob(value, self.conditional_logits(value))

    def _noise(self, sample_shape, seed):
        shape = tf.concat(
            [
                tf.cast(sample_shape, tf.int32),
                self.batch_shape_tensor(),
                self.event_shape_tensor(),
            ],
            axis=0,
        )
        return uniform_noise(shape, seed)

    def _sample_n(self, n, seed=None):
        return self._sample_and_logits(self._noise([n], seed))[0]

    def _sample_and_log_prob(self, sample_shape, seed):
        return self.sample_from_noise(self._noise(sample_shape, seed))

    def _default_event_space_bijector(self):
        return None

    def _sample_control_dependencies(self, value):
        if not self.validate_args:
            return []
        is_binary = tf.reduce_all(tf.equal(value * value, value))
        return [tf.debugging.Assert(is_binary, ["Expected values in {0, 1}, got:", value])]
