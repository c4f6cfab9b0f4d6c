"""The likelihood of data to a given accuracy: more particles where they are needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from rws_keras import HelmholtzMachine


class AccurateLikelihood(NamedTuple):
    """What `evaluate_to_accuracy` returns.

    Attributes:
        log_likelihood: Mean over the rows, nats.
        log_likelihood_se: Its standard error over the rows.
        median_particles: Median number of particles per row.
        most_particles: Largest number of particles of a row.
        num_data: The number of rows.
        num_short: How many of them did not reach the accuracy.
    """

    log_likelihood: float
    log_likelihood_se: float
    median_particles: float
    most_particles: int
    num_data: int
    num_short: int


def evaluate_to_accuracy(
    machine: HelmholtzMachine,
    x: np.ndarray,
    accuracy: float,
    num_particles: int,
    batch_size: int,
    seed: int = 0,
    counts: np.ndarray | None = None,
    report: Callable[[float], None] = lambda done: None,
) -> AccurateLikelihood:
    """Estimates a mean log-likelihood, with a given standard error for each row.

    The particles of a row are drawn until its standard error is small enough, which makes the
    log-likelihood too low on average; see `HelmholtzMachine.log_likelihood`.

    Args:
        machine: The machine.
        x: Binary data `[N, visible]`.
        accuracy: The standard error of each row in nats.
        num_particles: Maximum number of particles per row.
        batch_size: Rows that are computed together.
        seed: Integer, seeds the particles.
        counts: How often each row counts, `[N]`; once by default.
        report: Is called with the number of batches that are done.

    Raises:
        UserError: If the accuracy is not positive.

    Example:
    ```python
    from rws_keras.training.accuracy import evaluate_to_accuracy

    evaluate_to_accuracy(machine, x, accuracy=0.1, num_particles=1000, batch_size=100)
    ```
    """
    parts = []
    for batch, start in enumerate(range(0, len(x), batch_size)):
        estimate = machine.log_likelihood(
            x[start : start + batch_size],
            num_particles,
            seed=tf.constant([seed, batch]),
            max_standard_error=accuracy,
        )
        parts.append(tuple(value.numpy() for value in estimate))
        report(batch + 1)
    log_likelihood, error, _, taken = (
        np.concatenate(part) if counts is None else np.repeat(np.concatenate(part), counts)
        for part in zip(*parts, strict=True)
    )
    num_data = len(log_likelihood)
    spread = log_likelihood.std(ddof=1, dtype=np.float64) if num_data > 1 else 0.0
    return AccurateLikelihood(
        log_likelihood=float(log_likelihood.mean(dtype=np.float64)),
        log_likelihood_se=float(spread / math.sqrt(num_data)),
        median_particles=float(np.median(taken)),
        most_particles=int(taken.max()),
        num_data=num_data,
        # NaN, of a row of probability zero, did not reach it either.
        num_short=int((~(error <= accuracy)).sum()),
    )
