"""Particles: samples of the latents with their importance weights."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


def sum_over_layers(log_probs: list[tf.Tensor]) -> tf.Tensor:
    """The sum of tensors of one shape, one for each layer, always in the order of the layers.

    `tf.add_n` starts with a term whose memory it may reuse at that moment. Which one that is
    depends on which operations have run by then, so that with more than two terms the last bit
    differs now and then; TensorFlow's graph optimizer turns `a + b + c` into the same operation.
    """
    if len(log_probs) < 3:
        return tf.add_n(log_probs)
    return tf.reduce_sum(tf.stack(log_probs), axis=0)


class Particles(NamedTuple):
    """K samples `h ~ q(h | x)` for each of N data.

    Attributes:
        latents: One tensor `[K, N, units]` for each latent layer, bottom first.
        log_p: `log p` of each P layer at the sample, `[K, N]` in nats: first
            `log p(x | h_1)`, last the prior's `log p(h_L)`.
        log_q: `log q` of each Q layer at the sample, `[K, N]` in nats, bottom first.
    """

    latents: list[tf.Tensor]
    log_p: list[tf.Tensor]
    log_q: list[tf.Tensor]

    @property
    def log_weights(self) -> tf.Tensor:
        """`log ω_k = log p(x, h_k) - log q(h_k | x)`, `[K, N]` in nats."""
        return sum_over_layers(self.log_p) - sum_over_layers(self.log_q)

    @property
    def normalized_weights(self) -> tf.Tensor:
        """`ω_k / Σ ω`, `[K, N]`: they sum to one over the particles.

        Where P gives a datum no probability at any particle, all are zero.
        """
        weights = scaled_weights(self.log_weights)[0]
        return tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=0))


def scaled_weights(log_weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The weights `[K, ...]` divided by the largest, and the logarithm of the largest, `[...]`.

    The logarithm is never -inf, because a difference would be NaN: zero weights stay zero.
    """
    log_scale = tf.maximum(tf.reduce_max(log_weights, axis=0), log_weights.dtype.min)
    return tf.exp(log_weights - log_scale), log_scale


def resample(
    latents: list[tf.Tensor],
    weights: tf.Tensor,
    num_resampled: int | tf.Tensor,
    noise: tf.Tensor,
) -> list[tf.Tensor]:
    """Draws R of K particles of each datum by systematic resampling.

    A particle of weight `ω̃` is drawn `R ω̃` times on average, and never more than one time more or
    less: the plain mean over the drawn particles has the expectation of the weighted mean.

    Args:
        latents: `[K, N, units]` for each latent layer.
        weights: Normalised weights `[K, N]`.
        num_resampled: R.
        noise: Uniform numbers `[N]`.

    Returns:
        `[R, N, units]` for each latent layer.

    Reference:
        - [Kitagawa, 1996](https://doi.org/10.1080/10618600.1996.10474692)
    """
    number = tf.cast(num_resampled, tf.float32)
    positions = (tf.range(number)[:, None] + noise) / number
    passed = tf.cumsum(weights, axis=0)[:, None] < positions  # [K, R, N]
    # The weights add up to one but for rounding: the last particle has no end.
    particle = tf.reduce_sum(tf.cast(passed[:-1], tf.int32), axis=0)
    data = tf.broadcast_to(tf.range(tf.shape(noise)[0]), tf.shape(particle))
    indices = tf.stack([particle, data], axis=-1)
    return [tf.gather_nd(latent, indices) for latent in latents]


class LikelihoodEstimate(NamedTuple):
    """Importance-sampling estimate of `log p(x)` for each of N data.

    Attributes:
        log_likelihood: `log (1/K Σ ω_k)` in nats, `[N]`. The estimate of `p(x)` itself is unbiased,
            its logarithm is too low on average.
        standard_error: Standard error of the estimate in nats (delta method), `[N]`; NaN
            for one particle, which has no spread, and where the log-likelihood is -inf because no
            particle has a weight above zero.
        effective_sample_size: `(Σ ω)² / Σ ω²`, between 1 and K, `[N]`; 0 where no particle has
            a weight above zero.
        num_particles: K, how many particles each datum took, int32 `[N]`.
    """

    log_likelihood: tf.Tensor
    standard_error: tf.Tensor
    effective_sample_size: tf.Tensor
    num_particles: tf.Tensor


class Statistics(NamedTuple):
    """What is reported for a batch of N data, each `[N]`, from K particles per datum.

    Attributes:
        log_likelihood: `log (1/K Σ ω_k)` in nats; as in `LikelihoodEstimate`.
        effective_sample_size: `(Σ ω)² / Σ ω²`.
        elbo: Single-sample bound `E_q[log ω]` in nats.
        kl: One tensor for each latent layer, bottom first:
            `E_q[log q(h_l | h_{l-1}) - log p(h_l | h_{l+1})]` in nats.
        entropy: One tensor for each Q layer: `-E_q[log q(h_l | h_{l-1})]` in nats.
    """

    log_likelihood: tf.Tensor
    effective_sample_size: tf.Tensor
    elbo: tf.Tensor
    kl: list[tf.Tensor]
    entropy: list[tf.Tensor]


class Samples(NamedTuple):
    """Samples from P.

    Attributes:
        x: Visible vectors `[N, visible]`.
        latents: Latents `[N, units]` of each layer, bottom first.
        mean: `E[x_i | h_1]`, for binary units `p(x_i = 1 | h_1)`, `[N, visible]`; where the
            visible layer is autoregressive, given also the units before i in `x`.
    """

    x: tf.Tensor
    latents: list[tf.Tensor]
    mean: tf.Tensor


class WeightSums(NamedTuple):
    """`Σ ω` and `Σ ω²` of particles, divided by a scale that keeps them from overflowing.

    All are `[N]`, and finite also where all weights are zero.

    Attributes:
        log_scale: `log s`, about the largest log-weight.
        first: `Σ ω / s`.
        second: `Σ ω² / s²`.
    """

    log_scale: tf.Tensor
    first: tf.Tensor
    second: tf.Tensor

    @classmethod
    def nothing(cls, num_data: int | tf.Tensor) -> WeightSums:
        """The sums before the first particle."""
        zeros = tf.zeros([num_data], tf.float64)
        return cls(zeros + tf.float64.min, zeros, zeros)

    @classmethod
    def of(cls, log_weights: tf.Tensor) -> WeightSums:
        """The sums of weights `[K, N]`."""
        weights, log_scale = scaled_weights(log_weights)
        return cls(
            log_scale,
            tf.reduce_sum(weights, axis=0),
            tf.reduce_sum(tf.square(weights), axis=0),
        )

    def plus(self, other: WeightSums) -> WeightSums:
        """The sums of both sets of particles."""
        log_scale = tf.maximum(self.log_scale, other.log_scale)
        mine, theirs = tf.exp(self.log_scale - log_scale), tf.exp(other.log_scale - log_scale)
        return WeightSums(
            log_scale,
            mine * self.first + theirs * other.first,
            tf.square(mine) * self.second + tf.square(theirs) * other.second,
        )

    def log_likelihood(self, num_particles: int | tf.Tensor) -> tf.Tensor:
        """`log (1/K Σ ω_k)` in nats, float32 `[N]`, of K particles, `[]` or `[N]`."""
        mean = self.first / tf.cast(num_particles, self.first.dtype)
        return tf.cast(self.log_scale + tf.math.log(mean), tf.float32)

    @property
    def effective_sample_size(self) -> tf.Tensor:
        """`(Σ ω)² / Σ ω²`, float32 `[N]`."""
        return tf.cast(tf.math.divide_no_nan(tf.square(self.first), self.second), tf.float32)

    def likelihood(self, num_particles: int | tf.Tensor) -> LikelihoodEstimate:
        """The estimate from K particles, `[]` or `[N]`."""
        taken = tf.broadcast_to(tf.cast(num_particles, tf.int32), tf.shape(self.first))
        num = tf.cast(num_particles, self.first.dtype)
        # Var(mean ω) / (mean ω)², with the variance from the same particles. Rounding can
        # bring the difference of two almost equal numbers below zero. 0 / 0 is the NaN of one
        # particle, and of none above zero.
        variance = tf.maximum(self.second / tf.square(self.first) - 1.0 / num, 0.0)
        return LikelihoodEstimate(
            self.log_likelihood(num),
            tf.cast(tf.sqrt(variance * num / (num - 1.0)), tf.float32),
            self.effective_sample_size,
            taken,
        )


def statistics_of(particles: Particles) -> Statistics:
    """The statistics of one draw of particles."""
    sums = WeightSums.of(particles.log_weights)
    return Statistics(
        sums.log_likelihood(tf.shape(particles.log_weights)[0]),
        sums.effective_sample_size,
        elbo=tf.reduce_mean(particles.log_weights, axis=0),
        kl=[
            tf.reduce_mean(q - p, axis=0)
            for q, p in zip(particles.log_q, particles.log_p[1:], strict=True)
        ],
        entropy=[-tf.reduce_mean(q, axis=0) for q in particles.log_q],
    )
