"""Sigmoid belief layer: units independent given their parents."""

from __future__ import annotations

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.layers.bernoulli import BinaryDistribution
from rws_keras.layers.registry import register_family
from rws_keras.layers.stochastic_layer import StochasticLayer, affine


class FactorizedBernoulli(BinaryDistribution):
    """Independent Bernoulli units, `p(x_i = 1) = σ(a_i)`.

    Equal to `tfd.Independent(tfd.Bernoulli(logits=a), 1)`, with a log-probability that
    takes one pass over the units and samples that can be driven by given noise.

    Args:
        logits: Float tensor `[..., D]`.
        validate_args: Whether to check that values are binary.
        name: Name of the distribution.
    """

    units_are_independent = True

    def __init__(
        self, logits: tf.Tensor, validate_args: bool = False, name: str = "FactorizedBernoulli"
    ):
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            self.logits = tf.convert_to_tensor(logits, tf.float32, name="logits")
            super().__init__(parameters, validate_args, name)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {"logits": tfp.util.ParameterProperties(event_ndims=1)}

    def _event_shape(self):
        return self.logits.shape[-1:]

    def _event_shape_tensor(self):
        return tf.shape(self.logits)[-1:]

    def conditional_logits(self, value: tf.Tensor) -> tf.Tensor:
        return self.logits

    def _ancestral_sample(self, noise):
        return tf.cast(noise < tf.sigmoid(self.logits), self.dtype), self.logits

    def _mean(self):
        return tf.sigmoid(self.logits)

    def _mode(self):
        return tf.cast(self.logits > 0.0, self.dtype)

    def _variance(self):
        return tf.sigmoid(self.logits) * tf.sigmoid(-self.logits)

    def _entropy(self):
        return tf.reduce_sum(
            tf.nn.softplus(self.logits) - self.logits * tf.sigmoid(self.logits), axis=-1
        )


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
