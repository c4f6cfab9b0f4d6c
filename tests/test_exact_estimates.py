"""The exact moments of the benchmarks, against sums over all K-tuples."""

import itertools

import numpy as np
import pytest
from exact import exact_log_likelihood, exact_posterior, tiny_machine

from benchmarks import exact_estimates, gradient_noise


@pytest.mark.parametrize("num_particles", [1, 2, 3, 4])
def test_moments_are_those_of_all_tuples(num_particles):
    random = np.random.default_rng(0)
    q = random.dirichlet(np.ones(5))
    v = np.exp(1.5 * random.normal(size=5))
    v /= q @ v
    g = random.normal(size=(5, 3))
    odds, logs, gradients = [], [], []
    for state in itertools.product(range(5), repeat=num_particles):
        state = list(state)
        odds.append(q[state].prod())
        logs.append(np.log(v[state].mean()))
        gradients.append(v[state] @ g[state] / v[state].sum())
    odds, logs, gradients = map(np.array, (odds, logs, gradients))
    bias, variance = exact_estimates.log_likelihood_moments(v, q, num_particles)
    assert bias == pytest.approx(odds @ logs, abs=1e-11)
    assert variance == pytest.approx(odds @ logs**2 - (odds @ logs) ** 2, abs=1e-11)
    mean, spread = exact_estimates.gradient_moments(v, q, g, num_particles)
    np.testing.assert_allclose(mean, odds @ gradients, atol=1e-11)
    np.testing.assert_allclose(spread, odds @ gradients**2 - (odds @ gradients) ** 2, atol=1e-11)


def test_for_many_particles_they_fall_as_theory_says():
    """The bias is -Var(v) / 2K and the variance Var(v) / K, to the order of 1 / K²."""
    random = np.random.default_rng(1)
    q = random.dirichlet(np.ones(6))
    v = np.exp(random.normal(size=6))
    v /= q @ v
    spread = q @ v**2 - 1.0
    bias, variance = exact_estimates.log_likelihood_moments(v, q, 1000)
    assert bias == pytest.approx(-spread / 2000, rel=0.02)
    assert variance == pytest.approx(spread / 1000, rel=0.02)


def test_the_limits_are_those_of_many_particles():
    """At K = 1,000 the exact errors are within some percent of their limits over K."""
    random = np.random.default_rng(2)
    q, v = random.dirichlet(np.ones(6)), np.exp(random.normal(size=6))
    found = {"q": q, "v": v / (q @ v)}
    found |= {f"{stack}_gradients": random.normal(size=(6, 3)) for stack in "pq"}
    (row,) = (r for r in exact_estimates.moments(found) if r["num_particles"] == 1000)
    for name, limit in exact_estimates.limits(found).items():
        assert row[name] == pytest.approx(limit / 1000, rel=0.05), name


def test_configurations_are_those_of_the_machine():
    machine = tiny_machine("sbn", "sbn")
    x = np.array([1, 0, 1, 1], np.float32)
    found = exact_estimates.configurations(machine, x)
    assert found["log_likelihood"] == pytest.approx(exact_log_likelihood(machine, x[None])[0])
    posterior = exact_posterior(machine, x[None])[:, 0]
    np.testing.assert_allclose(np.sort(found["q"] * found["v"]), np.sort(posterior), rtol=1e-5)
    assert found["q"] @ found["v"] == pytest.approx(1.0)
    parameters = sum(np.prod(w.shape) for layer in machine.p_layers for w in layer.weights)
    assert found["p_gradients"].shape == (32, parameters)


def test_signal_to_noise():
    """Draws of a known mean (norm 5) and variance (2 x 4); the error is 40 draws' own."""
    random = np.random.default_rng(0)
    found = [
        gradient_noise.snr_squared(np.array([3.0, 4.0]) + 2.0 * random.normal(size=(50, 2)))
        for _ in range(40)
    ]
    # The variance is in the denominator, estimated: on average the ratio is 98 / 96 of the true.
    z = (np.mean(found) - 25.0 / 8.0 * 98 / 96) / (np.std(found, ddof=1) / 40**0.5)
    assert abs(z) < 4.0
    # The mean of ten draws of noise alone has a squared norm of a tenth of the variance: that is
    # no signal. The error is 0.0015.
    assert abs(gradient_noise.snr_squared(random.normal(size=(10, 1000)))) < 0.01


def test_a_signal_that_is_not_seen_is_an_upper_limit():
    assert gradient_noise.shown_snr({"snr_squared": 0.25, "snr_squared_se": 0.1}) == "0.500"
    assert gradient_noise.shown_snr({"snr_squared": 0.01, "snr_squared_se": 0.04}) == "< 0.300"
    assert gradient_noise.shown_snr({"snr_squared": -0.01, "snr_squared_se": 0.02}) == "< 0.200"
