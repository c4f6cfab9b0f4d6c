"""What every objective has in common."""

from __future__ import annotations

import abc
from typing import NamedTuple

import keras
import tensorflow as tf

from rws_keras.checks import check_positive_integer
from rws_keras.models.particles import Particles


class Draws(NamedTuple):
    """Everything random in one step.

    Attributes:
        latents: Particles from Q, `[K, N, units]` for each latent layer.
        log_q: `log q` of each layer at the particles, `[K, N]`: constants, as the samples.
        dream: `(x, latents)` from P, or `None` where no dream is needed.
    """

    latents: list[tf.Tensor]
    log_q: list[tf.Tensor]
    dream: tuple[tf.Tensor, list[tf.Tensor]] | None


class Objective(abc.ABC):
    """A way to train a Helmholtz machine.

    A subclass draws what it needs in `draw` and states in `loss` a scalar whose gradient,
    with the draws held fixed, is its update. Sampling is outside the gradient tape, so no
    gradient can flow through samples.

    Args:
        num_particles: Positive integer, the number K of samples from Q a datum.
    """

    def __init__(self, num_particles: int):
        self.num_particles = check_positive_integer(num_particles, "num_particles")

    def draw(self, machine, x: tf.Tensor, seed: tf.Tensor) -> Draws:
        """Draws the particles; without a dream."""
        latents, log_q = machine.infer(x, self.num_particles, seed)
        return Draws(latents, log_q, None)

    @abc.abstractmethod
    def loss(self, machine, x: tf.Tensor, draws: Draws) -> tuple[tf.Tensor, Particles]:
        """The scalar to differentiate, and the particles with their weights.

        Args:
            machine: The `HelmholtzMachine`.
            x: Binary float32 data `[N, visible]`.
            draws: What `draw` returned.
        """

    def gradients(
        self, machine, x: tf.Tensor, seed: tf.Tensor
    ) -> tuple[list[tf.Tensor], Particles]:
        """Gradients of the loss for all trainable variables (zero where it has none).

        Args:
            machine: The `HelmholtzMachine`.
            x: Binary float32 data `[N, visible]`.
            seed: int32 tensor `[2]`.

        Returns:
            The gradients in the order of `machine.trainable_variables`, to be descended,
            and the particles of the step.
        """
        draws = self.draw(machine, x, seed)
        variables = [variable.value for variable in machine.trainable_variables]
        with tf.GradientTape() as tape:
            loss, particles = self.loss(machine, x, draws)
        gradients = tape.gradient(
            loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return gradients, particles

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {"num_particles": self.num_particles}

    @classmethod
    def from_config(cls, config: dict) -> Objective:
        """Makes the objective from `get_config()`."""
        return cls(**config)


def register(cls: type[Objective]) -> type[Objective]:
    """Makes an objective part of the machines saved with it."""
    return keras.saving.register_keras_serializable(package="rws_keras")(cls)
