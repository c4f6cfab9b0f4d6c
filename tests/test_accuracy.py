"""Scores to a wanted accuracy, and what the stopping costs, against enumeration."""

import numpy as np
import pytest
from exact import exact_log_likelihood, randomize, tiny_machine

from rws_keras import HelmholtzMachine
from rws_keras.errors import UserError

X = np.array([[1, 0, 1, 1]], np.float32)


def test_each_row_takes_the_particles_it_needs(binary):
    machine = randomize(HelmholtzMachine.from_sizes(12, [8, 4], seed=0), 0, scale=0.7)
    x = binary(40, 12)
    estimate = machine.log_likelihood(x, 100_000, seed=0, max_standard_error=0.05)
    taken = estimate.num_particles.numpy()
    assert len(set(taken)) > 1
    done = taken < 100_000
    assert done.any()
    assert (estimate.standard_error.numpy()[done] <= 0.05).all()
    # An independent estimate agrees: 40 z-scores, |z| > 5 in any has probability 2e-5.
    other = machine.log_likelihood(x, 50_000, seed=1)
    error = np.hypot(estimate.standard_error, other.standard_error)
    z = (estimate.log_likelihood - other.log_likelihood) / error
    assert np.abs(z).max() < 5


def test_each_round_draws_fresh_particles(binary):
    machine = randomize(HelmholtzMachine.from_sizes(12, [8, 4], seed=0), 0, scale=0.7)
    # One round and two; the same particles again would leave the mean of the weights as it was.
    one, two = (
        machine.log_likelihood(binary(5, 12), k, seed=0, max_standard_error=1e-6).log_likelihood
        for k in (100, 200)
    )
    assert np.abs(one - two).min() > 1e-4


def test_the_most_particles_are_a_limit(binary):
    machine = randomize(HelmholtzMachine.from_sizes(12, [8, 4], seed=0), 0, scale=0.7)
    estimate = machine.log_likelihood(binary(5, 12), 350, seed=0, max_standard_error=1e-6)
    np.testing.assert_array_equal(estimate.num_particles, np.full(5, 350))
    one = machine.log_likelihood(binary(5, 12), 1, seed=0, max_standard_error=0.1)
    np.testing.assert_array_equal(one.num_particles, np.ones(5))
    assert np.isnan(one.standard_error).all()


@pytest.mark.slow
def test_stopping_makes_the_estimate_too_low():
    """What the docstring says, measured: unbiased without stopping, too low with it."""
    # One latent unit: x is likely if it is on, and Q draws that once in fifty times. A row that
    # has not seen it within the first round has equal weights, and stops.
    machine = HelmholtzMachine.from_sizes(4, [1])
    p, prior, q = *machine.p_layers, *machine.q_layers
    p.kernel.assign([[3.0, -3.0, 3.0, 3.0]])
    p.bias.assign([-1.5, 1.5, -1.5, -1.5])
    prior.bias.assign([0.0])
    q.kernel.assign(np.zeros([4, 1]))
    q.bias.assign([np.log(0.02 / 0.98)])
    exact = exact_log_likelihood(machine, X)[0]

    def ratios(**arguments):
        """The estimate of p(x) over p(x), 20,000 times with seed 3, and the particles taken."""
        estimate = machine.log_likelihood(np.repeat(X, 20_000, axis=0), seed=3, **arguments)
        log_likelihood = np.asarray(estimate.log_likelihood, np.float64)
        return np.exp(log_likelihood - exact), estimate.num_particles.numpy()

    def z(values, expected):
        return (values.mean() - expected) / (values.std(ddof=1) / np.sqrt(len(values)))

    # |z| > 4.5 has a false-alarm rate of 7e-6 a comparison.
    unbiased, _ = ratios(num_particles=1600)
    assert abs(z(unbiased, 1.0)) < 4.5
    stopped, taken = ratios(num_particles=1600, max_standard_error=0.2)
    assert z(stopped, 1.0) < -10
    # Those that stop at once are the ones that saw nothing: 0.98^100 of all.
    early, expected = (taken == 100).mean(), 0.98**100
    assert abs(early - expected) < 4.5 * np.sqrt(expected * (1 - expected) / 20_000)
    assert 0.8 < stopped.mean() < 0.95


@pytest.mark.parametrize("wrong", [0, -0.1, float("nan"), float("inf"), True, "0.1"])
def test_bad_standard_errors(wrong):
    with pytest.raises(UserError, match="`max_standard_error` must be a positive finite number"):
        tiny_machine("sbn", "sbn").log_likelihood(X, 10, max_standard_error=wrong)
