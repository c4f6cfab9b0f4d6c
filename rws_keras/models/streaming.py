"""Importance sampling with any number of particles in bounded memory.

The particles are drawn in chunks inside one `tf.while_loop`. Only sums are carried from
chunk to chunk, in float64: log Σ ω and log Σ ω² by a running log-sum-exp, the statistics
of the layers, and posterior expectations as running weighted means.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.models.particles import Statistics, likelihood_from_sums

# Rows (particles times data) in flight. The widest activation then has
# ROWS_IN_FLIGHT x units float32 numbers: 8 MB for 784 units, which a CPU's cache holds
# better than more, while the matrix products are long since efficient.
ROWS_IN_FLIGHT = 2500


def stream_particles(
    machine,
    x: tf.Tensor,
    num_particles: tf.Tensor,
    seed: tf.Tensor,
    expectation_of: Callable | None = None,
) -> tuple[Statistics, list[tf.Tensor]]:
    """Statistics, and posterior expectations, of K particles a datum.

    Args:
        machine: The `HelmholtzMachine`.
        x: Binary float32 data `[N, visible]`.
        num_particles: Integer tensor, K.
        seed: int32 tensor `[2]`.
        expectation_of: Function `(latents, seed) -> list of [k, N, ...] tensors` whose
            expectations under `p(h | x)` are wanted, or `None`.

    Returns:
        The `Statistics`, and the list of expectations `[N, ...]` (empty for `None`).
    """
    num_particles = tf.convert_to_tensor(num_particles, tf.int32)
    num_data = tf.shape(x)[0]
    chunk = tf.maximum(1, tf.minimum(num_particles, ROWS_IN_FLIGHT // tf.maximum(num_data, 1)))
    num_latents = len(machine.q_layers)

    def expectations(latents, seed):
        return [] if expectation_of is None else expectation_of(latents, seed)

    def draw(done, log_sum, log_sum_of_squares, log_p, log_q, means):
        count = tf.minimum(chunk, num_particles - done)
        sample_seed, statistic_seed = tf.unstack(tf.random.split(tf.random.fold_in(seed, done)))
        particles = machine.sample_posterior(x, count, sample_seed)
        log_weights = tf.cast(particles.log_weights, tf.float64)
        new_sum = tfp.math.log_add_exp(log_sum, tf.reduce_logsumexp(log_weights, axis=0))
        new_squares = tfp.math.log_add_exp(
            log_sum_of_squares, tf.reduce_logsumexp(2.0 * log_weights, axis=0)
        )
        shrink = tf.cast(tf.exp(log_sum - new_sum), tf.float32)
        weights = tf.cast(tf.exp(log_weights - new_sum), tf.float32)
        means = [
            shrink[:, None] * mean + tf.einsum("kn,kn...->n...", weights, statistic)
            for mean, statistic in zip(
                means, expectations(particles.latents, statistic_seed), strict=True
            )
        ]
        return (
            done + count,
            new_sum,
            new_squares,
            [_add(total, part) for total, part in zip(log_p, particles.log_p, strict=True)],
            [_add(total, part) for total, part in zip(log_q, particles.log_q, strict=True)],
            means,
        )

    zeros = tf.zeros([num_data], tf.float64)
    empty = tf.fill([num_data], tf.constant(-float("inf"), tf.float64))
    shapes = expectations(
        [tf.zeros([1, num_data, layer.units]) for layer in machine.q_layers], tf.constant([0, 0])
    )
    done, log_sum, log_sum_of_squares, log_p, log_q, means = tf.while_loop(
        lambda done, *_: done < num_particles,
        draw,
        (
            0,
            empty,
            empty,
            [zeros] * (num_latents + 1),
            [zeros] * num_latents,
            [tf.zeros_like(statistic[0]) for statistic in shapes],
        ),
        parallel_iterations=1,
    )

    def mean(total):
        return tf.cast(total / tf.cast(done, tf.float64), tf.float32)

    statistics = Statistics(
        likelihood_from_sums(log_sum, log_sum_of_squares, done),
        elbo=mean(tf.add_n(log_p) - tf.add_n(log_q)),
        kl=[mean(q - p) for q, p in zip(log_q, log_p[1:], strict=True)],
        entropy=[mean(-q) for q in log_q],
    )
    return statistics, means


def _add(total, part):
    return total + tf.reduce_sum(tf.cast(part, tf.float64), axis=0)
