"""The likelihood estimator against exact enumeration, for every family everywhere."""

import numpy as np
import pytest
import tensorflow as tf
from exact import EVERY_FAMILY, all_vectors, exact_log_likelihood, tiny_machine
from scipy import stats

from rws_keras import HelmholtzMachine

X = np.array([[1, 0, 1, 1]], np.float32)

# Each family in P, in Q and as the prior, and all of them mixed.
MACHINES = [(family, family, family) for family in EVERY_FAMILY] + [
    ("sbn", "nade", "arsbn"),
    ("arsbn", "dsbn", "nade"),
    ("nade", "sbn", "dsbn"),
    ("dsbn", "arsbn", "sbn"),
]


@pytest.fixture(params=MACHINES, ids="-".join, scope="module")
def machine(request):
    p, q, prior = request.param
    return tiny_machine(p, q, prior, seed=2)


def test_exact_probabilities_sum_to_one(machine):
    total = np.exp(exact_log_likelihood(machine, all_vectors(4))).sum()
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


def test_samples_from_p_have_the_exact_frequencies(machine):
    # Chi-square of 16 states with seed 5: false-alarm rate 1e-4 a test.
    expected = 50_000 * np.exp(exact_log_likelihood(machine, all_vectors(4)))
    samples = machine.sample(50_000, seed=5).x.numpy()
    observed = np.bincount((samples @ [8, 4, 2, 1]).astype(int), minlength=16)
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert stats.chi2.sf(statistic, df=15) > 1e-4


@pytest.mark.parametrize("num_particles", [1, 5, 50])
def test_estimate_is_unbiased(machine, num_particles):
    # 40,000 estimates of p(x) with seed 1: |z| < 4 has a false-alarm rate of 6e-5 a test,
    # 0.2 % for all 24.
    exact = np.exp(exact_log_likelihood(machine, X))[0]
    estimates = machine.log_likelihood(np.repeat(X, 40_000, axis=0), num_particles, seed=1)
    estimates = np.exp(estimates.log_likelihood.numpy().astype(np.float64))
    z = (estimates.mean() - exact) / (estimates.std(ddof=1) / np.sqrt(len(estimates)))
    assert abs(z) < 4


def test_expected_log_estimate_increases_to_the_exact_value(machine):
    exact = exact_log_likelihood(machine, X)[0]
    means, errors = [], []
    for num_particles in (1, 5, 50, 2000):
        repetitions = max(20_000 // num_particles, 50)
        estimate = machine.log_likelihood(
            np.repeat(X, repetitions, axis=0), num_particles, seed=3
        ).log_likelihood.numpy()
        means.append(estimate.mean())
        errors.append(estimate.std(ddof=1) / np.sqrt(repetitions))
    # Each step up is significant: z above 2 (it would be missed at random, not passed).
    for step in range(2):
        rise = means[step + 1] - means[step]
        assert rise / np.hypot(errors[step], errors[step + 1]) > 2
    assert means[0] < means[1] < means[2] < exact + 4 * errors[2]
    # With K = 2000 the bias is -Var/2 of the estimate, far below its error.
    assert abs(means[3] - exact) < 4 * errors[3] + errors[3] ** 2 * 50


def test_exact_posterior_as_q_leaves_no_variance():
    # One latent layer of one unit: Q can be the exact posterior, by Bayes' rule.
    machine = HelmholtzMachine.from_sizes(4, [1])
    random = np.random.default_rng(4)
    for variable in machine.trainable_variables:
        variable.assign(random.normal(0, 1, variable.shape))
    p, prior, q = machine.p_layers[0], machine.p_layers[1], machine.q_layers[0]
    off, on = (p.distribution([[h]]).logits[0] for h in (0.0, 1.0))
    q.kernel.assign((on - off)[:, None])
    softplus = tf.reduce_sum(tf.nn.softplus(off) - tf.nn.softplus(on))
    q.bias.assign(prior.bias + softplus)
    estimate = machine.log_likelihood(all_vectors(4), 3, seed=0)
    exact = exact_log_likelihood(machine, all_vectors(4))
    np.testing.assert_allclose(estimate.log_likelihood, exact, atol=1e-5)
    np.testing.assert_allclose(estimate.effective_sample_size, 3.0, rtol=1e-4)
    np.testing.assert_allclose(estimate.standard_error, 0.0, atol=1e-3)
