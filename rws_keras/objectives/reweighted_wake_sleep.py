"""The Reweighted Wake-Sleep update."""

from __future__ import annotations

import math

import tensorflow as tf

from rws_keras.checks import check_positive_integer
from rws_keras.errors import UserError
from rws_keras.models.particles import Particles, resample
from rws_keras.objectives.objective import Draws, Objective, register


@register
class ReweightedWakeSleep(Objective):
    """Reweighted Wake-Sleep (RWS).

    With particles `h_k ~ q(h | x)` and normalised importance weights `ω̃_k`, the parameters
    θ of P and φ of Q follow

    - wake update of P: `Σ_k ω̃_k ∇_θ log p(x, h_k)`,
    - wake update of Q: `Σ_k ω̃_k ∇_φ log q(h_k | x)`,
    - sleep update of Q: `∇_φ log q(h | x)` at a dream `(x, h) ~ p(x, h)`.

    Args:
        num_particles: Positive integer, K.
        wake_p: Whether to apply the wake update of P, or its scale.
        wake_q: Whether to apply the wake update of Q, or its scale.
        sleep_q: Whether to apply the sleep update of Q, or its scale.
        num_dreams: Dreams a step; as many as there are data in the batch by default.
        num_resampled: Positive integer R to follow, instead of all K particles in proportion
            to their weights, R that are drawn from them by their weights: the same on average,
            at less cost where K is large. All K by default.

    Example:
    ```python
    machine.compile("adam", ReweightedWakeSleep(num_particles=5))
    machine.compile("adam", ReweightedWakeSleep(num_particles=50, num_resampled=5))
    machine.compile("adam", ReweightedWakeSleep(num_particles=10, sleep_q=0.5))
    ```

    Reference:
        - [Bornschein & Bengio, 2015](https://arxiv.org/abs/1406.2751)
    """

    def __init__(
        self,
        num_particles: int = 5,
        wake_p: bool | float = True,
        wake_q: bool | float = True,
        sleep_q: bool | float = True,
        num_dreams: int | None = None,
        num_resampled: int | None = None,
    ):
        super().__init__(num_particles)
        for name, scale in [("wake_p", wake_p), ("wake_q", wake_q), ("sleep_q", sleep_q)]:
            if not isinstance(scale, bool | int | float) or not 0 <= scale < math.inf:
                raise UserError(
                    f"`{name}` must be a bool or a finite scale of at least 0, got {scale!r}."
                )
        self.wake_p, self.wake_q, self.sleep_q = wake_p, wake_q, sleep_q
        self.num_dreams, self.num_resampled = (
            None if number is None else check_positive_integer(number, name)
            for number, name in [(num_dreams, "num_dreams"), (num_resampled, "num_resampled")]
        )

    def noise_shapes(self, machine, num_data: int | tf.Tensor) -> list:
        shapes = super().noise_shapes(machine, num_data)
        if self.sleep_q:
            shapes += machine.dream_shapes(self.num_dreams or num_data)
        return [*shapes, [num_data]] if self.num_resampled else shapes

    def draw(self, machine, x: tf.Tensor, noise: tf.Tensor) -> Draws:
        noise = self._split(machine, x, noise)
        resampling = noise.pop() if self.num_resampled else None
        num_latents = len(machine.q_layers)
        latents, log_q = machine.infer(x, noise[:num_latents])
        dream = machine.dream(noise[num_latents:]) if self.sleep_q else None
        return Draws(latents, log_q, dream, resampling)

    def loss(self, machine, x: tf.Tensor, draws: Draws) -> tuple[tf.Tensor, Particles]:
        latents = draws.latents
        particles = Particles(latents, machine.log_p(x, latents), draws.log_q)
        weights, log_p = tf.stop_gradient(particles.normalized_weights), particles.log_p
        if self.num_resampled:
            latents = resample(latents, weights, self.num_resampled, draws.resampling)
            weights, log_p = 1.0 / self.num_resampled, machine.log_p(x, latents)
        loss = tf.zeros([])
        if self.wake_p:  # Σ_k ω̃_k log p(x, h_k)
            loss -= self.wake_p * _weighted_mean(weights, log_p)
        if self.wake_q:  # Σ_k ω̃_k log q(h_k | x)
            loss -= self.wake_q * _weighted_mean(weights, machine.log_q(x, latents))
        if self.sleep_q:  # log q(h | x) at (x, h) ~ p
            loss -= self.sleep_q * tf.reduce_mean(tf.add_n(machine.log_q(*draws.dream)))
        return loss, particles

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "wake_p": self.wake_p,
            "wake_q": self.wake_q,
            "sleep_q": self.sleep_q,
            "num_dreams": self.num_dreams,
            "num_resampled": self.num_resampled,
        }


def _weighted_mean(weights, log_probs):
    """Sum over the layers and, weighted, over the particles; mean over the data."""
    return tf.reduce_mean(tf.reduce_sum(weights * tf.add_n(log_probs), axis=0))


@register
class WakeSleep(ReweightedWakeSleep):
    """The wake-sleep algorithm: one particle, and only the sleep update for Q.

    Args:
        wake_p: Whether to apply the wake update of P, or its scale.
        sleep_q: Whether to apply the sleep update of Q, or its scale.
        num_dreams: Dreams a step; as many as there are data in the batch by default.

    Reference:
        - [Hinton et al., 1995](https://doi.org/10.1126/science.7761831)
    """

    def __init__(
        self,
        wake_p: bool | float = True,
        sleep_q: bool | float = True,
        num_dreams: int | None = None,
    ):
        super().__init__(1, wake_p=wake_p, wake_q=False, sleep_q=sleep_q, num_dreams=num_dreams)

    def get_config(self) -> dict:
        config = super().get_config()
        del config["num_particles"], config["wake_q"], config["num_resampled"]
        return config
