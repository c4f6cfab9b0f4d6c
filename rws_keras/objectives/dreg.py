"""The importance-weighted bound with the doubly reparameterised gradient."""

from __future__ import annotations

import tensorflow as tf

from rws_keras.models.particles import Particles, sum_over_layers
from rws_keras.objectives.iwae import IWAE
from rws_keras.objectives.objective import register, sum_over_particles


@register
class DReG(IWAE):
    """`IWAE` with the doubly reparameterised gradient for Q.

    The gradient of P is `Σ_k ω̃_k ∇_θ log p(x, h_k)`, as in `IWAE`. For Q the score-function term,
    whose signal-to-noise ratio falls with K, is reparameterised again: the gradient of Q is
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

    def bound(self, machine, x: tf.Tensor, particles: Particles, weights: tf.Tensor) -> tf.Tensor:
        # Through the parameters alone, with the samples held fixed.
        fixed = [tf.stop_gradient(latent) for latent in particles.latents]
        log_p = sum_over_layers(machine.log_p(x, fixed))
        log_q = sum_over_layers(machine.log_q(x, fixed))
        # The rest is through the samples.
        path = particles.log_weights - (log_p - log_q)
        return sum_over_particles(weights, log_p) + sum_over_particles(tf.square(weights), path)
