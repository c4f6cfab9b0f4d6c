"""Scores that one can act on: tail probabilities, and the columns that make a row odd."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from exact import FAMILIES, all_vectors, exact_log_likelihood, randomize, tiny_machine

from rws_keras import HelmholtzMachine, objectives
from rws_keras.errors import UserError
from rws_keras.models import Calibration

CHOICES = [1, 3, 1]
STATES = all_vectors(5)
STATES = STATES[STATES[:, 1:4].sum(axis=1) == 1]


def test_tail_probability_counts_the_rows_that_are_as_improbable():
    calibration = Calibration(np.array([-3.0, -1.0, -2.0, -2.0]), num_particles=10)
    found = calibration.tail_probability([-9.0, -3.0, -2.5, -2.0, -1.0, 0.0])
    np.testing.assert_allclose(found, [1 / 5, 2 / 5, 2 / 5, 4 / 5, 1, 1], rtol=1e-6)
    both = calibration.two_sided_probability([-9.0, -2.0, 0.0])
    np.testing.assert_allclose(both, [2 / 5, 1, 2 / 5], rtol=1e-6)
    assert np.isnan(calibration.tail_probability([np.nan])[0])
    assert np.isnan(calibration.two_sided_probability([np.nan])[0])
    np.testing.assert_allclose(calibration.tail_probability([-np.inf]), [1 / 5], rtol=1e-6)


@pytest.mark.parametrize("num_data", [1, 19, 2007, 3000, 3001, 5000, 12_345, 60_001])
def test_what_is_kept_of_many_rows_is_on_the_safe_side(num_data):
    """Tail probabilities of the order statistics kept are never too low, nor 1/1000 too high."""
    random = np.random.default_rng(0)
    usual, other = random.normal(size=num_data), random.normal(size=300) * 2.0
    calibration = Calibration(usual, num_particles=10)
    usual, other = usual.astype(np.float32), other.astype(np.float32)
    exact = (1 + (usual[:, None] <= other).sum(axis=0)) / (num_data + 1)
    excess = calibration.tail_probability(other).numpy() - exact
    assert excess.min() > -1e-6
    assert excess.max() < 1e-3
    mirrored = (1 + (usual[:, None] >= other).sum(axis=0)) / (num_data + 1)
    both = np.minimum(1.0, 2.0 * np.minimum(exact, mirrored))
    excess = calibration.two_sided_probability(other).numpy() - both
    assert excess.min() > -1e-6
    assert excess.max() < 2e-3
    again = Calibration.from_config(calibration.get_config())
    np.testing.assert_array_equal(
        again.tail_probability(other), calibration.tail_probability(other)
    )


def test_any_number_of_rows_can_be_kept():
    for num_data in (*range(1, 40), *range(2990, 3400), 5001, 99_999):
        calibration = Calibration(np.arange(num_data, dtype=np.float32), num_particles=10)
        found = calibration.tail_probability([-1.0, 0.0, num_data - 1.0]).numpy()
        expected = np.array([1, 2, num_data + 1]) / (num_data + 1)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_rows_of_probability_zero():
    calibration = Calibration(np.array([-np.inf, -np.inf, -1.0]), num_particles=10)
    np.testing.assert_allclose(calibration.tail_probability([-np.inf, -5.0]), 3 / 4, rtol=1e-6)
    again = Calibration.from_config(json.loads(json.dumps(calibration.get_config())))
    np.testing.assert_allclose(again.tail_probability([-np.inf]), 3 / 4, rtol=1e-6)


def test_training_drops_the_calibration(tmp_path):
    """It is that of other weights."""
    machine = tiny_machine("sbn", "sbn")
    x = machine.sample(20, seed=1).x
    machine.compile("adam", objectives.ReweightedWakeSleep(2), jit_compile=False)
    for train in (lambda: machine.fit(x, verbose=0), lambda: machine.train_on_batch(x)):
        machine.calibrate(x, num_particles=5)
        train()
        assert machine.calibration is None
    machine.calibrate(x, num_particles=5)
    machine.save_to_preset(tmp_path / "preset")
    assert HelmholtzMachine.from_preset(tmp_path / "preset").calibration.num_data == 20
    fresh = HelmholtzMachine.from_preset(tmp_path / "preset", load_weights=False)
    assert fresh.calibration is None


def test_false_alarms_are_as_frequent_as_stated():
    """Of rows from the machine itself 5 % are below 0.05: |z| below 4, seed 0 (6e-5).

    With 999 validation rows the share that is below is itself random, of variance p (1 - p) / 1000
    beside that of the 4,000 rows.
    """
    machine = tiny_machine("sbn", "sbn")
    calibration = machine.calibrate(machine.sample(999, seed=1).x, num_particles=50)
    fresh = machine.predict(machine.sample(4000, seed=2).x, num_particles=50, verbose=0)
    # The states are few: ties would make alarms rarer than stated. Noise breaks them.
    random = np.random.default_rng(0)
    calibration = Calibration(
        machine.predict(machine.sample(999, seed=1).x, num_particles=50, verbose=0)
        + random.normal(size=999) * 1e-3,
        num_particles=50,
    )
    alarms = calibration.tail_probability(fresh + random.normal(size=4000) * 1e-3).numpy() <= 0.05
    error = np.sqrt(0.05 * 0.95 * (1 / 1000 + 1 / 4000))
    assert abs(alarms.mean() - 0.05) < 4.0 * error


def test_calibration_is_kept_with_the_machine(tmp_path):
    machine = tiny_machine("sbn", "sbn")
    x = machine.sample(30, seed=1).x
    assert machine.calibration is None
    calibration = machine.calibrate(x, num_particles=20)
    assert machine.calibration is calibration
    assert calibration.num_particles == 20
    scores = machine.predict(x, num_particles=20, verbose=0)
    machine.save(tmp_path / "machine.keras")
    machine.save_to_preset(tmp_path / "preset")
    for loaded in (
        keras.saving.load_model(tmp_path / "machine.keras"),
        HelmholtzMachine.from_preset(tmp_path / "preset"),
        HelmholtzMachine.from_preset(tmp_path / "preset", seed=3),
    ):
        np.testing.assert_array_equal(
            loaded.calibration.tail_probability(scores), calibration.tail_probability(scores)
        )


def test_exported_scores_have_the_tail_probability(tmp_path):
    """Where K is that of the calibration, and not elsewhere."""
    machine = tiny_machine("sbn", "sbn")
    x = machine.sample(30, seed=1).x
    machine.calibrate(x, num_particles=20)
    machine.export(tmp_path / "1", num_particles=20, verbose=False)
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    row = tf.concat([x, [[2.0, 0.0, 0.0, 0.0]]], axis=0)
    scores = signatures["serving_default"](x=row)
    expected = machine.calibration.tail_probability(scores["log_likelihood"])
    np.testing.assert_array_equal(scores["tail_probability"], expected)
    assert np.isnan(scores["tail_probability"][-1])
    assert "tail_probability" not in signatures["score_fast"](x=row)


def test_a_calibration_needs_numbers():
    for wrong in ([], [np.nan, 1.0], [[1.0]]):
        with pytest.raises(UserError, match="at least one row, none of them NaN"):
            Calibration(np.array(wrong), num_particles=10)


def exact_conditionals(machine, x):
    """`log p(x_c | x_others)` of whole or incomplete rows, `[N, C]`."""
    log_p = exact_log_likelihood(machine, STATES)
    edges = np.cumsum([0, *CHOICES])
    found = np.full((len(x), len(CHOICES)), np.nan)
    for (row, values), (column, (start, end)) in itertools.product(
        enumerate(x), enumerate(itertools.pairwise(edges))
    ):
        if np.isnan(values[start]):
            continue
        agree = (np.isnan(values) | (values == STATES)).all(axis=1)
        hidden = values.copy()
        hidden[start:end] = np.nan
        others = (np.isnan(hidden) | (hidden == STATES)).all(axis=1)
        sums = [np.logaddexp.reduce(log_p[which]) for which in (agree, others)]
        found[row, column] = sums[0] - sums[1]
    return found


@pytest.mark.parametrize("missing", [None, "marginalize"])
@pytest.mark.parametrize("family", FAMILIES)
def test_conditional_log_probs(family, missing):
    """Against enumeration: z of 16 repetitions with K = 2,000, |z| below 5.5; seed 0.

    Student's t with 15 degrees of freedom, 7 values: false alarm 4e-4 a case.
    """
    made = HelmholtzMachine.from_sizes(
        5, [2], p=family, prior="sbn", choices=CHOICES, missing=missing, seed=0
    )
    randomize(made, seed=1, scale=0.5)
    x = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 1, 1], [np.nan, 1, 0, 0, 1]], np.float32)
    found = np.stack([made.conditional_log_probs(x, 2000, seed=seed) for seed in range(16)])
    expected = exact_conditionals(made, x)
    assert found.shape == (16, 3, 3)
    np.testing.assert_array_equal(np.isnan(found[0]), np.isnan(expected))
    error = found.std(axis=0, ddof=1) / 4.0
    distance = np.abs(found.mean(axis=0) - expected)
    known = ~np.isnan(expected)
    assert (distance < 5.5 * error + 5e-4)[known].all()


def test_the_odd_column_is_found():
    """A machine of pairs of equal units, and a row with one pair that differs."""
    machine = HelmholtzMachine.from_sizes(4, [2], seed=0)
    strong = np.array([[12.0, 12.0, 0.0, 0.0], [0.0, 0.0, 12.0, 12.0]], np.float32)
    machine.p_layers[0].set_weights([strong, np.full(4, -6.0, np.float32)])
    machine.p_layers[1].set_weights([np.zeros(2, np.float32)])
    log_probs = machine.conditional_log_probs([[1, 1, 0, 1], [1, 1, 1, 1]], 400, seed=0)
    assert log_probs.numpy()[0, 2:].max() < -4.0
    assert log_probs.numpy()[0, :2].min() > -0.1
    assert log_probs.numpy()[1].min() > -0.1


def test_conditional_log_probs_are_of_binary_data():
    machine = HelmholtzMachine.from_sizes(3, [2], p="gaussian", q="gaussian", prior="gaussian")
    with pytest.raises(UserError, match="need binary data"):
        machine.conditional_log_probs(np.zeros((1, 3)))
