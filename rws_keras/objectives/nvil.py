"""NVIL: the score function estimator with learnt, input-dependent baselines."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import keras
import tensorflow as tf

from rws_keras.checks import check_number, check_positive_integer
from rws_keras.errors import UserError
from rws_keras.models.particles import Particles, sum_over_layers
from rws_keras.objectives.objective import (
    Draws,
    Objective,
    mean_over_data,
    register,
    sum_over_particles,
)


def _check_decay(value: Any, name: str) -> float:
    value = check_number(value, name)
    if not value < 1.0:
        raise UserError(f"`{name}` must be below 1, got {value!r}.")
    return float(value)


@register
class NVIL(Objective):
    """Neural variational inference and learning.

    Maximises the evidence lower bound `E_q[log p(x, h) - log q(h | x)]` with the score function.
    Layer l of Q learns from the terms that its units affect,
    `s_l = log p(h_{l-1} | h_l) + … + log p(h_L) - log q(h_l | h_{l-1}) - … - log q(h_L | h_{L-1})`,
    minus a network's prediction of them from `h_{l-1}` and a running mean, divided by their running
    standard deviation if it is above 1:

    `∇_φ log q(h_l | h_{l-1}) (s_l - C_l(h_{l-1}) - c_l) / max(1, σ_l)`.

    The networks `C_l` have one hidden layer and are trained with the machine, by `optimizer`, to
    predict the signals. Running mean and variance begin at 0 and 1; replicas of a distribution
    strategy use the mean over the replicas.

    Args:
        num_particles: Positive integer, the number K of samples that are averaged over.
        hidden_units: Positive integer, the size of the networks' hidden layer.
        decay: Number from 0 to below 1, of the running means.

    Example:
    ```python
    machine.compile("adam", rws_keras.objectives.NVIL(num_particles=1))
    ```

    Reference:
        - [Mnih & Gregor, 2014](https://arxiv.org/abs/1402.0030)
    """

    settings: ClassVar = {**Objective.settings, "decay": _check_decay}

    def __init__(
        self, num_particles: int = 1, hidden_units: int = 100, decay: float = 0.8, **kwargs
    ):
        super().__init__(num_particles, **kwargs)
        self.hidden_units = check_positive_integer(hidden_units, "hidden_units")
        self.decay = decay

    def build(self, state_shapes: tuple) -> None:
        self.baselines = []
        for level, shape in enumerate(state_shapes[:-1], start=1):
            network = keras.Sequential(
                [keras.layers.Dense(self.hidden_units, "tanh"), keras.layers.Dense(1)],
                name=f"baseline_{level}",
            )
            network.build(shape)
            self.baselines.append(network)
        running = {"shape": (len(self.baselines),), "trainable": False, "aggregation": "mean"}
        self.mean = self.add_weight(name="mean", initializer="zeros", **running)
        self.variance = self.add_weight(name="variance", initializer="ones", **running)

    def loss(
        self, machine, x: tf.Tensor, draws: Draws, sample_weight: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, Particles]:
        latents = draws.latents
        particles = Particles(latents, machine.log_p(x, latents), machine.log_q(x, latents))
        parents = [machine.q_input(x), *latents[:-1]]
        # A sample that P cannot produce is ignored.
        weights = tf.cast(particles.log_weights > -math.inf, tf.float32) / self.num_particles
        bound = sum_over_particles(weights, sum_over_layers(particles.log_p))
        error = tf.zeros([])
        mean, variance = tf.unstack(self.mean.value), tf.unstack(self.variance.value)
        for level, signal in enumerate(_signals(particles)):
            signal = tf.math.multiply_no_nan(tf.stop_gradient(signal), tf.sign(weights))
            surprise = signal - mean[level] - self._guess(level, parents[level])
            scale = tf.maximum(1.0, tf.sqrt(variance[level]))
            score = tf.stop_gradient(surprise / scale) * particles.log_q[level]
            bound += sum_over_particles(weights, score)
            error += sum_over_particles(weights, tf.square(surprise))
        return mean_over_data(error - bound, sample_weight), particles

    def _guess(self, level, parent):
        rows = self.baselines[level](tf.reshape(parent, [-1, parent.shape[-1]]))
        return tf.reshape(rows, tf.shape(parent)[:-1])

    def update(
        self, machine, x: tf.Tensor, particles: Particles, sample_weight: tf.Tensor | None = None
    ) -> None:
        means, variances = [], []
        for signal in _signals(particles):
            signal = tf.where(signal > -math.inf, signal, 0.0)
            mean = mean_over_data(tf.reduce_mean(signal, axis=0), sample_weight)
            square = tf.reduce_mean(tf.square(signal - mean), axis=0)
            means.append(mean)
            variances.append(mean_over_data(square, sample_weight))
        for weight, new in ((self.mean, means), (self.variance, variances)):
            weight.assign(self.decay * weight + (1.0 - self.decay) * tf.stack(new))


def _signals(particles: Particles) -> list[tf.Tensor]:
    """The terms of the bound that each latent layer affects, `[K, N]`, bottom first."""
    signals: list[tf.Tensor] = []
    above = particles.log_p[-1]
    for log_p, log_q in zip(particles.log_p[-2::-1], particles.log_q[::-1], strict=True):
        above = above + log_p - log_q
        signals.insert(0, above)
    return signals
