"""Monitoring a machine during training: a few draws, which all charts share."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from rws_keras.layers.noise import Seed, stateless_seed, uniform_noise
from rws_keras.models.particles import Particles
from rws_keras.models.unit_activity import Activity, activity_of_means

# Maximum number of monitored rows.
ROWS = 1000
# Particles from Q of each, for the activity of units. Those whose weights are computed, and of how
# many rows for their spread: an autoregressive P takes long to weigh one.
NUM_PARTICLES = 20
NUM_WEIGHED = 8
SPREAD_ROWS = 20
# Samples that are compared with a table of data, and units whose correlations are shown.
TABLE_SAMPLES = 1000
CORRELATED_UNITS = 128
# Samples from a prior whose mean has no closed form.
PRIOR_SAMPLES = 256


class Look(NamedTuple):
    """What Q infers from the monitored data.

    Attributes:
        activity: Activity of the units of each latent layer, bottom first.
        means: Mean `[units]` of each latent layer over particles and data.
        weighed: Particles of the first data, with their weights.
    """

    activity: list[Activity]
    means: list[np.ndarray]
    weighed: Particles


def look(machine: Any, x: tf.Tensor, num_weighed: int, seed: Seed) -> Look:
    """Draws particles from Q once.

    Of a unit its mean given the units that it depends on is used, not its sample: for the lowest
    layer, if its units are independent, the means over particles are exact.

    Args:
        machine: A `HelmholtzMachine`.
        x: Data `[N, visible]`, at least two.
        num_weighed: For how many of the data to weight particles, at most.
        seed: An integer, an int32 tensor `[2]`, or `None`.
    """
    noise = uniform_noise(machine.particle_noise(NUM_PARTICLES, len(x)), seed)
    given = machine.q_input(x)
    latents, log_q = machine.q.sample(noise["particles"], given=given)
    layers = zip(machine.q_layers, [given, *latents], latents, strict=False)
    means = [_conditional_means(layer, below, sample) for layer, below, sample in layers]
    few, log_q = (
        [each[:NUM_WEIGHED, :num_weighed] for each in layers] for layers in (latents, log_q)
    )
    x, filled = x[:num_weighed], None
    if machine.draws_gaps:
        filled = machine.fill(x, few, noise["gaps"][:NUM_WEIGHED, :num_weighed])
    weighed = Particles(few, machine.log_p(x, few, filled), log_q)
    activity = [activity_of_means(layer) for layer in means]
    return Look(activity, [layer.mean(axis=(0, 1), dtype=np.float64) for layer in means], weighed)


def _conditional_means(layer, below, sample):
    """Means `[K, N, units]` of a layer's units given those that each depends on."""
    means = layer.distribution(below).conditional_mean(sample)
    return np.broadcast_to(means, sample.shape)


def log_weight_spread(log_weights: tf.Tensor) -> float:
    """Standard deviation of the log-weights of a datum over its particles, mean over the data.

    Particles of probability zero are left out, and data that have fewer than two others.

    Args:
        log_weights: `[K, N]` in nats.

    Returns:
        A number in nats: 0 where Q is P's posterior, NaN if no datum is left.
    """
    columns = np.asarray(log_weights, np.float64).T
    of_data = [column[np.isfinite(column)] for column in columns]
    spreads = [column.std(ddof=1) for column in of_data if len(column) > 1]
    return float(np.mean(spreads)) if spreads else math.nan


def reconstructions(machine: Any, particles: Particles, seed: Seed) -> np.ndarray:
    """Visible means of one particle per datum, chosen by its weight.

    Args:
        machine: A `HelmholtzMachine`.
        particles: K particles of each of N data.
        seed: An integer, an int32 tensor `[2]`, or `None`.

    Returns:
        Means `[N, visible]`.
    """
    seed = stateless_seed(seed)
    log_weights = tf.transpose(particles.log_weights)
    # A datum of probability zero gets any of its particles.
    log_weights = tf.where(tf.math.is_finite(log_weights), log_weights, log_weights.dtype.min)
    indices = tf.random.stateless_categorical(log_weights, 1, seed)[:, 0]
    latents = tf.gather(tf.transpose(particles.latents[0], [1, 0, 2]), indices, batch_dims=1)
    visible = machine.p_layers[0].distribution(latents)
    # Drawn again: an autoregressive layer must not see the datum itself.
    drawn = visible.sample(seed=seed + tf.constant([0, 1]))
    return np.broadcast_to(visible.conditional_mean(drawn), drawn.shape)


def prior_mean(machine: Any, seed: Seed) -> np.ndarray:
    """Means `[units]` of the top latents under P's prior.

    They are exact where the units are independent, else the means of `PRIOR_SAMPLES` samples.

    Args:
        machine: A `HelmholtzMachine`.
        seed: An integer, an int32 tensor `[2]`, or `None`.
    """
    prior = machine.p_layers[-1].distribution()
    if prior.units_are_independent:
        return prior.mean().numpy()
    return tf.reduce_mean(prior.sample(PRIOR_SAMPLES, seed=stateless_seed(seed)), axis=0).numpy()


class Table(NamedTuple):
    """Statistics by which two tables are compared.

    Attributes:
        means: Means `[D]` of the columns.
        columns: The C columns whose correlations are compared.
        correlations: Their correlations `[C, C]`; 0 with one that does not vary.
    """

    means: np.ndarray
    columns: np.ndarray
    correlations: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, columns: np.ndarray | None = None) -> Table:
        """The means and correlations of rows `[N, D]`.

        Args:
            rows: The table. Missing values (NaN) are left out, of a pair of columns the rows in
                which one of them is missing.
            columns: Columns whose correlations to compute; by default the `CORRELATED_UNITS`
                that vary most.
        """
        rows = np.ma.masked_invalid(np.asarray(rows, np.float32))
        means = rows.mean(axis=0).filled(0.0)
        if columns is None:
            spread = rows.var(axis=0).filled(0.0)
            columns = np.sort(np.argsort(-spread, kind="stable")[:CORRELATED_UNITS])
        selected = rows[:, columns]
        known = (~np.ma.getmaskarray(selected)).astype(np.float32)
        centred = np.where(known > 0.0, selected.data - means[columns], 0.0)
        squares = np.square(centred).T @ known
        norms = np.sqrt(squares * squares.T)
        products = centred.T @ centred
        correlations = np.divide(products, norms, out=np.zeros_like(products), where=norms > 1e-6)
        return cls(means, columns, correlations)

    def errors(self, other: Table) -> tuple[float, float]:
        """Root mean squares of the differences of means, and of correlations of pairs."""
        pairs = np.triu_indices(len(self.columns), k=1)
        correlations = (self.correlations - other.correlations)[pairs]
        return _rms(self.means - other.means), _rms(correlations)


def sample_table(machine: Any, seed: Seed, columns: np.ndarray | None = None) -> Table:
    """The same statistics of `TABLE_SAMPLES` samples from P.

    Args:
        machine: A `HelmholtzMachine`.
        seed: An integer, an int32 tensor `[2]`, or `None`.
        columns: Columns whose correlations to compute; see `Table.of`.
    """
    noise = uniform_noise(machine.p.noise_shapes(TABLE_SAMPLES), seed)
    return Table.of(machine.p.sample(noise)[0][0].numpy(), columns)


def _rms(values):
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
