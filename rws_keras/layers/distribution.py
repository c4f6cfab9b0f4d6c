"""The distributions of stochastic layers, which can be sampled from uniform noise."""

from __future__ import annotations

import abc
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.errors import UserError
from rws_keras.layers.noise import stream_seed, uniform_noise


class NoiseDrivenDistribution(tfp.distributions.AutoCompositeTensorDistribution):
    """A distribution over vectors whose samples are a function of uniform noise.

    The units may be of any kind, and may depend on each other in their order:
    `p(x) = Π_i p(x_i | x_1 … x_{i-1})`. The event shape is `[D]`. All that TFP's distributions do
    applies: batches can be sliced, and a distribution may be passed to a `tf.function` and
    returned from it. Seeds are those of `rws_keras.layers.noise.stateless_seed`, also TFP's
    `SeedStream` and integers of any length.

    Args:
        parameters: The arguments of the subclass's constructor, as in TFP.
        reparameterization_type: TFP's `FULLY_REPARAMETERIZED` if gradients flow through the
            samples, else `NOT_REPARAMETERIZED`.
        validate_args: As in TFP.
        name: Name of the distribution.
        dtype: The dtype of samples and log-probabilities.
    """

    # Whether a unit's distribution depends on the units before it.
    units_are_independent = False

    def __init__(
        self,
        parameters: dict,
        reparameterization_type: Any,
        validate_args: bool,
        name: str,
        dtype: tf.DType = tf.float32,
    ):
        super().__init__(
            dtype=dtype,
            reparameterization_type=reparameterization_type,
            validate_args=validate_args,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @property
    def marginalizes(self) -> bool:
        """Whether `observed_log_prob` is exact, whatever the values of unobserved units are.

        It is if the units are independent. If they depend on those before them, unobserved units
        affect the others and have to be drawn by `complete`.
        """
        return self.units_are_independent

    @abc.abstractmethod
    def sample_from_noise(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The sample from given uniform noise, and its log-probability.

        The noise may broadcast against the batch shape: rows that share it are driven by
        common random numbers.

        Args:
            noise: Uniform numbers in (0, 1), `[..., D]`.

        Returns:
            The sample `[..., D]` and its log-probability (or log-density) in nats `[...]`.
        """

    @abc.abstractmethod
    def unit_log_probs(self, value: tf.Tensor) -> tf.Tensor:
        """`log p(x_i | x_1 … x_{i-1})` of every unit at `value`, in nats, `[..., D]`."""

    def observed_log_prob(self, value: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """`Σ_i log p(x_i | x_1 … x_{i-1})` over the units that were observed, in nats, `[...]`.

        Args:
            value: `[..., D]`, finite at the other units too.
            observed: Bools that broadcast against `value`.
        """
        return tf.reduce_sum(tf.where(observed, self.unit_log_probs(value), 0.0), axis=-1)

    @abc.abstractmethod
    def conditional_mean(self, value: tf.Tensor) -> tf.Tensor:
        """`E[x_i | x_1 … x_{i-1}]` of every unit at `value`, `[..., D]`.

        Where the units are independent it does not depend on `value`, and its shape is that
        of the batch alone.
        """

    @abc.abstractmethod
    def complete(self, value: tf.Tensor, known: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        """Draws the units that are not known, each given those before it.

        Args:
            value: `[..., D]`; only the known entries are used.
            known: Bools that broadcast against `value`.
            noise: Uniform numbers in (0, 1), `[..., D]`.

        Returns:
            `[..., D]` with the known entries as they were.
        """

    def _vector(self, value: Any, name: str = "value") -> tf.Tensor:
        """Numbers of any dtype as a tensor `[..., D]` of this distribution's dtype.

        Raises:
            UserError: If the last axis has another size, 1 included: TFP would broadcast it.
        """
        value = tf.convert_to_tensor(value)
        if not (value.dtype.is_floating or value.dtype.is_integer or value.dtype.is_bool):
            raise UserError(f"`{name}` must hold real numbers, got {value.dtype.name}.")
        value = tf.cast(value, self.dtype)
        units = self.event_shape
        if not units.is_compatible_with(value.shape[-1:]):
            raise UserError(
                f"The last axis of `{name}` must be the units: expected shape [..., {units[0]}], "
                f"got {value.shape}."
            )
        if not (units.is_fully_defined() and value.shape[-1:].is_fully_defined()):
            check = tf.debugging.assert_equal(
                tf.shape(value)[-1:],
                self.event_shape_tensor(),
                f"The last axis of `{name}` must be the units.",
            )
            with tf.control_dependencies([check]):
                value = tf.identity(value)
        return value

    def _noise(self, sample_shape, seed):
        if isinstance(seed, int) and not -(2**63) <= seed < 2**63:
            # TFP calls a `SeedStream` before it hands the seed on.
            seed = stream_seed(seed)
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
        return self.sample_from_noise(self._noise([n], seed))[0]

    def _sample_and_log_prob(self, sample_shape, seed):
        return self.sample_from_noise(self._noise(sample_shape, seed))
