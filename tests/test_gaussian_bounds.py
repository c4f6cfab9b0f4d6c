"""Objectives with path gradients: their expected gradient is the bound's, by quadrature.

With one Gaussian latent unit `h = μ + σ ε` the bound of K particles is an integral over K standard
normal numbers. Gauss-Hermite quadrature computes it, and it is differentiated as it stands.
"""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from exact import machine_with_one_gaussian_latent

from rws_keras.objectives import ELBO, IWAE, DReG

X = np.array([[1, 0, 1, 1], [0, 0, 1, 0]], np.float32)
NODES = 48


def exact_gradient(machine, num_particles):
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    grid = np.array(list(itertools.product(range(NODES), repeat=num_particles)))
    probability = tf.constant(weights[grid].prod(axis=1), tf.float32)[:, None]
    epsilon = tf.constant(nodes[grid].T[:, :, None, None], tf.float32)  # [K, G, 1, 1]
    variables = machine.trainable_variables
    with tf.GradientTape() as tape:
        q = machine.q_layers[0].distribution(X)
        h = q.loc + q.scale * epsilon  # [K, G, N, 1]
        log_p = sum(machine.log_p(tf.constant(X), [h]))
        bound = tf.reduce_logsumexp(log_p - q.log_prob(h), axis=0) - np.log(num_particles)
        loss = -tf.reduce_mean(tf.reduce_sum(probability * bound, axis=0))
    found = tape.gradient(loss, [v.value for v in variables], unconnected_gradients="zero")
    return np.concatenate([np.ravel(g) for g in found]).astype(np.float64)


def repeated_gradients(objective, repetitions=40, copies=1000):
    machine = machine_with_one_gaussian_latent()
    machine.compile("sgd", objective)
    x = tf.constant(np.repeat(X, copies, axis=0))
    step = tf.function(lambda noise: objective.gradients(machine, x, noise)[0], autograph=False)
    found = [step(objective.noise(machine, len(x), [5, i])) for i in range(repetitions)]
    return np.array([np.concatenate([np.ravel(g) for g in each]) for each in found], np.float64)


CASES = {
    "ELBO, K = 1": (ELBO(1), 1),
    "ELBO, K = 3": (ELBO(3), 1),
    "IWAE, K = 1": (IWAE(1), 1),
    "IWAE, K = 2": (IWAE(2), 2),
    "IWAE, K = 3": (IWAE(3), 3),
    "DReG, K = 1": (DReG(1), 1),
    "DReG, K = 2": (DReG(2), 2),
    "DReG, K = 3": (DReG(3), 3),
}


@pytest.mark.parametrize("case", CASES)
def test_the_expected_gradient_is_that_of_the_bound(case):
    # |t| > 6.5 with 39 degrees of freedom has probability 1e-7: 2e-5 for 8 cases of 20.
    objective, num_particles = CASES[case]
    expected, found = (
        exact_gradient(machine_with_one_gaussian_latent(), num_particles),
        repeated_gradients(objective),
    )
    spread = found.std(axis=0, ddof=1)
    noisy = spread > 1e-6
    assert noisy.sum() > 15
    t = (found.mean(axis=0) - expected)[noisy] / (spread[noisy] / np.sqrt(len(found)))
    assert np.abs(t).max() < 6.5
    np.testing.assert_allclose(found.mean(axis=0)[~noisy], expected[~noisy], atol=1e-5)


def test_the_doubly_reparameterised_gradient_of_q_has_less_variance():
    machine = machine_with_one_gaussian_latent()
    of_q = np.concatenate(
        [
            np.full(v.shape, any(v is each for each in machine.q_variables)).ravel()
            for v in machine.trainable_variables
        ]
    )
    spread = {
        kind: repeated_gradients(kind(50), copies=20)[:, of_q].var(axis=0).sum()
        for kind in (IWAE, DReG)
    }
    assert spread[DReG] < 0.5 * spread[IWAE]
