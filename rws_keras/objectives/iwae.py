"""The importance-weighted bound, differentiated through the samples."""

from __future__ import annotations

import tensorflow as tf

from rws_keras.models.particles import Particles, sum_over_layers
from rws_keras.objectives.objective import (
    Draws,
    Objective,
    mean_over_data,
    register,
    sum_over_particles,
)


@register
class IWAE(Objective):
    """Climbs the bound `E[log (1/K Σ_k ω_k)]` with path gradients.

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
        # Σ_k ω̃_k ∇ log ω_k is the gradient of the bound.
        bound = sum_over_particles(weights, particles.log_weights)
        return -mean_over_data(bound, sample_weight), particles


@register
class DReG(Objective):
    """`IWAE` with the doubly reparameterised gradient for Q.

    P follows `Σ_k ω̃_k ∇_θ log p(x, h_k)`, as in `IWAE`. For Q the score function, whose noise
    grows over its signal with K, is replaced by its reparameterisation: Q follows
    `Σ_k ω̃_k² (∂ log ω_k / ∂h_k) ∇_φ h_k`, the same on average.

    Args:
        num_particles: Positive integer, K.

    Example:
    ```python
    iwae = rws_keras.HelmholtzMachine.from_sizes(64, [8], q="gaussian", prior="gaussian")
    iwae.compile("adam", rws_keras.objectives.DReG(num_particles=5))
    ```

    Reference:
        - [Tucker et al., 2019](https://arxiv.org/abs/1810.04152)
    """

    path_gradients = True

    def loss(
        self, machine, x: tf.Tensor, draws: Draws, sample_weight: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, Particles]:
        particles = Particles(draws.latents, machine.log_p(x, draws.latents), draws.log_q)
        weights = tf.stop_gradient(particles.normalized_weights)
        # By way of the parameters alone, with the samples held fixed.
        fixed = [tf.stop_gradient(latent) for latent in draws.latents]
        log_p = sum_over_layers(machine.log_p(x, fixed))
        log_q = sum_over_layers(machine.log_q(x, fixed))
        # What is left is by way of the samples.
        path = particles.log_weights - (log_p - log_q)
        bound = sum_over_particles(weights, log_p) + sum_over_particles(tf.square(weights), path)
        return -mean_over_data(bound, sample_weight), particles
