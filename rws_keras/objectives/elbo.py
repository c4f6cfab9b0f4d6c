"""The evidence lower bound, differentiated through the samples."""

from __future__ import annotations

import math

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
class ELBO(Objective):
    """Maximises the evidence lower bound `E_q[log p(x, h) - log q(h | x)]` with path gradients.

    With Gaussian latents the machine is a variational autoencoder.

    Args:
        num_particles: Positive integer, the number K of samples that are averaged over.

    Example:
    ```python
    vae = rws_keras.HelmholtzMachine.from_sizes(64, [8], p="dsbn", q="gaussian", prior="gaussian")
    vae.compile("adam", rws_keras.objectives.ELBO(num_particles=1))
    ```

    Reference:
        - [Kingma & Welling, 2014](https://arxiv.org/abs/1312.6114)
    """

    path_gradients = True

    def __init__(self, num_particles: int = 1, **kwargs):
        super().__init__(num_particles, **kwargs)

    def loss(
        self, machine, x: tf.Tensor, draws: Draws, sample_weight: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, Particles]:
        particles = Particles(draws.latents, machine.log_p(x, draws.latents), draws.log_q)
        # A sample that P cannot produce is ignored.
        weights = tf.cast(particles.log_weights > -math.inf, tf.float32) / self.num_particles
        bound = sum_over_particles(weights, particles.log_weights)
        return -mean_over_data(bound, sample_weight), particles
