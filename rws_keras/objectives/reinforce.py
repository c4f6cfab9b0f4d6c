"""REINFORCE: the score function estimator, plain."""

from __future__ import annotations

import tensorflow as tf

from rws_keras.models.particles import Particles, WeightSums, sum_over_layers
from rws_keras.objectives.objective import (
    Draws,
    Objective,
    mean_over_data,
    register,
    sum_over_particles,
)


@register
class REINFORCE(Objective):
    """Maximises the bound `E[log (1/K Σ_k ω_k)]` with the score function, without a baseline.

    With one particle this is the evidence lower bound (ELBO). With normalised importance weights
    `ω̃_k` and `L = log (1/K Σ_k ω_k)`, the updates of the parameters θ of P and φ of Q are

    - `Σ_k ω̃_k ∇_θ log p(x, h_k)`,
    - `Σ_k (L - ω̃_k) ∇_φ log q(h_k | x)`.

    The gradient is unbiased, but its variance is large: a reference for the other estimators.

    Args:
        num_particles: Positive integer, K.

    Example:
    ```python
    machine.compile("adam", rws_keras.objectives.REINFORCE(num_particles=1))
    ```

    References:
        - [Williams, 1992](https://doi.org/10.1007/BF00992696)
        - [Mnih & Rezende, 2016](https://arxiv.org/abs/1602.06725), for K > 1
    """

    def __init__(self, num_particles: int = 1, **kwargs):
        super().__init__(num_particles, **kwargs)

    def loss(
        self, machine, x: tf.Tensor, draws: Draws, sample_weight: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, Particles]:
        latents = draws.latents
        log_q = machine.log_q(x, latents)
        particles = Particles(latents, machine.log_p(x, latents), log_q)
        weights = tf.stop_gradient(particles.normalized_weights)
        signals = self.signals(tf.stop_gradient(particles.log_weights))
        # Where all weights are zero there is nothing to learn from.
        signals = tf.where(tf.reduce_any(weights > 0.0, axis=0), signals, 0.0)
        bound = sum_over_particles(weights, particles.log_weights)  # its gradient is that of L
        score = tf.reduce_sum(signals * sum_over_layers(log_q), axis=0)
        return -mean_over_data(bound + score, sample_weight), particles

    def signals(self, log_weights: tf.Tensor) -> tf.Tensor:
        """What multiplies `∇_φ log q(h_k | x)`, `[K, N]` or what broadcasts to it.

        Args:
            log_weights: `log ω_k`, `[K, N]`.
        """
        return WeightSums.of(log_weights).log_likelihood(tf.shape(log_weights)[0])
