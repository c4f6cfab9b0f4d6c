"""The compiled step with its closed-form gradients against the plain way to the same thing."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from exact import EVERY_FAMILY, randomize

from rws_keras import HelmholtzMachine
from rws_keras.objectives import ReweightedWakeSleep

pytestmark = pytest.mark.slow

UPDATES = {
    "wake-sleep": {"num_particles": 1, "wake_q": False},
    "all updates": {"num_particles": 5},
    "few dreams": {"num_particles": 3, "sleep_q": 0.5, "num_dreams": 7},
}


def plain_log_prob(layer, value, given):
    """TFP's own Bernoulli; autoregressive logits as a masked product, or unit by unit."""
    weights = {variable.name: variable.value for variable in layer.variables}

    def affine(kernel, bias):
        return weights[bias] + (0.0 if given is None else tf.tensordot(given, weights[kernel], 1))

    kind = type(layer).__name__
    if kind == "DSBN":
        hidden = layer.activation(affine("hidden_kernel", "hidden_bias"))
        logits = tf.tensordot(hidden, weights["kernel"], 1) + weights["bias"]
    else:
        logits = affine("kernel", "bias")
    if kind == "ARSBN":
        mask = np.triu(np.ones([layer.units] * 2, np.float32), 1)
        logits += tf.tensordot(value, mask * weights["autoregressive_kernel"], 1)
    if kind == "NADE":
        hidden = affine("hidden_kernel", "hidden_bias") + tf.zeros([*value.shape[:-1], 1])
        units = []
        for i in range(layer.units):
            units.append(tf.linalg.matvec(tf.sigmoid(hidden), weights["decoder"][i]))
            hidden += value[..., i, None] * weights["encoder"][i]
        logits += tf.stack(units, axis=-1)
    if kind == "MADE":
        mask = np.triu(np.ones([layer.units] * 2, np.float32), 1)
        logits += tf.tensordot(value, mask * weights["autoregressive_kernel"], 1)
        seen = np.arange(layer.hidden_units) * layer.units // layer.hidden_units
        mask = (np.arange(layer.units)[:, None] < seen).astype(np.float32)
        hidden = affine("hidden_kernel", "hidden_bias")
        hidden += tf.tensordot(value, mask * weights["encoder"], 1)
        decoder = (1.0 - mask) * weights["decoder"]
        logits += tf.tensordot(tf.nn.relu(hidden), decoder, [[-1], [1]])
    return tfp.distributions.Independent(
        tfp.distributions.Bernoulli(logits=logits, dtype=tf.float32), 1
    ).log_prob(value)


def plain_gradients(machine, objective, x, draws):
    """The updates' definition, differentiated by a tape, without any of the library's speed."""
    latents = draws.latents

    def log_q(x, latents):
        parents = [x, *latents[:-1]]
        return sum(map(plain_log_prob, machine.q_layers, latents, parents))

    variables = [variable.value for variable in machine.trainable_variables]
    with tf.GradientTape() as tape:
        values, parents = [x, *latents], [*latents, None]
        log_p = sum(map(plain_log_prob, machine.p_layers, values, parents))
        weights = tf.stop_gradient(tf.nn.softmax(log_p - log_q(x, latents), axis=0))
        loss = -objective.wake_p * tf.reduce_mean(tf.reduce_sum(weights * log_p, axis=0))
        wake_q = tf.reduce_sum(weights * log_q(x, latents), axis=0)
        loss -= objective.wake_q * tf.reduce_mean(wake_q)
        loss -= objective.sleep_q * tf.reduce_mean(log_q(*draws.dream))
    return tape.gradient(loss, variables, unconnected_gradients="zero")


@pytest.mark.parametrize("family", EVERY_FAMILY)
@pytest.mark.parametrize("updates", UPDATES)
def test_gradients_equal_the_plain_ones_given_the_same_noise(family, updates, binary):
    # Sizes that no block divides.
    machine = HelmholtzMachine.from_sizes(37, [19, 8], p=family, q=family, seed=0)
    randomize(machine, seed=1, scale=0.5)
    objective, x = ReweightedWakeSleep(**UPDATES[updates]), tf.constant(binary(12, 37))
    noise = objective.noise(machine, len(x), seed=3)
    compiled = tf.function(objective.gradients, jit_compile=True)
    gradients, _ = compiled(machine, x, noise)
    # Compiled too: a unit of noise within rounding of its probability could else fall on
    # either side.
    named = objective.split(machine, len(x), noise)
    draws = tf.function(objective.draw, jit_compile=True)(machine, x, named)
    expected = plain_gradients(machine, objective, x, draws)
    for variable, ours, plain in zip(machine.trainable_variables, gradients, expected, strict=True):
        scale = np.abs(plain).max() + 1e-3
        np.testing.assert_allclose(ours / scale, plain / scale, atol=2e-5, err_msg=variable.path)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_fit_is_the_same_with_and_without_compilation(family, binary):
    x = binary(60, 37)

    def trained(**arguments):
        keras.utils.set_random_seed(0)
        machine = HelmholtzMachine.from_sizes(37, [19, 8], p=family, q=family, seed=0)
        machine.compile(keras.optimizers.SGD(0.1), ReweightedWakeSleep(5), **arguments)
        machine.fit(x, batch_size=20, shuffle=False, verbose=0)
        return np.concatenate([np.ravel(weights) for weights in machine.get_weights()])

    plain = trained(jit_compile=False)
    assert np.abs(trained(jit_compile=True) - plain).max() < 1e-5
    assert np.abs(trained(run_eagerly=True) - plain).max() < 1e-5
    assert np.abs(trained(steps_per_execution=2) - plain).max() < 1e-5
