"""Gaussian layers, and machines whose likelihood is known exactly."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exact import machine_with_one_gaussian_latent
from scipy import stats

from rws_keras import HelmholtzMachine, layers
from rws_keras.errors import UserError
from rws_keras.layers.noise import uniform_noise
from rws_keras.objectives import ELBO, ReweightedWakeSleep


def gaussian(shape=(3, 5), seed=0):
    random = np.random.default_rng(seed)
    loc, log_scale = random.normal(size=(2, *shape)).astype(np.float32)
    return layers.DiagonalGaussian(loc, np.exp(log_scale))


def test_samples_have_their_distribution():
    # Kolmogorov-Smirnov of 20,000 samples of each of 15 units, seed 2: false-alarm rate
    # 1e-4 a unit, 2e-3 in all.
    ours = gaussian()
    samples = ours.sample(20_000, seed=2).numpy()
    z = (samples - ours.loc.numpy()) / ours.scale.numpy()
    for unit in z.reshape(20_000, -1).T:
        assert stats.kstest(unit, "norm").pvalue > 1e-4
    # Each sample carries its own log-probability.
    samples, log_prob = ours.experimental_sample_and_log_prob(4, seed=0)
    np.testing.assert_allclose(log_prob, ours.log_prob(samples), rtol=1e-4)


def test_gradients_flow_through_samples():
    noise = uniform_noise((4, 5), 0)
    loc, scale = tf.Variable(tf.zeros([5])), tf.Variable(tf.ones([5]))
    with tf.GradientTape() as tape:
        value, _ = layers.DiagonalGaussian(loc, scale).sample_from_noise(noise)
        total = tf.reduce_sum(value)
    by_loc, by_scale = tape.gradient(total, [loc, scale])
    np.testing.assert_allclose(by_loc, np.full(5, 4.0))
    np.testing.assert_allclose(by_scale, tf.reduce_sum(value, axis=0), rtol=1e-5)


def test_known_units_stay_as_they_are():
    ours = gaussian((2, 5))
    value = np.full([2, 5], 9.0, np.float32)
    known = np.array([True, False, True, False, False])
    completed = ours.complete(value, known, uniform_noise((2, 5), 0)).numpy()
    assert (completed[:, known] == 9.0).all()
    assert (completed[:, ~known] != 9.0).all()


@pytest.mark.parametrize("hidden_units", [None, 6])
def test_layer_config_and_prior(hidden_units):
    options = {"hidden_units": hidden_units}
    if hidden_units:
        options["activation"] = "relu"
    layer = layers.Gaussian(3, **options)
    copy = layers.Gaussian.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    layer.build()
    prior = layer.distribution()
    np.testing.assert_allclose(prior.mean(), np.zeros(3))
    np.testing.assert_allclose(prior.stddev(), np.ones(3))
    with pytest.raises(UserError, match="`activation` has no effect without `hidden_units`"):
        layers.Gaussian(3, activation="relu")


def activation_of(scale):
    """What the layer's softplus maps to a standard deviation."""
    shift = np.log(np.expm1(1.0 - 1e-3))
    return np.log(np.expm1(np.asarray(scale, np.float64) - 1e-3)) - shift


def linear_machine(orthogonal=False):
    """X = W h + b + noise with h ~ N(0, I): p(x) is a Gaussian, and so is p(h | x).

    With `orthogonal` columns of W the exact posterior is diagonal, and Q is set to it.
    """
    machine = HelmholtzMachine.from_sizes(3, [2], p="gaussian", q="gaussian", seed=0)
    p, prior, q = *machine.p_layers, *machine.q_layers
    random = np.random.default_rng(0)
    for variable in machine.trainable_variables:
        variable.assign(random.normal(0.0, 0.3, variable.shape))
    p.scale_kernel.assign(tf.zeros_like(p.scale_kernel))
    p.scale_bias.assign(activation_of([0.8] * 3))
    for variable in prior.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    if orthogonal:
        p.kernel.assign([[1.0, 0.5, 0.0], [-0.5, 1.0, 0.7]])  # rows are orthogonal
        w = p.kernel.numpy().astype(np.float64)
        precision = np.eye(2) + w @ w.T / 0.64
        assert abs(precision[0, 1]) < 1e-9
        gain = np.linalg.inv(precision) @ w / 0.64
        q.kernel.assign(gain.T)
        q.bias.assign(-gain @ p.bias.numpy())
        q.scale_kernel.assign(np.zeros([3, 2]))
        q.scale_bias.assign(activation_of(np.diag(precision) ** -0.5))
    return machine


def exact_log_likelihood(machine, x):
    p = machine.p_layers[0]
    w = p.kernel.numpy().astype(np.float64)
    covariance = w.T @ w + 0.64 * np.eye(3)
    return stats.multivariate_normal(p.bias.numpy(), covariance).logpdf(x)


X = np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32)


def test_the_exact_posterior_as_q_leaves_no_variance():
    machine = linear_machine(orthogonal=True)
    estimate = machine.log_likelihood(X, 3, seed=0)
    np.testing.assert_allclose(estimate.log_likelihood, exact_log_likelihood(machine, X), atol=1e-4)
    np.testing.assert_allclose(estimate.effective_sample_size, np.full(4, 3.0), rtol=1e-4)


@pytest.mark.parametrize("num_particles", [1, 5, 50])
def test_likelihood_is_unbiased_against_the_closed_form(num_particles):
    # 40,000 estimates of p(x) with seed 1: |z| < 4.5 has a false-alarm rate of 7e-6 a test.
    machine = linear_machine()
    exact = np.exp(exact_log_likelihood(machine, X[0]))
    x = np.repeat(X[:1], 40_000, axis=0)
    estimates = machine.log_likelihood(x, num_particles, seed=1).log_likelihood
    estimates = np.exp(np.asarray(estimates, np.float64))
    z = (estimates.mean() - exact) / (estimates.std(ddof=1) / np.sqrt(len(estimates)))
    assert abs(z) < 4.5


def test_likelihood_of_binary_data_with_a_gaussian_latent_equals_quadrature():
    # z-score of 40,000 estimates as above.
    machine = machine_with_one_gaussian_latent()
    x = np.float32([[1, 0, 1, 1]])
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    prior = machine.p_layers[1].distribution()
    h = (prior.loc.numpy() + prior.scale.numpy() * nodes[:, None]).astype(np.float32)
    log_p = machine.p_layers[0].distribution(h).log_prob(x)
    exact = weights @ np.exp(np.asarray(log_p, np.float64)) / np.sqrt(2 * np.pi)
    estimates = machine.log_likelihood(np.repeat(x, 40_000, axis=0), 5, seed=1).log_likelihood
    estimates = np.exp(np.asarray(estimates, np.float64))
    z = (estimates.mean() - exact) / (estimates.std(ddof=1) / np.sqrt(len(estimates)))
    assert abs(z) < 4.5


def exact_elbo_gradient(machine):
    """-∇ mean ELBO of the linear Gaussian machine, from its closed form."""
    variables = [variable.value for variable in machine.trainable_variables]
    with tf.GradientTape() as tape:
        q = machine.q_layers[0].distribution(X)
        prior = machine.p_layers[1].distribution()
        p = machine.p_layers[0]
        # The scale of x depends on h too, by `scale_kernel`, which is zero: its gradient is
        # not compared.
        scale = p.distribution(tf.zeros([1, 2])).scale
        mean = tf.matmul(q.loc, p.kernel.value) + p.bias.value
        spread = tf.matmul(q.scale**2, tf.square(p.kernel.value))
        log_p = -0.5 * tf.reduce_sum(((X - mean) ** 2 + spread) / scale**2, axis=1)
        log_p -= tf.reduce_sum(tf.math.log(scale))
        z = ((q.loc - prior.loc) ** 2 + q.scale**2) / prior.scale**2
        log_prior = -0.5 * tf.reduce_sum(z, axis=1) - tf.reduce_sum(tf.math.log(prior.scale))
        loss = -tf.reduce_mean(log_p + log_prior + q.entropy())
    return tape.gradient(loss, variables, unconnected_gradients="zero")


def test_path_gradients_equal_the_closed_form():
    # 40 repetitions of 8,000 samples: |t| > 6 with 39 degrees has probability 5e-7, 2e-5 for
    # all components.
    machine, objective = linear_machine(), ELBO(2)
    x = tf.constant(np.repeat(X, 1000, axis=0))
    gradients = tf.function(lambda noise: objective.gradients(machine, x, noise)[0])
    repeated = [gradients(objective.noise(machine, len(x), [7, i])) for i in range(40)]
    exact = exact_elbo_gradient(machine)
    compared = 0
    for index, variable in enumerate(machine.trainable_variables):
        if variable is machine.p_layers[0].scale_kernel:
            continue
        each = np.stack([step[index].numpy() for step in repeated]).astype(np.float64)
        error = each.std(axis=0, ddof=1) / np.sqrt(40)
        z = (each.mean(axis=0) - exact[index].numpy()) / error
        assert np.abs(z).max() < 6, variable.path
        compared += z.size
    assert compared == 32


def test_path_gradients_need_reparameterised_latents():
    machine = HelmholtzMachine.from_sizes(4, [3, 2])
    with pytest.raises(UserError, match="gradients through the samples of Q, which the layers q_1"):
        machine.compile("adam", ELBO(1))


@pytest.mark.slow
def test_a_variational_autoencoder_learns(binary):
    # As for the binary machine: pairs of units that agree, 6 log 2 = 4.16 nats at best.
    x = np.repeat(binary(1000, 6, probability=0.5), 2, axis=1)
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(12, [8], q="gaussian", prior="gaussian", seed=0)
    machine.compile(keras.optimizers.Adam(1e-2), ELBO(1), jit_compile=False)
    machine.fit(x, batch_size=50, epochs=40, verbose=0)
    result = machine.evaluate(x, num_particles=200, return_dict=True, verbose=0)
    assert result["log_likelihood"] > -6.5  # independent units: -8.3


@pytest.mark.slow
def test_reweighted_wake_sleep_trains_gaussian_machines(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32) * [2.0, 0.5, 1.0] + 1.0
    machine = HelmholtzMachine.from_sizes(3, [2], p="gaussian", q="gaussian", seed=0)
    machine.compile(keras.optimizers.Adam(3e-2), ReweightedWakeSleep(5), jit_compile=False)
    before = machine.evaluate(x, num_particles=100, return_dict=True, verbose=0)
    machine.fit(x, batch_size=50, epochs=120, verbose=0)
    after = machine.evaluate(x, num_particles=100, return_dict=True, verbose=0)
    entropy = 0.5 * np.log(np.linalg.det(2 * np.pi * np.e * np.cov(x.T)))
    assert before["log_likelihood"] < -entropy - 1.0
    assert after["log_likelihood"] > -entropy - 0.3
    machine.save(tmp_path / "machine.keras")
    loaded = keras.saving.load_model(tmp_path / "machine.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), machine.predict(x, verbose=0))


def test_real_data_are_checked_by_the_visible_layer():
    machine = linear_machine()
    assert machine.log_likelihood(np.full([2, 3], 0.5), 3, seed=0).log_likelihood.shape == [2]
    with pytest.raises(UserError, match="Expected real data: every value a finite number"):
        machine.log_likelihood([[0.0, np.inf, 1.0]], 3)
    with pytest.raises(UserError, match="Expected binary data"):
        HelmholtzMachine.from_sizes(3, [2], q="gaussian", prior="gaussian").log_likelihood(
            np.full([2, 3], 0.5), 3
        )
