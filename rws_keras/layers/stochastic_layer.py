"""The contract of a stochastic layer, stated once."""

from __future__ import annotations

import keras
import tensorflow as tf

from rws_keras.errors import UserError
from rws_keras.layers.distribution import BinaryDistribution

Initializer = str | dict | keras.initializers.Initializer


class StochasticLayer(keras.layers.Layer):
    """A layer of binary stochastic units: a conditional distribution as a Keras layer.

    A subclass creates its weights in `_build(given_units)` and returns its distribution
    from `_distribution(given)`. A layer built without a parent is a prior: it has
    distribution parameters of its own and takes no input.

    Args:
        units: Positive integer, the number of binary units `D`.
        kernel_initializer: Initializer of the weights from the parents.
        bias_initializer: Initializer of the biases.

    Example:
    ```python
    layer = rws_keras.layers.SBN(200)
    posterior = layer.distribution(x)             # x: [N, 784]
    h = posterior.sample(5, seed=0)               # [5, N, 200]
    log_prob = posterior.log_prob(h)              # [5, N], nats
    ```
    """

    def __init__(
        self,
        units: int,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if isinstance(units, bool) or int(units) != units or units < 1:
            raise UserError(
                f"{type(self).__name__} needs `units` to be a positive integer, got {units!r}."
            )
        self.units = int(units)
        self.given_units = None
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    @property
    def is_prior(self) -> bool:
        """Whether the layer was built without a parent."""
        return self.built and self.given_units is None

    def build(self, given_shape: tuple[int | None, ...] | None = None) -> None:
        """Creates the weights.

        Args:
            given_shape: Shape of the parent vector, `(..., parent units)`, or `None` to
                make the layer a prior.
        """
        given_units = None if given_shape is None else given_shape[-1]
        if self.built:
            if given_units != self.given_units:
                raise UserError(
                    f"Layer '{self.name}' ({type(self).__name__}) was built "
                    f"{_parents(self.given_units)}, it cannot be used {_parents(given_units)}. "
                    "Make a new layer, or give the layers sizes that meet."
                )
            return
        self.given_units = given_units
        self._build(given_units)
        self.built = True

    def _build(self, given_units: int | None) -> None:
        raise NotImplementedError

    def _distribution(self, given: tf.Tensor | None) -> BinaryDistribution:
        raise NotImplementedError

    def distribution(self, given: tf.Tensor | None = None) -> BinaryDistribution:
        """The distribution of the units given their parents.

        Args:
            given: Binary parents `[..., parent units]` with any number of leading
                dimensions, or `None` if the layer is a prior.

        Returns:
            A `tfp.distributions.Distribution` of event shape `[units]` whose batch shape
            is the leading dimensions of `given`. Its `log_prob` broadcasts: parents
            `[N, H]` serve values `[K, N, units]` without being processed K times.

        Raises:
            ValueError: If a prior is given parents, or a conditional layer none, or the
                number of parents is not the one the layer was built for.
        """
        if given is not None:
            given = tf.convert_to_tensor(given)
            if given.dtype != self.compute_dtype:
                given = tf.cast(given, self.compute_dtype)
        given_shape = None if given is None else tuple(given.shape)
        if not self.built or (None if given is None else given_shape[-1]) != self.given_units:
            self.build(given_shape)
        return self._distribution(given)

    def call(self, given: tf.Tensor) -> tf.Tensor:
        """Draws one sample `[..., units]` given parents `[..., parent units]`."""
        return self.distribution(given).sample(seed=keras.random.randint((2,), 0, 2**31 - 1))

    def compute_output_shape(self, given_shape: tuple | None) -> tuple:
        return (*(given_shape or ())[:-1], self.units)

    def get_build_config(self) -> dict:
        return {"given_units": self.given_units}

    def build_from_config(self, config: dict) -> None:
        given_units = config["given_units"]
        self.build(None if given_units is None else (None, given_units))

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }

    def _add_kernel(self, name: str, rows: int, columns: int) -> keras.Variable:
        return self.add_weight(
            name=name, shape=(rows, columns), initializer=self.kernel_initializer
        )

    def _add_bias(self, name: str, size: int) -> keras.Variable:
        return self.add_weight(name=name, shape=(size,), initializer=self.bias_initializer)


def affine(given: tf.Tensor | None, kernel, bias) -> tf.Tensor:
    """`given @ kernel + bias` for any leading dimensions; the bias alone without parents."""
    bias = tf.convert_to_tensor(bias)
    return bias if given is None else tf.tensordot(given, tf.convert_to_tensor(kernel), 1) + bias


def _parents(units: int | None) -> str:
    return "as a prior (without parents)" if units is None else f"with {units} parents"
