"""Binary units: what all distributions over binary vectors share."""

from __future__ import annotations

import abc

import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.layers.distribution import NoiseDrivenDistribution

tfd = tfp.distributions

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


class BinaryDistribution(NoiseDrivenDistribution):
    """A distribution over binary vectors that factorises in the order of the units.

    `p(x) = Π_i σ(a_i)^x_i (1 - σ(a_i))^(1 - x_i)`, where the logit `a_i` may depend on
    `x_1 … x_{i-1}`. A subclass supplies the logits (`conditional_logits`) and the way to
    draw the units in order (`_ancestral_sample`); the rest is the same for all.
    """

    def __init__(self, parameters: dict, validate_args: bool, name: str):
        super().__init__(parameters, tfd.NOT_REPARAMETERIZED, validate_args, name)

    @abc.abstractmethod
    def conditional_logits(self, value: tf.Tensor) -> tf.Tensor:
        """Logit of every unit given the units before it in `value`, all in parallel.

        Args:
            value: Binary tensor `[..., D]` that broadcasts against the batch shape.

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

    def conditional_mean(self, value: tf.Tensor) -> tf.Tensor:
        return self.conditional_probs(value)

    def unit_log_probs(self, value: tf.Tensor) -> tf.Tensor:
        return -tf.nn.softplus((1.0 - 2.0 * value) * self.conditional_logits(value))

    def complete(self, value: tf.Tensor, known: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        # Noise beyond (0, 1) leaves a unit no choice: the known ones come out as they are.
        fixed = tf.where(value > 0.5, -1.0, 2.0)
        return self._sample_and_logits(tf.where(known, fixed, noise))[0]

    def sample_from_noise(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        value, logits = self._sample_and_logits(noise)
        return value, bernoulli_log_prob(value, logits)

    def _sample_and_logits(self, noise):
        shape = tf.broadcast_static_shape(noise.shape, self.batch_shape + self.event_shape)
        value, logits = self._ancestral_sample(noise)
        return tf.ensure_shape(value, shape), logits

    def _sample_n(self, n, seed=None):
        # Not by way of the log-probability, which takes as long again.
        return self._sample_and_logits(self._noise([n], seed))[0]

    def _log_prob(self, value):
        return bernoulli_log_prob(value, self.conditional_logits(value))

    def _sample_control_dependencies(self, value):
        if not self.validate_args:
            return []
        is_binary = tf.reduce_all(tf.equal(value * value, value))
        return [tf.debugging.Assert(is_binary, ["Expected values in {0, 1}, got:", value])]
