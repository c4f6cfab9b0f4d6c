"""Choices: groups of units of which exactly one is on, against enumeration."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exact import EVERY_FAMILY, all_vectors, exact_log_likelihood, randomize

from rws_keras import HelmholtzMachine, layers, objectives
from rws_keras.errors import UserError

SIZES = [1, 3, 2, 1]
UNITS = sum(SIZES)
STATES = all_vectors(UNITS)
VALID = (STATES[:, 1:4].sum(axis=1) == 1) & (STATES[:, 4:6].sum(axis=1) == 1)


def machine(family):
    made = HelmholtzMachine.from_sizes(UNITS, [2], p=family, prior="sbn", choices=SIZES, seed=0)
    return randomize(made, seed=1, scale=0.7)


@pytest.fixture(params=EVERY_FAMILY)
def distribution(request):
    """Of a layer with two rows of parents."""
    layer = machine(request.param).p_layers[0]
    return layer.distribution(tf.constant([[0.0, 1.0], [1.0, 1.0]]))


def test_the_states_of_choices_have_all_the_probability(distribution):
    probabilities = np.exp(distribution.log_prob(STATES[:, None]).numpy().astype(np.float64))
    np.testing.assert_allclose(probabilities.sum(axis=0), 1.0, rtol=1e-5)
    assert (probabilities[~VALID] == 0.0).all()
    assert (probabilities[VALID] > 0.0).all()


def test_probabilities_are_products_of_those_of_the_base(distribution):
    """Unit by unit, leaving out those whose values are certain."""
    on = tf.sigmoid(distribution.base.conditional_logits(tf.constant(STATES[:, None]))).numpy()
    on = np.broadcast_to(on, (len(STATES), 2, UNITS)).astype(np.float64)
    for state, of_units, found in zip(
        STATES[VALID], on[VALID], distribution.log_prob(STATES[VALID][:, None]), strict=True
    ):
        for row in range(2):
            expected, start = 0.0, 0
            for size in SIZES:
                for place in range(size):
                    unit = start + place
                    taken = state[start:unit].any()
                    last = size > 1 and place == size - 1
                    if not taken and not last:
                        p = of_units[row, unit]
                        expected += np.log(p if state[unit] else 1.0 - p)
                start += size
            np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)


def test_samples(distribution):
    """Frequencies of 20,000 samples: |z| of 24 states and two rows below 4.5, seed 0 (3e-4)."""
    count = 20_000
    noise = layers.uniform_noise((count, 2, UNITS), 0)
    value, log_prob = distribution.sample_from_noise(noise)
    np.testing.assert_allclose(log_prob, distribution.log_prob(value), atol=1e-4)
    np.testing.assert_array_equal(value, distribution.sample(count, seed=0))
    codes = value.numpy() @ 2 ** np.arange(UNITS)[::-1]
    probabilities = np.exp(distribution.log_prob(STATES[:, None]).numpy().astype(np.float64))
    for row in range(2):
        frequencies = np.bincount(codes[:, row].astype(int), minlength=len(STATES)) / count
        p = probabilities[:, row]
        assert (frequencies[~VALID] == 0.0).all()
        error = np.sqrt(p[VALID] * (1.0 - p[VALID]) / count)
        assert (np.abs(frequencies[VALID] - p[VALID]) / error).max() < 4.5


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_gradients(family):
    """Of the weights: finite, and the same with and without compilation."""
    made = machine(family)
    layer = made.p_layers[0]
    given = tf.constant([[0.0, 1.0]])
    x = tf.constant(STATES[VALID][:, None])

    def gradients():
        with tf.GradientTape() as tape:
            total = tf.reduce_mean(layer.distribution(given).log_prob(x))
        return tape.gradient(total, [weight.value for weight in layer.trainable_variables])

    plain, compiled = gradients(), tf.function(gradients, jit_compile=True)()
    for one, other in zip(plain, compiled, strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, atol=1e-5)
    weight, step = layer.bias, 1e-2
    numeric = []
    for unit in range(UNITS):
        ends = []
        for sign in (1, -1):
            before = weight.numpy()
            weight.assign(before + sign * step * np.eye(UNITS, dtype=np.float32)[unit])
            ends.append(float(tf.reduce_mean(layer.distribution(given).log_prob(x))))
            weight.assign(before)
        numeric.append((ends[0] - ends[1]) / (2 * step))
    (place,) = [i for i, w in enumerate(layer.trainable_variables) if w is layer.bias]
    np.testing.assert_allclose(plain[place], numeric, atol=2e-3)
    # The last of a choice is never decided.
    np.testing.assert_array_equal(plain[place].numpy()[[3, 5]], 0.0)


@pytest.mark.parametrize("family", ["sbn", "nade"])
def test_a_machine_learns_choices(family, tmp_path):
    """Each answer depends on a hidden type; the likelihood nears its entropy."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 2, 500)
    x = np.zeros([500, UNITS], np.float32)
    x[:, 0] = kind
    x[np.arange(500), 1 + np.where(kind, 2, random.integers(0, 2, 500))] = 1.0
    x[np.arange(500), 4 + kind] = 1.0
    made = machine(family)
    before = exact_log_likelihood(made, x).mean()
    made.compile(keras.optimizers.Adam(3e-2), objectives.ReweightedWakeSleep(5))
    made.fit(x, batch_size=50, epochs=15, verbose=0)
    after = exact_log_likelihood(made, x)
    estimate = made.log_likelihood(x, 2000, seed=0).log_likelihood.numpy()
    np.testing.assert_allclose(estimate, after, atol=0.2)
    # Types are equally likely, and one of them leaves two answers: -1.5 log 2 = -1.04 at best.
    assert before < -3.0
    assert -1.6 < after.mean() < -1.0
    samples = made.sample(100, seed=0).x.numpy()
    assert (samples[:, 1:4].sum(axis=1) == 1).all()
    made.save(tmp_path / "machine.keras")
    again = keras.saving.load_model(tmp_path / "machine.keras")
    assert again.p_layers[0].choices == SIZES
    np.testing.assert_array_equal(again.sample(100, seed=0).x, samples)


def test_tfp_conventions(distribution):
    """It may be sliced, given to a graph and returned from it."""
    x = tf.constant(STATES[VALID][:, None])
    expected = distribution.log_prob(x).numpy()
    assert distribution.batch_shape == [2]
    assert distribution.event_shape == [UNITS]
    np.testing.assert_allclose(distribution[1].log_prob(x[:, 0]), expected[:, 1], rtol=1e-5)
    returned = tf.function(lambda d: d)(distribution)
    np.testing.assert_allclose(returned.log_prob(x), expected, rtol=1e-5)
    with pytest.raises(NotImplementedError):
        distribution.mean()


def test_gaps_are_drawn_as_a_whole(distribution):
    """Where a choice is missing exactly one value is drawn, and what is known stays."""
    value = np.tile(STATES[VALID][0], (500, 2, 1))
    known = np.array([True, False, False, False, True, True, False])
    noise = layers.uniform_noise((500, 2, UNITS), 3)
    drawn = distribution.complete(value, known, noise).numpy()
    np.testing.assert_array_equal(drawn[..., known], value[..., known])
    assert (drawn[..., 1:4].sum(axis=-1) == 1.0).all()
    assert (drawn[..., 1:4].mean(axis=(0, 1)) > 0.0).all()


def test_errors():
    with pytest.raises(UserError, match="must sum to the 7 units"):
        layers.SBN(7, choices=[3, 3])
    with pytest.raises(UserError, match="must be positive and sum"):
        layers.Choices(layers.FactorizedBernoulli([0.0, 0.0]), [2, 0])
    with pytest.raises(UserError, match="binary units; got a DiagonalGaussian"):
        layers.Choices(layers.DiagonalGaussian([0.0, 0.0], [1.0, 1.0]), [2])
    with pytest.raises(UserError, match="Give `choices` to the layer itself"):
        HelmholtzMachine.from_sizes(2, [2], p=[layers.SBN(2)], choices=[2])
