"""Binary units: what all distributions over binary vectors share."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.layers.distribution import NoiseDrivenDistribution

if TYPE_CHECKING:
    from rws_keras.layers.choices import Groups

tfd = tfp.distributions

# Most factors whose product is taken before the logarithm. Each is at most 2, so that 2^25 is
# far from float32's end; more would save little and leave fewer columns to work on at once.
_MOST_FACTORS = 25

# A logit whose sigmoid is 0 or 1 to the last bit.
DECISIVE = 1e6


@tf.custom_gradient
def bernoulli_log_prob(value: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """`Σ_i log p(x_i)` in nats for independent Bernoulli units with the given logits.

    `log σ(a)^x (1 - σ(a))^(1-x) = a x - max(a, 0) - log(1 + e^-|a|)`. The first two terms are
    `-a ([a > 0] - x)`, which is 0 for a certain value at an infinite logit too. The last term is
    the same for every value, and its sum over the units is the logarithm of a product: one
    logarithm serves several units. The gradient with respect to `a` is the residual `x - σ(a)`,
    that with respect to `x` is `a`.

    Args:
        value: Tensor `[..., D]`. Usually binary; for other values the formula is that of TFP's
            `Bernoulli`.
        logits: Tensor `[..., D]`, broadcast against `value`.

    Returns:
        Tensor of the broadcast shape without its last axis.
    """
    log_prob = -tf.reduce_sum(_missed(value, logits), axis=-1) - _log_normalizer(logits)

    def gradient(upstream):
        upstream = upstream[..., None]
        residual = value - tf.sigmoid(logits)
        return _sum_to_shape(upstream * logits, value), _sum_to_shape(upstream * residual, logits)

    return log_prob, gradient


def _missed(value, logits):
    """`max(a, 0) - a x`: how far a value is below the more probable one, but for the sign."""
    return tf.math.multiply_no_nan(logits, tf.cast(logits > 0.0, logits.dtype) - value)


def _log_normalizer(logits):
    """`Σ_i log(1 + e^-|a_i|)` over the units."""
    factors = 1.0 + tf.exp(-tf.abs(logits))
    units = logits.shape[-1:]
    if not units.is_fully_defined():
        return tf.reduce_sum(tf.math.log(factors), axis=-1)
    together = max(n for n in range(1, _MOST_FACTORS + 1) if units[0] % n == 0)
    shape = tf.concat([tf.shape(logits)[:-1], [together, units[0] // together]], axis=0)
    product = tf.reduce_prod(tf.reshape(factors, shape), axis=-2)
    return tf.reduce_sum(tf.math.log(product), axis=-1)


def _sum_to_shape(gradient: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Sums a gradient over the axes along which `like` was broadcast."""
    _, axes = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(gradient), s1=tf.shape(like))
    return tf.reshape(tf.reduce_sum(gradient, axes), tf.shape(like))


class BinaryDistribution(NoiseDrivenDistribution):
    """A distribution over binary vectors that factorises in the order of the units.

    `p(x) = Π_i σ(a_i)^x_i (1 - σ(a_i))^(1 - x_i)`, where the logit `a_i` may depend on
    `x_1 … x_{i-1}`. A subclass supplies the logits (`conditional_logits`) and the way to
    draw the units in order (`_ancestral_sample`); the rest is the same for all.

    Values may be of any dtype, and samples have that of the parameters: float32, or float64 where
    a tensor among them is float64. Values that are not binary are refused with `validate_args`
    only; without it their log-probability is that of TFP's `Bernoulli`.
    """

    # Whether its units can be the values of `Choices`: `_ancestral_sample` takes `groups`.
    takes_choices = True

    def __init__(
        self, parameters: dict, validate_args: bool, name: str, dtype: tf.DType = tf.float32
    ):
        super().__init__(parameters, tfd.NOT_REPARAMETERIZED, validate_args, name, dtype)

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
    def _ancestral_sample(
        self, noise: tf.Tensor, groups: Groups | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps uniform noise `[..., D]` to the sample and the logits passed on the way.

        With `groups` a unit of a choice is on only if none before it is, and the last one if none
        before it is; the logits are those of the other units.
        """

    def conditional_probs(self, value: tf.Tensor) -> tf.Tensor:
        """`p(x_i = 1 | x_1 … x_{i-1})` of every unit at `value`; shapes as the logits'."""
        return tf.sigmoid(self.conditional_logits(self._vector(value)))

    def conditional_mean(self, value: tf.Tensor) -> tf.Tensor:
        return self.conditional_probs(value)

    def unit_log_probs(self, value: tf.Tensor) -> tf.Tensor:
        value = self._vector(value)
        logits = self.conditional_logits(value)
        off = tf.math.multiply_no_nan(tf.nn.softplus(logits), 1.0 - value)
        return -off - tf.math.multiply_no_nan(tf.nn.softplus(-logits), value)

    def observed_log_prob(self, value: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        value = self._vector(value)
        # With such a logit the other units are certain: they add neither likelihood nor gradient.
        certain = tf.where(value > 0.5, tf.cast(DECISIVE, self.dtype), -DECISIVE)
        logits = tf.where(observed, self.conditional_logits(value), certain)
        return bernoulli_log_prob(value, logits)

    def complete(self, value: tf.Tensor, known: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        # Noise outside (0, 1) fixes a unit: the known ones stay as they are.
        fixed = tf.where(self._vector(value) > 0.5, tf.cast(-1.0, self.dtype), 2.0)
        noise = tf.where(known, fixed, self._vector(noise, "noise"))
        return self._sample_and_logits(noise)[0]

    def sample_from_noise(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        value, logits = self._sample_and_logits(self._vector(noise, "noise"))
        return value, bernoulli_log_prob(value, logits)

    def _sample_and_logits(self, noise):
        shape = tf.broadcast_static_shape(noise.shape, self.batch_shape + self.event_shape)
        value, logits = self._ancestral_sample(noise)
        return tf.ensure_shape(value, shape), logits

    def _sample_n(self, n, seed=None):
        # Not through the log-probability, which would take twice as long.
        noise = self._vector(self._noise([n], seed), "noise")
        return self._sample_and_logits(noise)[0]

    def _log_prob(self, value):
        value = self._vector(value)
        return bernoulli_log_prob(value, self.conditional_logits(value))

    def _sample_control_dependencies(self, value):
        if not self.validate_args:
            return []
        value = self._vector(value)
        is_binary = tf.reduce_all(tf.equal(value * value, value))
        return [tf.debugging.Assert(is_binary, ["Expected values in {0, 1}, got:", value])]

    def _default_event_space_bijector(self):
        return None
