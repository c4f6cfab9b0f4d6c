"""Objectives that climb a bound: their expected gradient is the bound's, by enumeration.

The bound of K particles is computed from all K-tuples of latent states,
`Σ Π_k q(h_k | x) log (1/K Σ_k p(x, h_k) / q(h_k | x))`, and differentiated as it stands.
"""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from exact import FAMILIES, all_latents, randomize
from marks import slow_except

from rws_keras import HelmholtzMachine
from rws_keras.errors import UserError
from rws_keras.objectives import NVIL, REINFORCE, VIMCO

X = np.array([[1, 0, 1], [0, 0, 1]], np.float32)
REPETITIONS, COPIES = 40, 500


def make(p="sbn", q="sbn"):
    return randomize(HelmholtzMachine.from_sizes(3, [2, 1], p=p, q=q, seed=0), seed=3)


def exact_gradient(machine, num_particles):
    """The gradient of minus the mean bound for all variables, by their paths."""
    states, x = all_latents(machine), tf.constant(X)
    num_states = len(states[0])
    tuples = np.array(list(itertools.product(range(num_states), repeat=num_particles)))
    variables = machine.trainable_variables
    with tf.GradientTape() as tape:
        zeros = tf.zeros([num_states, len(X)])
        log_p = sum(machine.log_p(x, states)) + zeros
        log_q = sum(machine.log_q(x, states)) + zeros
        log_weights = tf.gather(log_p - log_q, tuples)  # [tuples, K, N]
        bound = tf.reduce_logsumexp(log_weights, axis=1) - np.log(num_particles)
        probability = tf.exp(tf.reduce_sum(tf.gather(log_q, tuples), axis=1))
        loss = -tf.reduce_mean(tf.reduce_sum(probability * bound, axis=0))
    found = tape.gradient(loss, [v.value for v in variables], unconnected_gradients="zero")
    return {v.path: np.asarray(g, np.float64) for v, g in zip(variables, found, strict=True)}


def repeated_gradients(machine, objective, repetitions=REPETITIONS, copies=COPIES):
    """Gradients of repeated steps on copies of the data, `[repetitions, …]` by path."""
    machine.compile("sgd", objective)
    x = tf.constant(np.repeat(X, copies, axis=0))
    step = tf.function(lambda noise: objective.gradients(machine, x, noise)[0], autograph=False)
    found = [step(objective.noise(machine, len(x), [5, i])) for i in range(repetitions)]
    paths = [variable.path for variable in machine.trainable_variables]
    stacked = [np.stack(each).astype(np.float64) for each in zip(*found, strict=True)]
    return dict(zip(paths, stacked, strict=True))


def assert_equal_on_average(found, expected, scales=None):
    """The largest |t| of all components is below 6.5.

    With 39 degrees of freedom |t| > 6.5 has probability 1e-7: 2e-5 for the about 30 components
    of each of the 40 cases here.
    """
    compared = 0
    for path, exact in expected.items():
        exact = exact * (scales or {}).get(path.split("/")[0], 1.0)
        mean, spread = found[path].mean(axis=0), found[path].std(axis=0, ddof=1)
        noisy = spread > 1e-6
        t = (mean - exact)[noisy] / (spread[noisy] / np.sqrt(len(found[path])))
        assert np.abs(t).max(initial=0.0) < 6.5, path
        np.testing.assert_allclose(mean[~noisy], exact[~noisy], atol=1e-5)
        compared += noisy.sum()
    assert compared > 10


CASES = {
    "REINFORCE, K = 1": (lambda: REINFORCE(1), 1),
    "REINFORCE, K = 2": (lambda: REINFORCE(2), 2),
    "REINFORCE, K = 5": (lambda: REINFORCE(5), 5),
    "VIMCO, K = 2": (lambda: VIMCO(2), 2),
    "VIMCO, K = 5": (lambda: VIMCO(5), 5),
    # Averages of K samples of the evidence lower bound.
    "NVIL, K = 1": (lambda: NVIL(1, hidden_units=4), 1),
    "NVIL, K = 5": (lambda: NVIL(5, hidden_units=4), 1),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", slow_except(["sbn"], FAMILIES))
def test_the_expected_gradient_is_that_of_the_bound(family, case):
    make_objective, num_particles = CASES[case]
    machine = make(family, family)
    expected = exact_gradient(machine, num_particles)
    assert_equal_on_average(repeated_gradients(machine, make_objective()), expected)


@pytest.fixture(scope="module")
def learnt():
    """NVIL with baselines, means and variances that are far from where they begin."""
    objective, machine = NVIL(1, hidden_units=4, decay=0.5), make()
    machine.compile("sgd", objective)
    random = np.random.default_rng(1)
    for variable in objective.trainable_variables:
        variable.assign(random.normal(0.0, 2.0, variable.shape))
    objective.mean.assign([-20.0, 30.0])
    objective.variance.assign([4.0, 0.25])
    return machine, objective


def test_baselines_change_the_variance_and_not_the_mean(learnt):
    machine, objective = learnt
    expected = exact_gradient(make(), 1)
    found = repeated_gradients(machine, objective)
    # A variance of 4 halves what the first layer follows, one below 1 does nothing.
    assert_equal_on_average(found, expected, scales={"q_1": 0.5})
    plain = repeated_gradients(make(), NVIL(1, hidden_units=4))
    ratio = found["q_2/bias"].var() / plain["q_2/bias"].var()
    assert ratio > 10


def test_nvil_follows_mean_and_variance_of_its_signals(learnt):
    machine, objective = learnt
    x = tf.constant(np.repeat(X, 500, axis=0))
    weight = tf.constant(np.tile([1.0, 3.0], 500), tf.float32)
    noise = objective.noise(machine, len(x), seed=0)
    _, particles = objective.gradients(machine, x, noise, weight)
    before = objective.mean.numpy(), objective.variance.numpy()
    objective.update(machine, x, particles, weight)
    top = particles.log_p[2] + particles.log_p[1] - particles.log_q[1]
    signals = [top + particles.log_p[0] - particles.log_q[0], top]
    for level, signal in enumerate(signals):
        mean = np.average(signal[0], weights=weight)
        variance = np.average((signal[0] - mean) ** 2, weights=weight)
        ours = objective.mean.numpy()[level], objective.variance.numpy()[level]
        expected = [
            0.5 * (old[level] + new) for old, new in zip(before, (mean, variance), strict=True)
        ]
        np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_baselines_learn_to_predict_the_signals(binary):
    machine = HelmholtzMachine.from_sizes(8, [4], seed=0)
    objective = NVIL(1, hidden_units=8)
    machine.compile(keras.optimizers.Adam(1e-2), objective, jit_compile=False)
    x = binary(200, 8)
    machine.fit(x, epochs=30, verbose=0)
    noise = objective.noise(machine, 200, seed=0)
    _, particles = objective.gradients(machine, tf.constant(x), noise)
    signal = particles.log_weights.numpy()[0]
    guess = objective.baselines[0](x).numpy()[:, 0] + float(objective.mean[0])
    assert np.mean((signal - guess) ** 2) < 0.9 * np.var(signal)


def variance_of_q(objective):
    found = repeated_gradients(make(), objective, copies=20)
    return sum(each.var(axis=0).sum() for path, each in found.items() if path.startswith("q_"))


def test_vimco_has_less_variance_than_reinforce_on_the_same_bound():
    for num_particles in (5, 50):
        vimco, reinforce = (
            variance_of_q(VIMCO(num_particles)),
            variance_of_q(REINFORCE(num_particles)),
        )
        # By an order of magnitude: no noise of 40 repetitions makes up for that.
        assert vimco < 0.1 * reinforce


def test_vimco_needs_two_particles():
    with pytest.raises(UserError, match="`num_particles` must be an integer of at least 2, got 1"):
        VIMCO(1)
    with pytest.raises(UserError, match="`decay` must be below 1"):
        NVIL(decay=1.0)


@pytest.mark.parametrize(
    "objective", [REINFORCE(3), VIMCO(3), NVIL(3)], ids=lambda o: type(o).__name__
)
def test_impossible_rows_and_particles_have_no_gradient(objective, binary):
    machine = HelmholtzMachine.from_sizes(8, [5, 3], seed=0)
    machine.compile("sgd", objective, jit_compile=False)
    bias = machine.p_layers[0].bias
    bias.assign(np.where(np.arange(8) == 2, np.inf, bias.numpy()))
    x = binary(20, 8)
    machine.fit(x, batch_size=10, verbose=0)
    assert not any(np.isnan(weights).any() for weights in machine.get_weights())
