"""Gaussian layer: real units, independent given their parents."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.arrays import REAL
from rws_keras.checks import check_positive_integer
from rws_keras.errors import UserError
from rws_keras.layers.distribution import NoiseDrivenDistribution
from rws_keras.layers.parameters import as_parameter, last_axis, parameter_dtype
from rws_keras.layers.registry import register_family
from rws_keras.layers.stochastic_layer import StochasticLayer, affine

tfd = tfp.distributions


class DiagonalGaussian(NoiseDrivenDistribution):
    """Independent Gaussian units, `x_i ~ N(μ_i, σ_i²)`.

    Equal to `tfd.MultivariateNormalDiag(μ, σ)`, with samples that can be driven by given
    uniform noise: `x_i = μ_i + σ_i Φ⁻¹(u_i)`. Gradients flow through them. The Kullback-Leibler
    divergence is defined between the two as well, and for `tfd.Independent(tfd.Normal)`.

    Values may be of any dtype, and samples have that of the parameters: float32, or float64 where
    a tensor among them is float64.

    Args:
        loc: Tensor, array or variable `[..., D]`, the means μ.
        scale: Tensor, array or variable `[..., D]`, the standard deviations σ.
        validate_args: Whether to check that the standard deviations are positive.
        name: Name of the distribution.
    """

    units_are_independent = True

    def __init__(
        self,
        loc: tf.Tensor,
        scale: tf.Tensor,
        validate_args: bool = False,
        name: str = "DiagonalGaussian",
    ):
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            dtype = parameter_dtype(loc, scale)
            self.loc = as_parameter(loc, dtype, "loc", least_rank=0)
            self.scale = as_parameter(scale, dtype, "scale", least_rank=0)
            self._check_units()
            super().__init__(parameters, tfd.FULLY_REPARAMETERIZED, validate_args, name, dtype)

    def _check_units(self):
        loc, scale = last_axis(self.loc), last_axis(self.scale)
        sizes = {n for axis in (loc, scale) for n in axis if n not in (None, 1)}
        if len(sizes) > 1 or loc.rank == scale.rank == 0:
            raise UserError(
                "The last axes of `loc` and `scale` are the units and must have the same size, got "
                f"shapes {self.loc.shape} and {self.scale.shape}."
            )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {
            "loc": tfp.util.ParameterProperties(event_ndims=1),
            "scale": tfp.util.ParameterProperties(
                event_ndims=1, default_constraining_bijector_fn=tfp.bijectors.Softplus
            ),
        }

    def _event_shape(self):
        return tf.broadcast_static_shape(last_axis(self.loc), last_axis(self.scale))

    def _event_shape_tensor(self):
        return tf.broadcast_dynamic_shape(tf.shape(self.loc)[-1:], tf.shape(self.scale)[-1:])

    def _parameter_control_dependencies(self, is_init):
        # A variable is checked when it is used.
        if not self.validate_args or is_init != isinstance(self.scale, tf.Tensor):
            return []
        return [tf.debugging.assert_positive(self.scale, "The scale must be positive.")]

    def _loc_and_scale(self):
        return tf.cast(self.loc, self.dtype), tf.cast(self.scale, self.dtype)

    def sample_from_noise(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        loc, scale = self._loc_and_scale()
        value = loc + scale * tf.math.ndtri(self._vector(noise, "noise"))
        # From the value, not from the noise: with path gradients `log_prob` also depends on the
        # parameters through the value.
        return value, self._log_prob(value)

    def unit_log_probs(self, value: tf.Tensor) -> tf.Tensor:
        loc, scale = self._loc_and_scale()
        z = (self._vector(value) - loc) / scale
        return -0.5 * tf.square(z) - tf.math.log(scale) - 0.5 * math.log(2.0 * math.pi)

    def conditional_mean(self, value: tf.Tensor) -> tf.Tensor:
        return tf.cast(self.loc, self.dtype)

    def complete(self, value: tf.Tensor, known: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        return tf.where(known, self._vector(value), self.sample_from_noise(noise)[0])

    def _log_prob(self, value):
        return tf.reduce_sum(self.unit_log_probs(value), axis=-1)

    def _mean(self):
        loc, scale = self._loc_and_scale()
        return loc + tf.zeros_like(scale)

    def _mode(self):
        return self._mean()

    def _stddev(self):
        loc, scale = self._loc_and_scale()
        return scale + tf.zeros_like(loc)

    def _variance(self):
        return tf.square(self._stddev())

    def _covariance(self):
        return tf.linalg.diag(self._variance())

    def _entropy(self):
        constant = 0.5 * math.log(2.0 * math.pi * math.e)
        return tf.reduce_sum(tf.math.log(self._stddev()) + constant, axis=-1)

    def _default_event_space_bijector(self):
        return tfp.bijectors.Identity()


@tfd.RegisterKL(DiagonalGaussian, DiagonalGaussian)
@tfd.RegisterKL(DiagonalGaussian, tfd.Independent)
@tfd.RegisterKL(tfd.Independent, DiagonalGaussian)
def _kl_divergence(a, b, name=None):
    return tfd.kl_divergence(*(_as(_independent, d) for d in (a, b)), name=name)


@tfd.RegisterKL(DiagonalGaussian, tfd.MultivariateNormalLinearOperator)
@tfd.RegisterKL(tfd.MultivariateNormalLinearOperator, DiagonalGaussian)
def _kl_divergence_of_matrices(a, b, name=None):
    return tfd.kl_divergence(*(_as(tfd.MultivariateNormalDiag, d) for d in (a, b)), name=name)


def _independent(loc, scale):
    return tfd.Independent(tfd.Normal(loc, scale), 1)


def _as(kind, distribution):
    """The same distribution as one of TFP's."""
    if isinstance(distribution, DiagonalGaussian):
        return kind(distribution.mean(), distribution.stddev())
    return distribution


_LEAST_SCALE = 1e-3


def _scale(activation: tf.Tensor) -> tf.Tensor:
    """A positive standard deviation, 1 where the activation is 0."""
    shift = math.log(math.expm1(1.0 - _LEAST_SCALE))
    return _LEAST_SCALE + tf.nn.softplus(activation + shift)


@register_family("gaussian", label="Gaussian")
@keras.saving.register_keras_serializable(package="rws_keras")
class Gaussian(StochasticLayer):
    """Diagonal Gaussian layer: `x ~ N(W d + b, s(V d + c)²)`.

    `s` is a softplus with `s(0) = 1` that stays above 0.001: a scale that goes to zero, or a
    density that overflows, would end the training. `d` is the parent `y` itself, or with
    `hidden_units` a deterministic layer `f(U y + a)`.
    Without a parent it is a Gaussian prior with means `b` and standard deviations `s(c)`
    (`d = f(a)` is constant), the standard normal distribution at first. As latents of P and Q,
    with path gradients, it makes the machine a variational autoencoder; as the visible layer it
    models real data.

    Args:
        units: Positive integer, the number of real units.
        hidden_units: Positive integer, the size of the deterministic layer; none by default.
        activation: Activation `f` of the deterministic layer; tanh by default.
        kernel_initializer: Initializer of `W`, `V` and `U`.
        bias_initializer: Initializer of `b`, `c` and `a`.

    Example:
    ```python
    layer = rws_keras.layers.Gaussian(3)
    layer.build()                                            # without parents: a prior
    layer.distribution().sample(5, seed=0)                   # [5, 3]
    ```

    Reference:
        - [Kingma & Welling, 2014](https://arxiv.org/abs/1312.6114)
    """

    support = REAL

    def __init__(
        self,
        units: int,
        hidden_units: int | None = None,
        activation: str | Callable | None = None,
        **kwargs,
    ):
        super().__init__(units, **kwargs)
        if hidden_units is None and activation is not None:
            raise UserError("`activation` has no effect without `hidden_units`; give both.")
        self.hidden_units = (
            None if hidden_units is None else check_positive_integer(hidden_units, "hidden_units")
        )
        self.activation = keras.activations.get(activation or "tanh")

    def _build(self, given_units):
        width = given_units
        if self.hidden_units:
            width = self.hidden_units
            if given_units is not None:
                self.hidden_kernel = self._add_kernel("hidden_kernel", given_units, width)
            self.hidden_bias = self._add_bias("hidden_bias", width)
        if width is not None:
            self.kernel = self._add_kernel("kernel", width, self.units)
            self.scale_kernel = self._add_kernel("scale_kernel", width, self.units)
        self.bias = self._add_bias("bias", self.units)
        self.scale_bias = self._add_bias("scale_bias", self.units)

    def _distribution(self, given):
        if self.hidden_units:
            kernel = None if given is None else self.hidden_kernel
            given = self.activation(affine(given, kernel, self.hidden_bias))
        if given is None:
            return DiagonalGaussian(self.bias, _scale(tf.convert_to_tensor(self.scale_bias)))
        return DiagonalGaussian(
            affine(given, self.kernel, self.bias),
            _scale(affine(given, self.scale_kernel, self.scale_bias)),
        )

    def get_config(self) -> dict:
        config = {**super().get_config(), "hidden_units": self.hidden_units}
        if self.hidden_units:
            config["activation"] = keras.activations.serialize(self.activation)
        return config
