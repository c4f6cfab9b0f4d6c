"""Active units, against enumeration."""

import numpy as np
import pytest
import tensorflow as tf
from exact import all_vectors, tiny_machine

from rws_keras import HelmholtzMachine
from rws_keras.errors import UserError
from rws_keras.models.unit_activity import ACTIVE, activity_of_means, unit_activity


def test_activities_are_the_variances_of_the_exact_means():
    """z-scores over 40 seeds, of 5 units: a false alarm in some 3,000 runs."""
    machine = tiny_machine("sbn", "sbn", seed=1)
    x = all_vectors(4)
    first = tf.sigmoid(machine.q_layers[0].distribution(tf.constant(x)).logits).numpy()
    states = all_vectors(3)
    odds = np.prod(np.where(states[:, None] == 1, first, 1 - first), axis=-1)
    upper = tf.sigmoid(machine.q_layers[1].distribution(tf.constant(states)).logits).numpy()
    exact = [means.var(axis=0, ddof=1) for means in (first, odds.T @ upper)]
    draws = [unit_activity(machine, x, num_particles=3, seed=seed) for seed in range(40)]
    for layer, expected in enumerate(exact):
        found = np.stack([draw[layer] for draw in draws])
        z = (found.mean(axis=0) - expected) / (found.std(axis=0, ddof=1) / np.sqrt(40))
        assert np.abs(z).max() < 4.0
    assert max(map(np.max, exact)) > ACTIVE


def test_units_that_ignore_the_data_are_not_active():
    machine = HelmholtzMachine.from_sizes(
        6, [4, 2], q="gaussian", prior="gaussian", p=["sbn", "gaussian"]
    )
    for layer in machine.q_layers:
        layer.kernel.assign(tf.zeros_like(layer.kernel))
    x = all_vectors(6)
    for activity in unit_activity(machine, x, num_particles=200):
        assert np.abs(activity).max() < ACTIVE


@pytest.mark.parametrize("batch_size", [3, 16])
def test_batches_make_no_difference_to_the_shape(batch_size):
    machine = tiny_machine("sbn", "sbn")
    found = unit_activity(machine, all_vectors(4), batch_size=batch_size)
    assert [layer.shape for layer in found] == [(3,), (2,)]


def test_the_noise_of_the_particles_is_known():
    """2,000 units that ignore the data: a standard deviation is known to 2 percent."""
    means = np.random.default_rng(0).normal(size=(20, 30, 2000))
    activity = activity_of_means(means)
    np.testing.assert_allclose(activity.noise.mean(), activity.values.std(), rtol=0.15)
    assert not activity.is_active.any()


def test_one_row_is_refused():
    with pytest.raises(UserError, match="at least two rows"):
        unit_activity(tiny_machine("sbn", "sbn"), all_vectors(4)[:1])
