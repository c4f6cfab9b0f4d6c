"""Importance sampling with any number of particles in bounded memory.

The particles are drawn in chunks inside one `tf.while_loop`. Only sums are carried from
chunk to chunk, in float64: log Σ ω and log Σ ω² by a running log-sum-exp, the statistics
of the layers, and posterior expectations as running weighted means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from rws_keras.layers.value_shapes import allow_value_shapes
from rws_keras.models.particles import Statistics, WeightSums, sum_over_layers

# Rows (particles times data) in flight. The widest activation then has
# ROWS_IN_FLIGHT x units float32 numbers: 8 MB for 784 units, which a CPU's cache holds
# better than more, while the matrix products are long since efficient.
ROWS_IN_FLIGHT = 2500


class Sums(NamedTuple):
    """The sums that are kept of the particles, float64 `[N]`.

    Attributes:
        weights: Their `WeightSums`.
        log_p: `Σ log p` of each P layer, bottom first.
        log_q: `Σ log q` of each Q layer, bottom first.
    """

    weights: WeightSums
    log_p: list[tf.Tensor]
    log_q: list[tf.Tensor]

    @classmethod
    def nothing(cls, machine, num_data: int | tf.Tensor) -> Sums:
        """The sums before the first particle."""
        zeros = tf.zeros([num_data], tf.float64)
        return cls(WeightSums.nothing(num_data), [zeros] * len(machine.p), [zeros] * len(machine.q))

    def statistics(self, num_particles: tf.Tensor) -> Statistics:
        """The statistics from `num_particles` particles."""

        def mean(total):
            return tf.cast(total / tf.cast(num_particles, tf.float64), tf.float32)

        return Statistics(
            self.weights.log_likelihood(num_particles),
            self.weights.effective_sample_size,
            elbo=mean(sum_over_layers(self.log_p) - sum_over_layers(self.log_q)),
            kl=[mean(q - p) for q, p in zip(self.log_q, self.log_p[1:], strict=True)],
            entropy=[mean(-q) for q in self.log_q],
        )


def stream_particles(
    machine,
    x: tf.Tensor,
    num_particles: tf.Tensor,
    seed: tf.Tensor,
    expectation_of: Callable | None = None,
    start: tuple[tf.Tensor, Sums] | None = None,
    stop: tf.Tensor | None = None,
) -> tuple[tf.Tensor, Sums, list[tf.Tensor]]:
    """Sums over K particles per datum, and posterior expectations.

    With `start` and `stop` it draws only some of the particles, which are the same as in a single
    call: each call continues from what the last one returned.

    Args:
        machine: The `HelmholtzMachine`.
        x: Float32 data `[N, visible]`.
        num_particles: Integer tensor, K.
        seed: int32 tensor `[2]`.
        expectation_of: Function `(latents, seed) -> list of [k, N, ...] tensors` whose
            expectations under `p(h | x)` are wanted, or `None`.
        start: How many particles have been drawn, and their `Sums`; none by default.
        stop: Draws until this many have been drawn, or a few more; K by default.

    Returns:
        How many particles have been drawn, the `Sums`, and the list of expectations `[N, ...]`
        (empty for `None`).
    """
    num_particles = tf.convert_to_tensor(num_particles, tf.int32)
    num_data = tf.shape(x)[0]
    chunk = tf.maximum(1, tf.minimum(num_particles, ROWS_IN_FLIGHT // tf.maximum(num_data, 1)))

    def expectations(latents, seed):
        return [] if expectation_of is None else expectation_of(latents, seed)

    def draw(done, sums, totals):
        count = tf.minimum(chunk, num_particles - done)
        sample_seed, statistic_seed = tf.unstack(tf.random.split(tf.random.fold_in(seed, done)))
        with allow_value_shapes():  # XLA cannot compile a changing number of particles anyway.
            particles = machine.draw_particles(x, count, sample_seed)
        log_weights = tf.cast(particles.log_weights, tf.float64)
        weight_sums = sums.weights.plus(WeightSums.of(log_weights))
        # Over the new scale, as the sums of the weights are.
        shrink = tf.cast(tf.exp(sums.weights.log_scale - weight_sums.log_scale), tf.float32)
        weights = tf.cast(tf.exp(log_weights - weight_sums.log_scale), tf.float32)
        totals = [
            shrink[:, None] * total + tf.einsum("kn,kn...->n...", weights, statistic)
            for total, statistic in zip(
                totals, expectations(particles.latents, statistic_seed), strict=True
            )
        ]
        log_p, log_q = (
            [_add(total, part) for total, part in zip(totals, parts, strict=True)]
            for totals, parts in [(sums.log_p, particles.log_p), (sums.log_q, particles.log_q)]
        )
        return done + count, Sums(weight_sums, log_p, log_q), totals

    shapes = expectations(
        [tf.zeros([1, num_data, units]) for units in machine.latent_units], tf.constant([0, 0])
    )
    stop = num_particles if stop is None else stop
    done, sums, totals = tf.while_loop(
        lambda done, *_: done < stop,
        draw,
        (
            *(start or (0, Sums.nothing(machine, num_data))),
            [tf.zeros_like(statistic[0]) for statistic in shapes],
        ),
        parallel_iterations=1,
    )
    weight = tf.cast(sums.weights.first, tf.float32)[:, None]
    return done, sums, [total / weight for total in totals]


def _add(total, part):
    return total + tf.reduce_sum(tf.cast(part, tf.float64), axis=0)
