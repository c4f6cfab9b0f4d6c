"""Likelihoods to a given accuracy: more particles where they are needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from rws_keras.checks import check_number
from rws_keras.models.particles import LikelihoodEstimate, WeightSums
from rws_keras.models.streaming import Sums

# With fewer particles the standard error itself is unreliable.
FIRST_ROUND = 100


def estimate_to_accuracy(
    sums_of: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Sums],
    x: tf.Tensor,
    most_particles: int,
    max_standard_error: float,
    seed: tf.Tensor,
) -> LikelihoodEstimate:
    """Draws particles in rounds until each datum's standard error is small enough.

    Each round doubles the number of particles of the data that are not done.

    Args:
        sums_of: Function of data, K and a seed to the `Sums` of K fresh particles.
        x: Float32 data `[N, visible]`.
        most_particles: Maximum K per datum.
        max_standard_error: The required standard error in nats.
        seed: int32 tensor `[2]`.

    Raises:
        UserError: If the standard error is not a positive finite number.
    """
    check_number(max_standard_error, "max_standard_error", positive=True)
    num_data = len(x)
    sums = [part.numpy() for part in WeightSums.nothing(num_data)]
    taken = np.zeros(num_data, np.int32)
    active, done = np.arange(num_data), 0
    while done < most_particles and len(active):
        count = min(max(done, FIRST_ROUND), most_particles - done)
        fresh = sums_of(tf.gather(x, active), tf.constant(count), tf.random.fold_in(seed, done))
        so_far = WeightSums(*(tf.constant(part[active]) for part in sums)).plus(fresh.weights)
        for part, new in zip(sums, so_far, strict=True):
            part[active] = new
        done += count
        taken[active] = done
        # NaN, of a single particle, is not small enough.
        active = active[~(so_far.likelihood(done).standard_error.numpy() <= max_standard_error)]
    return WeightSums(*map(tf.constant, sums)).likelihood(tf.constant(taken))
