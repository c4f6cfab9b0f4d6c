"""Training reaches a likelihood that is known exactly."""

import keras
import numpy as np
import pytest

from rws_keras import HelmholtzMachine, datasets
from rws_keras.objectives import ReweightedWakeSleep

pytestmark = pytest.mark.slow


def test_training_recovers_the_entropy_of_bars():
    data = datasets.load("bars")
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(16, [9], p="dsbn", q="dsbn", prior="arsbn", seed=0)
    steps = 60 * len(data.train) // 100
    rate = keras.optimizers.schedules.CosineDecay(5e-3, steps)
    machine.compile(keras.optimizers.Adam(rate), ReweightedWakeSleep(num_particles=10))
    machine.fit(data.train, batch_size=100, epochs=60, verbose=0)
    # The exact distribution, each of the 30 patterns weighted by its probability.
    patterns = np.unique(data.train, axis=0)
    assert len(patterns) == 30
    probability = np.where(np.isin(patterns.sum(axis=1), [0, 16]), 1 / 16, 1 / 32)
    estimate = machine.log_likelihood(patterns, num_particles=20_000, seed=0)
    cross_entropy = -probability @ estimate.log_likelihood.numpy()
    error = np.sqrt(probability**2 @ estimate.standard_error.numpy() ** 2)
    assert error < 0.002
    # No model can be below the entropy, this one is at most 0.05 nat above it.
    assert data.entropy - 5 * error < cross_entropy < data.entropy + 0.05
