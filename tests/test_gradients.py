"""The three updates of Reweighted Wake-Sleep against exact enumeration."""

import numpy as np
import pytest
import tensorflow as tf
from exact import (
    FAMILIES,
    all_latents,
    all_vectors,
    exact_log_joint,
    exact_posterior,
    tiny_machine,
)
from marks import slow_except

from rws_keras import HelmholtzMachine
from rws_keras.models.particles import resample
from rws_keras.objectives import Draws, ReweightedWakeSleep, WakeSleep

X = np.array([[1, 0, 1, 1], [0, 0, 1, 0]], np.float32)

ONLY = {
    name: {"wake_p": False, "wake_q": False, "sleep_q": False, name: True}
    for name in ("wake_p", "wake_q", "sleep_q")
}


def step(objective, machine, x, seed):
    """The gradients of a step, and its particles."""
    return objective.gradients(machine, x, objective.noise(machine, len(x), seed))


def flat(gradients):
    return np.concatenate([np.asarray(g, np.float64).ravel() for g in gradients])


def exact_gradient(machine, loss):
    """Gradient of a scalar function of the machine's variables, flat."""
    variables = [v.value for v in machine.trainable_variables]
    with tf.GradientTape() as tape:
        value = loss()
    return flat(tape.gradient(value, variables, unconnected_gradients="zero"))


def exact_wake_p(machine):
    """-∇ mean log p(x), with log p(x) a log-sum over all latents."""

    def loss():
        log_joint = tf.add_n([term + tf.zeros([1, len(X)]) for term in machine.log_p(X, states)])
        return -tf.reduce_mean(tf.reduce_logsumexp(log_joint, axis=0))

    states = all_latents(machine)
    return exact_gradient(machine, loss)


def exact_wake_q(machine):
    """∇ mean KL(p(h|x) || q(h|x)): the cross-entropy under the exact posterior."""
    states = all_latents(machine)
    posterior = exact_posterior(machine, X).astype(np.float32)

    def loss():
        log_q = tf.add_n([term + tf.zeros([1, len(X)]) for term in machine.log_q(X, states)])
        return -tf.reduce_mean(tf.reduce_sum(posterior * log_q, axis=0))

    return exact_gradient(machine, loss)


def exact_sleep_q(machine):
    """-∇ E[log q(h|x)] over all dreams (x, h) of P."""
    x, states = all_vectors(4), all_latents(machine)
    joint = np.exp(exact_log_joint(machine, x)).astype(np.float32)

    def loss():
        log_q = tf.add_n([term + tf.zeros([1, len(x)]) for term in machine.log_q(x, states)])
        return -tf.reduce_sum(joint * log_q)

    return exact_gradient(machine, loss)


EXACT = {"wake_p": exact_wake_p, "wake_q": exact_wake_q, "sleep_q": exact_sleep_q}


def repeated_gradients(machine, update, num_particles, copies, repetitions):
    """Gradients of independent steps on many copies of the data, `[repetitions, P]`."""
    objective = ReweightedWakeSleep(num_particles, **ONLY[update])
    x = tf.constant(np.repeat(X, copies, axis=0))
    gradients = tf.function(
        lambda noise: objective.gradients(machine, x, noise)[0], jit_compile=True
    )
    return np.stack(
        [
            flat(gradients(objective.noise(machine, len(x), tf.constant([11, i]))))
            for i in range(repetitions)
        ]
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("update", ["wake_p", "wake_q"])
def test_wake_updates_are_exact_with_the_exact_posterior(family, update):
    """All latent states as particles, drawn by a Q that makes the weights p(h|x)."""
    machine = tiny_machine(family, family, seed=1)
    states = [tf.repeat(state, len(X), axis=1) for state in all_latents(machine)]
    uniform_q = [tf.zeros([len(states[0]), len(X)])] * len(states)
    objective = ReweightedWakeSleep(1, **ONLY[update])
    gradient = exact_gradient(
        machine,
        lambda: objective.loss(machine, tf.constant(X), Draws(states, uniform_q, None))[0],
    )
    np.testing.assert_allclose(gradient, EXACT[update](machine), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("update", ["wake_p", "wake_q"])
def test_wake_updates_converge_as_k_grows(family, update):
    machine = tiny_machine(family, family, seed=1, scale=0.5)
    exact = EXACT[update](machine)
    biases = []
    for num_particles, copies in [(1, 400), (10, 400), (100, 40), (2000, 5)]:
        gradients = repeated_gradients(machine, update, num_particles, copies, 40)
        mean, error = gradients.mean(axis=0), gradients.std(axis=0, ddof=1) / np.sqrt(40)
        biases.append(np.linalg.norm(mean - exact) / np.linalg.norm(exact))
    # The bias falls about as 1/K. One particle knows nothing of the posterior.
    assert biases[0] > 0.1
    assert biases[0] > 2 * biases[1] > 4 * biases[2]
    assert biases[3] < 0.03
    # At K = 2000 what is left of it is within the noise: Student's t of 39 degrees above
    # 6 has probability 5e-7, 4e-5 for all 80 components. (Components that are exactly
    # zero have no noise.)
    noisy = error > 1e-7
    z = (mean - exact)[noisy] / error[noisy]
    assert np.abs(z).max() < 6


@pytest.mark.parametrize("family", slow_except(["dsbn"], FAMILIES))
def test_sleep_update_is_its_expectation_over_dreams(family):
    # 40 steps of 20,000 dreams: |t| > 6 with 39 degrees has probability 5e-7.
    machine = tiny_machine(family, family, seed=1)
    gradients = repeated_gradients(machine, "sleep_q", 1, 10_000, 40)
    error = gradients.std(axis=0, ddof=1) / np.sqrt(40)
    noisy = error > 1e-7
    z = (gradients.mean(axis=0) - exact_sleep_q(machine))[noisy] / error[noisy]
    assert noisy.any()
    assert np.abs(z).max() < 6


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("update", list(ONLY))
def test_no_gradient_flows_through_samples_or_weights(family, update):
    """The weights depend on P and Q, the samples on their stack, dreams on P."""
    machine = tiny_machine(family, family, seed=1)
    objective = ReweightedWakeSleep(5, **ONLY[update])
    gradients, _ = step(objective, machine, tf.constant(X), tf.constant([0, 1]))
    by_path = {
        v.path: np.abs(g).max() for v, g in zip(machine.trainable_variables, gradients, strict=True)
    }
    stacks = {
        "p": [v.path for layer in machine.p_layers for v in layer.variables],
        "q": [v.path for layer in machine.q_layers for v in layer.variables],
    }
    own, other = stacks[update[-1]], stacks["q" if update[-1] == "p" else "p"]
    assert all(by_path[path] == 0.0 for path in other)
    assert any(by_path[path] > 0.0 for path in own)


def test_updates_add_up_with_their_scales():
    machine, x, seed = tiny_machine("sbn", "sbn"), tf.constant(X), tf.constant([0, 1])
    scales = {"wake_p": 2.0, "wake_q": 0.25, "sleep_q": 3}
    together = flat(step(ReweightedWakeSleep(5, **scales), machine, x, seed)[0])
    parts = sum(
        scale * flat(step(ReweightedWakeSleep(5, **ONLY[name]), machine, x, seed)[0])
        for name, scale in scales.items()
    )
    np.testing.assert_allclose(together, parts, atol=1e-5)


def test_number_of_dreams():
    machine, x = tiny_machine("sbn", "sbn"), tf.constant(X)

    def dream(**arguments):
        objective = ReweightedWakeSleep(3, **arguments)
        noise = objective.noise(machine, len(x), 1)
        return objective.draw(machine, x, objective.split(machine, len(x), noise)).dream

    assert dream()[0].shape == [2, 4]
    assert dream(num_dreams=7)[0].shape == [7, 4]
    assert dream(sleep_q=False) is None


def test_resampled_particles_follow_the_weights_on_average():
    """Over the whole range of its noise, R of K particles weigh as all of them do."""
    machine, x = tiny_machine("sbn", "sbn"), tf.constant(X)
    both = {"wake_p": True, "wake_q": True, "sleep_q": False}
    plain, resampled = (ReweightedWakeSleep(6, **both, num_resampled=r) for r in (None, 2))
    noise = plain.noise(machine, len(x), seed=5)
    expected = flat(plain.gradients(machine, x, noise)[0])
    grid = (np.arange(500, dtype=np.float32) + 0.5) / 500
    gradients = tf.function(lambda noise: resampled.gradients(machine, x, noise)[0])
    each = np.stack([flat(gradients(tf.concat([noise, [u, u]], 0))) for u in grid])
    assert each.std(axis=0).max() > 0.01  # it matters which are chosen
    # Each of the few jumps along the grid is off by a cell's width at most.
    np.testing.assert_allclose(each.mean(axis=0), expected, atol=6 * 2 / 500)


def test_resampling_is_systematic():
    weights = np.random.default_rng(0).dirichlet(np.full(7, 0.3), size=200).T.astype(np.float32)
    marks = [tf.tile(tf.range(7.0)[:, None, None], [1, 200, 1])]
    noise = tf.random.stateless_uniform([200], [0, 1])
    chosen = resample(marks, tf.constant(weights), 4, noise)[0][..., 0].numpy()
    counts = (chosen[:, None] == np.arange(7)[:, None]).sum(axis=0)
    assert chosen.shape == (4, 200)
    assert np.abs(counts - 4 * weights).max() < 1 + 1e-5


def test_wake_sleep_is_the_delta_rule_of_1995():
    """Each unit learns by (its state - its probability) times its input's state."""
    machine = HelmholtzMachine.from_sizes(6, [5, 3], seed=0)
    random = np.random.default_rng(0)
    for variable in machine.trainable_variables:
        variable.assign(random.normal(0, 1, variable.shape))
    x = (random.random((8, 6)) < 0.5).astype(np.float32)
    objective = WakeSleep()
    noise = objective.noise(machine, len(x), seed=4)
    gradients, particles = objective.gradients(machine, tf.constant(x), noise)
    updates = {
        v.path: -g.numpy() for v, g in zip(machine.trainable_variables, gradients, strict=True)
    }

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    def delta_rule(layer, below, above):
        """What a layer that predicts `below` from `above` learns, averaged over the data."""
        weights = {v.name: v.numpy().astype(np.float64) for v in layer.variables}
        logits = weights["bias"] + (above @ weights["kernel"] if above is not None else 0)
        residual = below - sigmoid(logits)
        learned = {"bias": residual.mean(axis=0)}
        if above is not None:
            learned["kernel"] = above.T @ residual / len(residual)
        return {
            layer_variable.path: learned[layer_variable.name] for layer_variable in layer.variables
        }

    wake = [x, *(latent.numpy()[0] for latent in particles.latents), None]
    named = objective.split(machine, len(x), noise)
    dream_x, dream_latents = objective.draw(machine, tf.constant(x), named).dream
    dream = [dream_x.numpy(), *(latent.numpy() for latent in dream_latents)]
    expected = {}
    for index, layer in enumerate(machine.p_layers):
        expected |= delta_rule(layer, wake[index], wake[index + 1])
    for index, layer in enumerate(machine.q_layers):
        expected |= delta_rule(layer, dream[index + 1], dream[index])
    assert updates.keys() == expected.keys()
    for path, update in updates.items():
        np.testing.assert_allclose(update, expected[path], atol=1e-6, err_msg=path)
