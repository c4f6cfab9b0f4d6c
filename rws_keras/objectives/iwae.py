"""The importance-weighted bound, differentiated through the samples."""

from __future__ import annotations

import tensorflow as tf

from rws_keras.models.particles import Particles
from rws_keras.objectives.objective import (
    Draws,
    Objective,
    mean_over_data,
    register,
    sum_over_particles,
)


@register
class IWAE(Objective):
    """Maximises the bound `E[log (1/K Σ_k ω_k)]` with path gradients.

    With Gaussian latents the machine is an importance-weighted autoencoder.

    Args:
        num_particles: Positive integer, K.

    Example:
    ```python
    iwae = rws_keras.HelmholtzMachine.from_sizes(64, [8], q="gaussian", prior="gaussian")
    iwae.compile("adam", rws_keras.objectives.IWAE(num_particles=5))
    ```

    Reference:
        - [Burda et al., 2016](https://arxiv.org/abs/1509.00519)
    """

    path_gradients = True

    def loss(
        self, machine, x: tf.Tensor, draws: Draws, sample_weight: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, Particles]:
        particles = Particles(draws.latents, machine.log_p(x, draws.latents), draws.log_q)
        weights = tf.stop_gradient(particles.normalized_weights)
        return -mean_over_data(self.bound(machine, x, particles, weights), sample_weight), particles

    def bound(self, machine, x: tf.Tensor, particles: Particles, weights: tf.Tensor) -> tf.Tensor:
        """A function `[N]` whose gradient is `Σ_k ω̃_k ∇ log ω_k`, that of the bound.

        Args:
            machine: The `HelmholtzMachine`.
            x: Float32 data `[N, visible]`.
            particles: The particles, with gradients through samples and parameters.
            weights: `ω̃_k` `[K, N]`, constants.
        """
        return sum_over_particles(weights, particles.log_weights)
