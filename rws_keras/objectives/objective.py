"""What every objective has in common."""

from __future__ import annotations

import abc
from typing import NamedTuple

import keras
import tensorflow as tf

from rws_keras.checks import check_positive_integer
from rws_keras.layers.distribution import draw_noise, split_noise
from rws_keras.models.particles import Particles


class Draws(NamedTuple):
    """Everything random in one step.

    Attributes:
        latents: Particles from Q, `[K, N, units]` for each latent layer.
        log_q: `log q` of each layer at the particles, `[K, N]`: constants, as the samples.
        dream: `(x, latents)` from P, or `None` where no dream is needed.
        resampling: Uniform numbers `[N]` that choose among the particles, or `None`.
    """

    latents: list[tf.Tensor]
    log_q: list[tf.Tensor]
    dream: tuple[tf.Tensor, list[tf.Tensor]] | None = None
    resampling: tf.Tensor | None = None


class Objective(abc.ABC):
    """A way to train a Helmholtz machine.

    A subclass states in `noise_shapes` what noise a step takes, makes its samples from it in
    `draw`, and states in `loss` a scalar whose gradient, with the draws held fixed, is its
    update. Sampling is outside the gradient tape, so no gradient can flow through samples.

    Args:
        num_particles: Positive integer, the number K of samples from Q a datum.
    """

    def __init__(self, num_particles: int):
        self.num_particles = check_positive_integer(num_particles, "num_particles")

    def noise_shapes(self, machine, num_data: int | tf.Tensor) -> list:
        """Shapes of the uniform noise of one step: the particles'."""
        return machine.particle_shapes(self.num_particles, num_data)

    def noise(self, machine, num_data: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Draws everything random of one step: a flat tensor for `draw` and `gradients`.

        Args:
            machine: The `HelmholtzMachine`.
            num_data: N, the size of the batch.
            seed: int32 tensor `[2]`.
        """
        return draw_noise(self.noise_shapes(machine, num_data), seed)

    def draw(self, machine, x: tf.Tensor, noise: tf.Tensor) -> Draws:
        """Draws the particles; without a dream."""
        latents, log_q = machine.infer(x, self._split(machine, x, noise))
        return Draws(latents, log_q)

    def _split(self, machine, x, noise):
        return split_noise(noise, self.noise_shapes(machine, tf.shape(x)[0]))

    @abc.abstractmethod
    def loss(self, machine, x: tf.Tensor, draws: Draws) -> tuple[tf.Tensor, Particles]:
        """The scalar to differentiate, and the particles with their weights.

        Args:
            machine: The `HelmholtzMachine`.
            x: Binary float32 data `[N, visible]`.
            draws: What `draw` returned.
        """

    def gradients(
        self, machine, x: tf.Tensor, noise: tf.Tensor
    ) -> tuple[list[tf.Tensor], Particles]:
        """Gradients of the loss for all trainable variables (zero where it has none).

        A pure function of its arguments and the weights, which XLA compiles well.

        Args:
            machine: The `HelmholtzMachine`.
            x: Binary float32 data `[N, visible]`.
            noise: What `noise` drew for N data.

        Returns:
            The gradients in the order of `machine.trainable_variables`, to be descended,
            and the particles of the step.
        """
        draws = self.draw(machine, x, noise)
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
