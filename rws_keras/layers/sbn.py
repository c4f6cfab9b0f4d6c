"""Sigmoid belief layer: units independent given their parents."""

from __future__ import annotations

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.layers.bernoulli import BinaryDistribution
from rws_keras.layers.parameters import as_parameter, last_axis, parameter_dtype
from rws_keras.layers.registry import register_family
from rws_keras.layers.stochastic_layer import StochasticLayer, affine

tfd = tfp.distributions


class FactorizedBernoulli(BinaryDistribution):
    """Independent Bernoulli units, `p(x_i = 1) = σ(a_i)`.

    Equal to `tfd.Independent(tfd.Bernoulli(logits=a), 1)`, with a log-probability that
    takes one pass over the units and samples that can be driven by given noise. The
    Kullback-Leibler divergence is defined between the two as well.

    Args:
        logits: Tensor, array or variable `[..., D]`.
        validate_args: Whether to check that values are binary.
        name: Name of the distribution.
    """

    units_are_independent = True

    def __init__(
        self, logits: tf.Tensor, validate_args: bool = False, name: str = "FactorizedBernoulli"
    ):
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            dtype = parameter_dtype(logits)
            self.logits = as_parameter(logits, dtype, "logits")
            super().__init__(parameters, validate_args, name, dtype)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {"logits": tfp.util.ParameterProperties(event_ndims=1)}

    def _event_shape(self):
        return last_axis(self.logits)

    def _event_shape_tensor(self):
        return tf.shape(self.logits)[-1:]

    def _logits(self):
        return tf.cast(self.logits, self.dtype)

    def conditional_logits(self, value: tf.Tensor) -> tf.Tensor:
        return self._logits()

    def _ancestral_sample(self, noise, groups=None):
        logits = self._logits()
        value = tf.cast(noise < tf.sigmoid(logits), self.dtype)
        if groups is not None:
            taken = tf.tensordot(value, tf.cast(groups.earlier, self.dtype), 1) > 0.5
            value = tf.where(taken, 0.0, tf.where(groups.last, 1.0, value))
        return value, logits

    def _mean(self):
        return tf.sigmoid(self._logits())

    def _mode(self):
        return tf.cast(self._logits() > 0.0, self.dtype)

    def _variance(self):
        logits = self._logits()
        return tf.sigmoid(logits) * tf.sigmoid(-logits)

    def _covariance(self):
        return tf.linalg.diag(self._variance())

    def _entropy(self):
        # Beyond these bounds it is 0 in float64 too; at infinity it would have no gradient.
        logits = tf.clip_by_value(self._logits(), -1000.0, 1000.0)
        on = tf.sigmoid(logits) * tf.nn.softplus(-logits)
        return tf.reduce_sum(on + tf.sigmoid(-logits) * tf.nn.softplus(logits), axis=-1)


@tfd.RegisterKL(FactorizedBernoulli, FactorizedBernoulli)
@tfd.RegisterKL(FactorizedBernoulli, tfd.Independent)
@tfd.RegisterKL(tfd.Independent, FactorizedBernoulli)
def _kl_divergence(a, b, name=None):
    return tfd.kl_divergence(_independent(a), _independent(b), name=name)


def _independent(distribution):
    """The same distribution as one of TFP's."""
    if isinstance(distribution, FactorizedBernoulli):
        return tfd.Independent(tfd.Bernoulli(logits=distribution._logits()), 1)
    return distribution


@register_family("sbn", label="SBN")
@keras.saving.register_keras_serializable(package="rws_keras")
class SBN(StochasticLayer):
    """Sigmoid belief layer: `p(x_i = 1 | y) = σ(W_i y + b_i)`.

    Without a parent it is the factorised Bernoulli prior. Also known as the layer of a
    sigmoid belief network, or of a Helmholtz machine.

    Args:
        units: Positive integer, the number of binary units.
        kernel_initializer: Initializer of `W`.
        bias_initializer: Initializer of `b`.

    Example:
    ```python
    prior = rws_keras.layers.SBN(10)
    prior.distribution().sample(3, seed=0)                   # [3, 10]
    ```

    Reference:
        - [Neal, 1992](https://doi.org/10.1016/0004-3702(92)90065-6)
    """

    def _build(self, given_units):
        if given_units is not None:
            self.kernel = self._add_kernel("kernel", given_units, self.units)
        self.bias = self._add_bias("bias", self.units)

    def _distribution(self, given):
        kernel = None if given is None else self.kernel
        return FactorizedBernoulli(affine(given, kernel, self.bias))
