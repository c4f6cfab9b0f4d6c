"""Independent units and the Chow-Liu tree, against enumeration."""

import itertools

import numpy as np
import pytest

from rws_keras import datasets
from rws_keras.baselines import ChowLiuTree, IndependentUnits
from rws_keras.errors import UserError

UNITS = 5
STATES = np.array(list(itertools.product((0, 1), repeat=UNITS)), np.float32)
BASELINES = (IndependentUnits, ChowLiuTree)


@pytest.fixture(scope="module")
def x():
    """Rows of units that depend on each other."""
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 2, (200, UNITS))
    rows[:, 3] ^= rows[:, 1] & (generator.random(200) < 0.8)
    rows[:, 4] = np.where(generator.random(200) < 0.9, rows[:, 0], rows[:, 4])
    rows[:, 2] = np.where(generator.random(200) < 0.7, rows[:, 4], rows[:, 2])
    return rows.astype(np.float32)


@pytest.fixture(params=BASELINES)
def baseline(request, x):
    return request.param(x)


def test_probabilities_of_all_states_sum_to_one(baseline):
    np.testing.assert_allclose(np.exp(baseline.log_likelihood(STATES)).sum(), 1.0, rtol=1e-12)


def test_what_is_missing_is_summed_over(baseline, x):
    """Likelihood and conditionals of rows with gaps, from the probabilities of all states."""
    rows = x.copy()
    rows[np.random.default_rng(1).random(rows.shape) < 0.5] = np.nan
    rows[0] = np.nan
    probabilities = np.exp(baseline.log_likelihood(STATES))
    for row, found, on in zip(
        rows, baseline.log_likelihood(rows), baseline.conditional(rows), strict=True
    ):
        known = ~np.isnan(row)
        agree = probabilities * (STATES[:, known] == row[known]).all(axis=1)
        np.testing.assert_allclose(found, np.log(agree.sum()), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(on, agree @ STATES / agree.sum(), rtol=1e-10, atol=1e-12)


def test_the_tree_is_the_best_of_all(x):
    """All 125 trees of five units, each fitted by the frequencies of its pairs."""
    tree = ChowLiuTree(x)
    best = max(_likelihood_of_tree(x, parents) for parents in _all_trees())
    np.testing.assert_allclose(tree.log_likelihood(x).sum(), best, rtol=1e-10)


def _all_trees():
    for parents in itertools.product(range(UNITS), repeat=UNITS - 1):
        found = np.array([-1, *parents])
        reached = {0}
        for _ in range(UNITS):
            reached |= {unit for unit in range(1, UNITS) if found[unit] in reached}
        if len(reached) == UNITS:
            yield found


def _likelihood_of_tree(x, parents):
    total = 0.0
    for unit, parent in enumerate(parents):
        for row_value, value in itertools.product((0, 1), repeat=2):
            if parent < 0:
                count = np.sum(x[:, unit] == value) if row_value == 0 else 0
                share = (np.sum(x[:, unit] == value) + 1) / (len(x) + 2)
            else:
                given = x[:, parent] == row_value
                count = np.sum(given & (x[:, unit] == value))
                share = (count + 0.5) / (given.sum() + 1)
            total += count * np.log(share)
    return total


def test_weights_are_repetitions(x):
    rows, counts = np.unique(x, axis=0, return_counts=True)
    for kind in BASELINES:
        weighted, repeated = kind(rows, sample_weight=counts), kind(x)
        np.testing.assert_allclose(
            weighted.log_likelihood(STATES), repeated.log_likelihood(STATES), rtol=1e-12
        )


@pytest.mark.parametrize("weights", [np.ones(3), -np.ones(200), np.full(200, np.nan)])
def test_wrong_weights_are_refused(x, weights):
    for kind in BASELINES:
        with pytest.raises(UserError, match="`sample_weight`"):
            kind(x, weights)


def test_training_rows_may_have_gaps(x):
    """With a tenth of the cells missing the fitted probabilities are close to those without."""
    rows = np.repeat(x, 50, axis=0)
    full = {kind: kind(rows) for kind in BASELINES}
    rows[np.random.default_rng(2).random(rows.shape) < 0.1] = np.nan
    for kind in BASELINES:
        difference = kind(rows).log_likelihood(x) - full[kind].log_likelihood(x)
        assert np.abs(difference).max() < 0.1


def test_the_tree_is_better_than_independent_units_on_digits():
    data = datasets.load("digits")
    independent, tree = (kind(data.train).log_likelihood(data.test).mean() for kind in BASELINES)
    assert tree > independent + 4.0


@pytest.mark.parametrize("wrong", [np.zeros(5), np.zeros([0, 5]), np.full([2, 5], 0.5)])
def test_what_is_not_binary_is_refused(wrong):
    for kind in BASELINES:
        with pytest.raises(UserError, match="Expected"):
            kind(wrong)


def test_rows_of_another_width_are_refused(baseline):
    with pytest.raises(UserError, match=r"\[N, 5\]"):
        baseline.log_likelihood(np.zeros([2, 4]))
    with pytest.raises(UserError, match=r"\[N, 5\]"):
        baseline.conditional(np.zeros([2, 4]))
