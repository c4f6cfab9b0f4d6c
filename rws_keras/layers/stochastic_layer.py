"""The base class of stochastic layers."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.arrays import BINARY, Rows, Support, check_data, checked_rows, with_missing
from rws_keras.checks import check_positive_integer, check_precision
from rws_keras.errors import UserError
from rws_keras.layers.choices import Choices, Groups
from rws_keras.layers.distribution import NoiseDrivenDistribution
from rws_keras.signatures import plain_arguments


def _once(build: Callable) -> Callable:
    """Makes the `build` of a layer safe to call again, and stores its number of parents."""

    @functools.wraps(build)
    def build_once(self, given_shape=None):
        given_units = None if given_shape is None else given_shape[-1]
        if not self.built:
            self.given_units = given_units
            build(self, given_shape)
        elif given_units != self.given_units:
            raise UserError(
                f"Layer '{self.name}' ({type(self).__name__}) was built "
                f"{_parents(self.given_units)} and cannot be used {_parents(given_units)}. Make a "
                "new layer, or give the layers matching sizes."
            )

    return build_once


Initializer: TypeAlias = str | dict | keras.initializers.Initializer
Regularizer: TypeAlias = str | dict | keras.regularizers.Regularizer | None
Constraint: TypeAlias = str | dict | keras.constraints.Constraint | None


class _UnderWay(threading.local):
    """State of a thread: number of active calls of `distribution`, and whether losses are kept."""

    calls = 0
    keeps_losses = False


_under_way = _UnderWay()


@contextlib.contextmanager
def keep_losses() -> Iterator[None]:
    """Makes layers keep what they add with `add_loss`, because it will be read."""
    before, _under_way.keeps_losses = _under_way.keeps_losses, True
    try:
        yield
    finally:
        _under_way.keeps_losses = before


class RefusesActivityRegularizer:
    """A Keras layer or model whose output is a sample or a score, not an activation."""

    @property
    def activity_regularizer(self) -> None:
        """None: it would have no effect on the training."""
        return None

    @activity_regularizer.setter
    def activity_regularizer(self, value: object) -> None:
        if value is not None:
            raise UserError(
                f"{type(self).__name__} takes no `activity_regularizer`, which would have no "
                "effect: its output is not an activation. Give it to a Keras layer inside a "
                "stochastic layer, or call `add_loss` in `_distribution`."
            )


class StochasticLayer(RefusesActivityRegularizer, keras.layers.Layer):
    """A layer of stochastic units: a conditional distribution as a Keras layer.

    A subclass returns its distribution from `_distribution(given)`; it must be one that can be
    sampled from uniform noise (`NoiseDrivenDistribution`), such as `FactorizedBernoulli` or
    `DiagonalGaussian`. It creates its weights in `_build(given_units)`, or as everywhere in Keras
    in `build(given_shape)`; Keras layers inside it build themselves when they are first called, and
    are called with parents `[rows, parent units]`. If the units are not binary, the class attribute
    `support` says what values they take (`rws_keras.layers.REAL`).

    A layer built without a parent is a prior: its distribution parameters are weights, and it takes
    no input.

    The weights are float32, and so are parents, distributions and likelihoods. Under the policies
    `mixed_float16` and `mixed_bfloat16` Keras layers inside compute in half precision.

    Args:
        units: Positive integer, the number of units `D`.
        kernel_initializer: Initializer of the weights from the parents.
        bias_initializer: Initializer of the biases.
        kernel_regularizer: Regularizer of all weights but the biases; none by default.
        bias_regularizer: Regularizer of the biases; none by default.
        kernel_constraint: Constraint on all weights but the biases; none by default.
        bias_constraint: Constraint on the biases; none by default.
        choices: Sizes of groups of units, in their order; in a group of several units exactly one
            is on, see `Choices`. All units are binary by default.

    Example:
    ```python
    class Deep(rws_keras.layers.StochasticLayer):
        def __init__(self, units, **kwargs):
            super().__init__(units, **kwargs)
            self.network = keras.Sequential(
                [keras.layers.Dense(30, "relu"), keras.layers.Dense(units)]
            )

        def _distribution(self, given):
            return rws_keras.layers.FactorizedBernoulli(self.network(given))

    layer = Deep(4)
    posterior = layer.distribution(keras.ops.ones((2, 6)))    # parents [2, 6]
    h = posterior.sample(5, seed=0)                           # [5, 2, 4]
    log_prob = posterior.log_prob(h)                          # [5, 2], nats
    ```
    """

    support: Support = BINARY
    built: bool

    def __init__(
        self,
        units: int,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        choices: Sequence[int] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_precision(self)
        self.units = check_positive_integer(units, f"units` of `{type(self).__name__}")
        self.given_units: int | None = None
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.choices = None if choices is None else [int(size) for size in choices]
        if self.choices is not None and sum(self.choices) != self.units:
            raise UserError(
                f"`choices` must sum to the {self.units} units, got {self.choices}, which sum to "
                f"{sum(self.choices)}."
            )

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "build" in vars(cls):
            cls.build = _once(cls.build)  # type: ignore[method-assign]

    @property
    def is_prior(self) -> bool:
        """Whether the layer was built without a parent."""
        return self.built and self.given_units is None

    @_once
    def build(self, given_shape: tuple[int | None, ...] | None = None) -> None:
        """Creates the weights.

        Args:
            given_shape: Shape of the parent vector, `(..., parent units)`, or `None` to
                make the layer a prior.

        Raises:
            UserError: If the layer was built for another number of parents.
        """
        self._build(self.given_units)
        self.built = True

    def _build(self, given_units: int | None) -> None:
        """Creates the weights; `given_units` is `None` for a prior. None by default."""

    def _distribution(self, given: tf.Tensor | None) -> NoiseDrivenDistribution:
        """The distribution given float parents `[..., parent units]`, or `None`."""
        raise NotImplementedError(f"{type(self).__name__} does not override `_distribution`.")

    def distribution(self, given: tf.Tensor | None = None) -> NoiseDrivenDistribution:
        """The distribution of the units given their parents.

        Args:
            given: Parents `[..., parent units]` with any number of leading dimensions, or
                `None` if the layer is a prior.

        Returns:
            A `tfp.distributions.Distribution` of event shape `[units]` whose batch shape
            is the leading dimensions of `given`. Its `log_prob` broadcasts: parents
            `[N, H]` serve values `[K, N, units]` without being processed K times.

        Raises:
            ValueError: If a prior is given parents, or a conditional layer none, or the
                number of parents is not the one the layer was built for.
        """
        if given is not None:
            given = tf.cast(given, tf.float32)
        parents = None if given is None else given.shape[-1]
        if not self.built or parents != self.given_units:
            self.build(None if given is None else tuple(given.shape))
        _under_way.calls += 1
        try:
            if given is not None and given.shape.rank > 2 and self._layers:
                distribution = self._distribution_by_rows(given)
            else:
                distribution = self._distribution(given)
            return distribution if self.choices is None else Choices(distribution, self.choices)
        finally:
            _under_way.calls -= 1
            if not _under_way.keeps_losses:
                self._clear_losses()

    def add_loss(self, loss: tf.Tensor) -> None:
        """Adds a scalar to the loss of `fit`; only in `_distribution`, each time it is called.

        Raises:
            UserError: Elsewhere, where it would have no effect.
        """
        if not _under_way.calls:
            raise UserError(
                f"Layer '{self.name}' ({type(self).__name__}): a loss that is added outside of "
                "`_distribution` has no effect. Call `add_loss` there, or give a weight a "
                "regularizer."
            )
        super().add_loss(loss)

    def _distribution_by_rows(self, given):
        """The distribution where Keras layers inside know one leading dimension only."""
        leading = tf.shape(given)[:-1]
        rows = self._distribution(tf.reshape(given, [-1, given.shape[-1]]))
        parameters = {}
        for name, kind in type(rows).parameter_properties(rows.dtype).items():
            value = tf.convert_to_tensor(rows.parameters[name])
            # A kernel, which has no batch, has no `event_ndims` either.
            if kind.event_ndims is not None and value.shape.rank == kind.event_ndims + 1:
                shape = tf.concat([leading, tf.shape(value)[1:]], axis=0)
                static = [*given.shape[:-1], *value.shape[1:]]
                parameters[name] = tf.ensure_shape(tf.reshape(value, shape), static)
        return rows.copy(**parameters)

    def check_contract(self) -> None:
        """Checks that a built layer's distribution is what a machine needs.

        Raises:
            UserError: If it cannot be sampled from noise, or does not have `units` units.
        """
        given = None if self.given_units is None else tf.zeros([1, self.given_units])
        # Here Keras layers inside build themselves: their variables are named after this layer.
        with keras.name_scope(self.name, caller=self):
            distribution = self.distribution(given)
        self._check_states()
        name = f"The distribution of layer '{self.name}' ({type(self).__name__})"
        if not isinstance(distribution, NoiseDrivenDistribution):
            raise UserError(
                f"{name} is a {type(distribution).__name__}, which cannot be sampled from uniform "
                "noise. Return a rws_keras.layers.FactorizedBernoulli or DiagonalGaussian, or a "
                "subclass of rws_keras.layers.NoiseDrivenDistribution."
            )
        if distribution.dtype != tf.float32:
            raise UserError(
                f"{name} has dtype {distribution.dtype.name}; machines compute likelihoods in "
                "float32. Give Keras layers inside the dtype 'float32', or a mixed policy."
            )
        if distribution.event_shape != [self.units]:
            raise UserError(
                f"{name} must have {self.units} units: its event shape must be [{self.units}], got "
                f"{distribution.event_shape}."
            )

    def _check_states(self):
        """Refuses Keras layers that act differently in training, which has no effect here."""
        for layer in self._flatten_layers(include_self=False):
            if layer._non_trainable_variables or layer._seed_generators:
                raise UserError(
                    f"Layer '{self.name}' ({type(self).__name__}) holds '{layer.name}' "
                    f"({type(layer).__name__}), which acts differently in training and inference; "
                    "in a stochastic layer it would always act as in inference. Leave it out, or "
                    "use one without state, such as LayerNormalization."
                )

    # No property: Keras reads all of them when it saves or copies a layer, built or not.
    def is_reparameterized(self) -> bool:
        """Whether gradients flow through the samples of a built layer."""
        given = None if self.given_units is None else tf.zeros([1, self.given_units])
        kind = self.distribution(given).reparameterization_type
        return kind == tfp.distributions.FULLY_REPARAMETERIZED

    def check_data(self, x: object, missing: bool = False) -> tf.Tensor:
        """Returns data for these units as a float32 tensor `[N, units]`.

        Args:
            x: The data, see `rws_keras.arrays.check_data`.
            missing: Whether values may be missing (NaN); in a choice, all or none.

        Raises:
            UserError: If they are not of that shape, or hold values that the units cannot
                take.
        """
        x = check_data(x, self.units, self._support(missing))
        return x if self.choices is None else Groups(self.choices).check(x)

    def checked_rows(self, x: object, missing: bool = False) -> Rows:
        """As `check_data`, without a conversion to float32: sparse data stay sparse."""
        x = checked_rows(x, self.units, self._support(missing))
        if self.choices is not None:
            is_sparse = isinstance(x, tf.SparseTensor)
            dense = tf.sparse.to_dense(tf.sparse.reorder(x)) if is_sparse else x
            Groups(self.choices).check(tf.convert_to_tensor(dense))
        return x

    def _support(self, missing):
        return with_missing(self.support) if missing else self.support

    def call(self, given: tf.Tensor) -> tf.Tensor:
        """Draws one sample `[..., units]` given parents `[..., parent units]`."""
        with keep_losses():
            distribution = self.distribution(given)
        return distribution.sample(seed=keras.random.randint((2,), 0, 2**31 - 1))

    def compute_output_shape(self, given_shape: tuple | None) -> tuple:
        return (*(given_shape or ())[:-1], self.units)

    def get_build_config(self) -> dict | None:
        return {"given_units": self.given_units} if self.built else None

    def build_from_config(self, config: dict) -> None:
        given_units = config["given_units"]
        self.build(None if given_units is None else (None, given_units))

    def get_config(self) -> dict:
        """The constructor's arguments, those of a subclass too where they are plain values."""
        return {
            **super().get_config(),
            **plain_arguments(self, StochasticLayer),
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "choices": self.choices,
        }

    def _add_kernel(self, name: str, rows: int, columns: int) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=(rows, columns),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )

    def _add_bias(self, name: str, size: int) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=(size,),
            initializer=self.bias_initializer,
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
        )


def affine(given: tf.Tensor | None, kernel, bias) -> tf.Tensor:
    """`given @ kernel + bias` for any leading dimensions; the bias alone without parents."""
    bias = tf.convert_to_tensor(bias)
    return bias if given is None else tf.tensordot(given, tf.convert_to_tensor(kernel), 1) + bias


def _parents(units: int | None) -> str:
    return "as a prior (without parents)" if units is None else f"with {units} parents"
