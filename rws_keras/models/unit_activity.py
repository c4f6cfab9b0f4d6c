"""Which latent units carry information about the data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from rws_keras.checks import check_positive_integer
from rws_keras.errors import UserError
from rws_keras.layers.noise import Seed, stateless_seed, uniform_noise

# Burda et al.'s threshold.
ACTIVE = 0.01
# A unit whose activity is that many standard errors above zero does not ignore the data. Of those
# that do, one in 10^5 exceeds them with 20 rows of data, one in 4,000 with 5, one in 400 with 2.
STANDARD_ERRORS = 5.0


def unit_activity(
    machine: Any, x: Any, num_particles: int = 20, seed: Seed = 0, batch_size: int = 100
) -> list[np.ndarray]:
    """How much the mean of each latent unit under Q varies with the data.

    The activity of a unit is the variance over the data of `E_q[h | x]`; above `ACTIVE` = 0.01 the
    unit is called active. It is estimated as the covariance of two means over separate particles,
    so that the noise of the particles adds no bias.

    Args:
        machine: A `HelmholtzMachine`.
        x: Data `[N, visible]`, at least two rows.
        num_particles: Particles for each of the two means.
        seed: An integer, an int32 tensor `[2]`, or `None` for a fresh seed.
        batch_size: Data in a batch.

    Returns:
        An array `[units]` for each latent layer, bottom first.

    Raises:
        UserError: If `x` is not data of the machine, or has fewer than two rows.

    Example:
    ```python
    from rws_keras.models.unit_activity import ACTIVE, unit_activity

    [int((layer > ACTIVE).sum()) for layer in unit_activity(machine, x)]    # active units
    ```

    Reference:
        - [Burda et al., 2016](https://arxiv.org/abs/1509.00519)
    """
    num_particles = check_positive_integer(num_particles, "num_particles")
    batch_size = check_positive_integer(batch_size, "batch_size")
    x = machine.check_data(x)
    if x.shape[0] < 2:
        raise UserError(f"A variance over the data needs at least two rows, got {x.shape[0]}.")
    seed = stateless_seed(seed)
    means: list[list[np.ndarray]] = [[] for _ in machine.latent_units]
    for start in range(0, x.shape[0], batch_size):
        rows = x[start : start + batch_size]
        noise_shapes = machine.q.noise_shapes(2 * num_particles, rows.shape[0])
        noise = uniform_noise(noise_shapes, seed + tf.constant([0, start]))
        for layer, latents in zip(
            means, machine.q.sample(noise, given=machine.q_input(rows))[0], strict=True
        ):
            layer.append(_two_means(latents))
    return [_covariance(np.concatenate(layer, axis=1)) for layer in means]


class Activity(NamedTuple):
    """Estimated activities.

    Attributes:
        values: Activity of each unit `[units]`, as `unit_activity`.
        noise: Standard error `[units]` of that of a unit which ignores the data: what remains of
            the noise of the particles.
    """

    values: np.ndarray
    noise: np.ndarray

    @property
    def is_active(self) -> np.ndarray:
        """Whether a unit's activity is above `ACTIVE`, and not just noise of the particles."""
        return self.values > np.maximum(ACTIVE, STANDARD_ERRORS * self.noise)


def activity_of_means(means: np.ndarray) -> Activity:
    """The activity of a layer's units from their means at particles that have been drawn already.

    Args:
        means: `E_q[h | below]` `[2 M, N, units]` at 2 M particles of the layer below, of at least
            two data. The first and the last M make the two means of `unit_activity`.

    Raises:
        UserError: If there are fewer than two data, or an odd number of particles.
    """
    num_particles, num_data = means.shape[:2]
    if num_data < 2:
        raise UserError(f"A variance over the data needs at least two rows, got {num_data}.")
    if num_particles % 2:
        raise UserError(f"Two means need an even number of particles, got {num_particles}.")
    within = np.var(means, axis=0, ddof=1, dtype=np.float64).mean(axis=0)
    # The covariance of two independent means, each of this variance over the M.
    noise = within / (num_particles // 2) / np.sqrt(num_data - 1)
    return Activity(_covariance(_two_means(means)), noise)


def _two_means(latents):
    """Means `[2, N, units]` over the first and the last half of the particles."""
    shape = (2, latents.shape[0] // 2, *latents.shape[1:])
    return np.asarray(np.mean(np.reshape(latents, shape), axis=1, dtype=np.float64))


def _covariance(both):
    centred = both - both.mean(axis=1, keepdims=True)
    return centred.prod(axis=0).sum(axis=0) / (both.shape[1] - 1)
