"""Every objective with every pair of families in P and Q, against exact enumeration.

The referee knows the objectives by what they claim, not by their code. With K particles from Q
the wake updates weigh state s of the latents by `c_s = E[Σ_k ω̃_k 1(h_k = s)]`, an expectation over
all K-tuples of states that is computed here term by term; the sleep update is an expectation over
all joint states of P. What `gradients` gives on average must be that, at the K it is run with.
"""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from exact import FAMILIES, all_latents, all_vectors, exact_log_joint, randomize

from rws_keras import HelmholtzMachine
from rws_keras.objectives import (
    ELBO,
    IWAE,
    NVIL,
    OBJECTIVES,
    REINFORCE,
    VIMCO,
    DReG,
    ReweightedWakeSleep,
    WakeSleep,
)

pytestmark = pytest.mark.slow

X = np.array([[1, 0, 1], [0, 0, 1]], np.float32)

# Each objective, and the K of the tuples that it weighs.
CASES = {
    "reweighted_wake_sleep": (ReweightedWakeSleep(2), 2),
    "reweighted_wake_sleep, scaled": (ReweightedWakeSleep(3, wake_q=0.5, sleep_q=2.0), 3),
    "reweighted_wake_sleep, resampled": (ReweightedWakeSleep(3, num_resampled=2), 3),
    "wake_sleep": (WakeSleep(), 1),
}
REPETITIONS, COPIES = 40, 1000


# Those of a bound, see `test_bounds.py` and `test_gaussian_bounds.py`.
OF_BOUNDS = {REINFORCE, VIMCO, NVIL, ELBO, IWAE, DReG}


def test_no_objective_is_left_out():
    here = {type(objective) for objective, _ in CASES.values()}
    assert here | OF_BOUNDS == set(OBJECTIVES.values())


def float64_log_probs(log_probs, num_data):
    return sum(np.asarray(term, np.float64) + np.zeros([1, num_data]) for term in log_probs)


def expected_weights(machine, num_particles):
    """`c_s` for all latent states and data, `[S, N]`."""
    states, x = all_latents(machine), tf.constant(X)
    log_joint = float64_log_probs(machine.log_p(x, states), len(X))
    log_q = float64_log_probs(machine.log_q(x, states), len(X))
    ratio, q = np.exp(log_joint - log_q), np.exp(log_q)
    weights = np.zeros_like(q)
    for tuple_of_states in itertools.product(range(len(q)), repeat=num_particles):
        chosen = list(tuple_of_states)
        share = q[chosen].prod(axis=0) / ratio[chosen].sum(axis=0)
        for state in chosen:
            weights[state] += share * ratio[state]
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, atol=1e-5)
    return weights.astype(np.float32)


def exact_gradient(machine, objective, num_particles):
    weights = expected_weights(machine, num_particles)
    states, x, every_x = all_latents(machine), tf.constant(X), all_vectors(machine.visible_units)
    dreams = np.exp(exact_log_joint(machine, every_x)).astype(np.float32)
    variables = [variable.value for variable in machine.trainable_variables]
    with tf.GradientTape() as tape:
        # Not `add_n`: the upper layers' terms are the same for all data, `[S, 1]`.
        log_p, log_q = sum(machine.log_p(x, states)), sum(machine.log_q(x, states))
        log_q_of_dreams = sum(machine.log_q(every_x, states))
        loss = -objective.wake_p * tf.reduce_sum(weights * log_p) / len(X)
        loss -= objective.wake_q * tf.reduce_sum(weights * log_q) / len(X)
        loss -= objective.sleep_q * tf.reduce_sum(dreams * log_q_of_dreams)
    return flat(tape.gradient(loss, variables, unconnected_gradients="zero"))


def flat(gradients):
    return np.concatenate([np.asarray(g, np.float64).ravel() for g in gradients])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("p", "q"), itertools.product(FAMILIES, FAMILIES))
def test_the_expected_gradient_is_the_exact_one(p, q, case):
    # 40 repetitions of 2,000 data: |t| > 6.5 with 39 degrees has probability 1e-7, so less
    # than 1e-3 for the about 5,000 components of all 64 tests.
    objective, num_particles = CASES[case]
    machine = randomize(HelmholtzMachine.from_sizes(3, [2, 2], p=p, q=q, seed=0), seed=3)
    fresh = type(objective).from_config(objective.get_config())
    x = tf.constant(np.repeat(X, COPIES, axis=0))
    gradients = tf.function(lambda noise: fresh.gradients(machine, x, noise)[0], autograph=False)
    repeated = np.stack(
        [flat(gradients(fresh.noise(machine, len(x), [5, i]))) for i in range(REPETITIONS)]
    )
    mean, spread = repeated.mean(axis=0), repeated.std(axis=0, ddof=1)
    expected = exact_gradient(machine, objective, num_particles)
    noisy = spread > 1e-6
    assert noisy.sum() > 10
    z = (mean - expected)[noisy] / (spread[noisy] / np.sqrt(REPETITIONS))
    assert np.abs(z).max() < 6.5
    # What has no noise (masked weights) is exact.
    np.testing.assert_allclose(mean[~noisy], expected[~noisy], atol=1e-5)
