"""Distributions over binary vectors: what a stochastic layer hands out."""

from __future__ import annotations

import abc

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


def uniform_noise(shape: tf.Tensor, seed: int | tf.Tensor | None) -> tf.Tensor:
    """Uniform float32 noise from the open interval (0, 1).

    TensorFlow's uniform numbers are multiples of 2^-23 and include zero, so `u < p`
    switches a unit on once in 2^23 draws however small `p` is. With 100,000 particles that
    happens, and one particle which Q holds for impossible (probability e^-40, say) carries
    a weight large enough to ruin the estimate. Taking the middle of each cell of width
    2^-23 removes it.

    Args:
        shape: integer tensor, the shape of the noise.
        seed: a Python int, an int32 tensor `[2]`, or `None`.

    Returns:
        A float32 tensor of shape `shape`.
    """
    return tf.random.stateless_uniform(shape, stateless_seed(seed)) + 2.0**-24


def bernoulli_log_prob(value: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """`Σ_i log p(x_i)` in nats for independent Bernoulli units with the given logits.

    For binary `x`, `log σ(a)^x (1 - σ(a))^(1-x) = -softplus((1 - 2x) a)`: one pass, exact
    at any logit.

    Args:
        value: binary tensor `[..., D]`.
        logits: tensor `[..., D]` that broadcasts against `value`.

    Returns:
        Tensor of the broadcast shape without its last axis.
    """
    return -tf.reduce_sum(tf.nn.softplus((1.0 - 2.0 * value) * logits), axis=-1)


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
