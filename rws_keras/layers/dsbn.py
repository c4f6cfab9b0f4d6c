"""Sigmoid belief layer with one deterministic hidden layer in front."""

from __future__ import annotations

from collections.abc import Callable

import keras

from rws_keras.checks import check_positive_integer
from rws_keras.layers.registry import register_family
from rws_keras.layers.sbn import FactorizedBernoulli
from rws_keras.layers.stochastic_layer import StochasticLayer, affine


@register_family("dsbn", label="DSBN")
@keras.saving.register_keras_serializable(package="rws_keras")
class DSBN(StochasticLayer):
    """Sigmoid belief layer after a deterministic hidden layer.

    `d = f(U y + c)`, `p(x_i = 1 | y) = σ(W_i d + b_i)`. Without a parent `d = f(c)` is
    constant and the layer is a factorised Bernoulli prior.

    Args:
        units: Positive integer, the number of binary units.
        hidden_units: Positive integer, the size of the deterministic layer; as many as
            `units` by default.
        activation: Activation `f` of the deterministic layer.
        kernel_initializer: Initializer of `U` and `W`.
        bias_initializer: Initializer of `c` and `b`.

    Reference:
        - [Bornschein & Bengio, 2015](https://arxiv.org/abs/1406.2751)
    """

    def __init__(
        self,
        units: int,
        hidden_units: int | None = None,
        activation: str | Callable = "tanh",
        **kwargs,
    ):
        super().__init__(units, **kwargs)
        self.hidden_units = (
            self.units
            if hidden_units is None
            else check_positive_integer(hidden_units, "hidden_units")
        )
        self.activation = keras.activations.get(activation)

    def _build(self, given_units):
        if given_units is not None:
            self.hidden_kernel = self._add_kernel("hidden_kernel", given_units, self.hidden_units)
        self.hidden_bias = self._add_bias("hidden_bias", self.hidden_units)
        self.kernel = self._add_kernel("kernel", self.hidden_units, self.units)
        self.bias = self._add_bias("bias", self.units)

    def _distribution(self, given):
        hidden_kernel = None if given is None else self.hidden_kernel
        hidden = self.activation(affine(given, hidden_kernel, self.hidden_bias))
        return FactorizedBernoulli(affine(hidden, self.kernel, self.bias))

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "activation": keras.activations.serialize(self.activation),
        }
