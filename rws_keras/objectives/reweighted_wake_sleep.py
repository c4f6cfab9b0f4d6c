"""The Reweighted Wake-Sleep update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from rws_keras.checks import check_number, check_positive_integer
from rws_keras.errors import UserError
from rws_keras.models.particles import Particles, resample, sum_over_layers
from rws_keras.objectives.objective import (
    Draws,
    Objective,
    mean_over_data,
    register,
    sum_over_particles,
)


def _check_scale(scale: Any, name: str) -> bool | float:
    return bool(scale) if isinstance(scale, bool | np.bool_) else check_number(scale, name)


def _check_optional_number(number: object, name: str) -> int | None:
    return None if number is None else check_positive_integer(number, name)


@register
class ReweightedWakeSleep(Objective):
    """Reweighted Wake-Sleep (RWS).

    With particles `h_k ~ q(h | x)` and normalised importance weights `ω̃_k`, the updates of the
    parameters θ of P and φ of Q are

    - wake update of P: `Σ_k ω̃_k ∇_θ log p(x, h_k)`,
    - wake update of Q: `Σ_k ω̃_k ∇_φ log q(h_k | x)`,
    - sleep update of Q: `∇_φ log q(h | x)` at a dream `(x, h) ~ p(x, h)`.

    Where values of x are missing, the weights are those of the observed values, dreams get the same
    missing values as the data, and missing values that P draws (see
    `rws_keras.HelmholtzMachine.draws_gaps`) are part of the update of P.

    Args:
        num_particles: Positive integer, K.
        wake_p: Whether to apply the wake update of P, or its scale: a number that may change
            during training, see `rws_keras.callbacks.ObjectiveSchedule`. Regularizers and weight
            decay act on P all the same; to keep P as it is, set `trainable = False` on its layers.
        wake_q: Whether to apply the wake update of Q, or its scale.
        sleep_q: Whether to apply the sleep update of Q, or its scale.
        num_dreams: Dreams per step; as many as there are rows in the batch by default.
        num_resampled: Positive integer R, to train on R particles drawn by their weights instead of
            on all K weighted particles: the same gradient on average, at less cost if K is large.
            By default all K are used.

    Example:
    ```python
    machine.compile("adam", ReweightedWakeSleep(num_particles=5))
    machine.compile("adam", ReweightedWakeSleep(num_particles=50, num_resampled=5))
    machine.compile("adam", ReweightedWakeSleep(num_particles=10, sleep_q=0.5))
    ```

    Reference:
        - [Bornschein & Bengio, 2015](https://arxiv.org/abs/1406.2751)
    """

    settings: ClassVar = {
        **Objective.settings,
        "wake_p": _check_scale,
        "wake_q": _check_scale,
        "sleep_q": _check_scale,
        "num_dreams": _check_optional_number,
        "num_resampled": _check_optional_number,
    }
    scales: ClassVar = ("wake_p", "wake_q", "sleep_q")
    follows_gaps = True

    def __init__(
        self,
        num_particles: int = 5,
        wake_p: bool | float = True,
        wake_q: bool | float = True,
        sleep_q: bool | float = True,
        num_dreams: int | None = None,
        num_resampled: int | None = None,
        **kwargs,
    ):
        super().__init__(num_particles, **kwargs)
        self.wake_p, self.wake_q, self.sleep_q = wake_p, wake_q, sleep_q
        self.num_dreams, self.num_resampled = num_dreams, num_resampled
        self.check_settings()

    def check_settings(self) -> None:
        if not (self.wake_p or self.wake_q or self.sleep_q):
            raise UserError("All updates are off: one of wake_p, wake_q, sleep_q must be on.")
        if self.num_dreams and not self.sleep_q:
            raise UserError("`num_dreams` has no effect without the sleep update of Q.")
        if self.num_resampled and not (self.wake_p or self.wake_q):
            raise UserError("`num_resampled` has no effect without a wake update.")

    def noise_shapes(self, machine, num_data: int | tf.Tensor) -> dict:
        shapes = super().noise_shapes(machine, num_data)
        if self.sleep_q:
            shapes["dream"] = machine.p.noise_shapes(self.num_dreams or num_data)
        if self.num_resampled:
            shapes["resampling"] = (num_data,)
        return shapes

    def draw(self, machine, x: tf.Tensor, noise: dict) -> Draws:
        draws = super().draw(machine, x, noise)
        if self.sleep_q:
            (dreamt, *latents), _ = machine.p.sample(noise["dream"])
            draws = draws._replace(dream=(machine.copy_gaps(dreamt, source=x), latents))
        return draws._replace(resampling=noise.get("resampling"))

    def loss(
        self, machine, x: tf.Tensor, draws: Draws, sample_weight: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, Particles]:
        latents, filled = draws.latents, draws.filled
        particles = Particles(latents, machine.log_p(x, latents, filled), draws.log_q)
        weights, log_p = tf.stop_gradient(particles.normalized_weights), particles.log_p
        if self.num_resampled:
            states = latents if filled is None else [*latents, filled]
            states = resample(states, weights, self.num_resampled, draws.resampling)
            latents, filled = states[: len(latents)], None if filled is None else states[-1]
            log_p = machine.log_p(x if filled is None else filled, latents)
            # A datum whose weights are all zero is ignored.
            possible = tf.reduce_any(weights > 0.0, axis=0)
            weights = tf.cast(possible, tf.float32) / self.num_resampled
        elif filled is not None:
            log_p = machine.log_p(filled, latents)
        loss = tf.zeros([])

        def follow(log_probs):
            """Sum over the layers and, by their weights, over the particles; mean over the data.

            A particle of weight zero, and probability zero, is ignored.
            """
            followed = sum_over_particles(weights, sum_over_layers(log_probs))
            return mean_over_data(followed, sample_weight)

        if self.wake_p:  # Σ_k ω̃_k log p(x, h_k)
            loss -= _scaled(self.scale("wake_p"), follow(log_p))
        if self.wake_q:  # Σ_k ω̃_k log q(h_k | x)
            loss -= _scaled(self.scale("wake_q"), follow(machine.log_q(x, latents)))
        if self.sleep_q and draws.dream:  # log q(h | x) at (x, h) ~ p
            log_q = sum_over_layers(machine.log_q(*draws.dream))
            loss -= _scaled(self.scale("sleep_q"), tf.reduce_mean(log_q))
        return loss, particles


def _scaled(scale, value):
    return value if scale is True else scale * value


def _only(allowed: object) -> Callable[[object, str], object]:
    """The check of a setting that is fixed in wake-sleep."""

    def check(value, name):
        if value != allowed:
            raise UserError(
                f"WakeSleep needs `{name}` = {allowed}, got {value!r}; use ReweightedWakeSleep "
                "instead."
            )
        return allowed

    return check


@register
class WakeSleep(ReweightedWakeSleep):
    """The wake-sleep algorithm: one particle, and only the sleep update for Q.

    Args:
        wake_p: Whether to apply the wake update of P, or its scale.
        sleep_q: Whether to apply the sleep update of Q, or its scale.
        num_dreams: Dreams per step; as many as there are rows in the batch by default.

    Reference:
        - [Hinton et al., 1995](https://doi.org/10.1126/science.7761831)
    """

    settings: ClassVar = {
        **ReweightedWakeSleep.settings,
        "num_particles": _only(1),
        "wake_q": _only(False),
        "num_resampled": _only(None),
    }

    def __init__(
        self,
        wake_p: bool | float = True,
        sleep_q: bool | float = True,
        num_dreams: int | None = None,
        **kwargs,
    ):
        super().__init__(
            1, wake_p=wake_p, wake_q=False, sleep_q=sleep_q, num_dreams=num_dreams, **kwargs
        )

    def get_config(self) -> dict:
        config = super().get_config()
        del config["num_particles"], config["wake_q"], config["num_resampled"]
        return config
