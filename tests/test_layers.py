"""The contract of the stochastic layers, for every family."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from exact import EVERY_FAMILY, all_vectors
from scipy import stats

from rws_keras import layers
from rws_keras.layers.noise import uniform_noise
from rws_keras.layers.value_shapes import allow_value_shapes

tfd = tfp.distributions

CASES = [(family, prior) for family in EVERY_FAMILY for prior in (False, True)]


def make(family, units, given_units, seed=0, scale=1.0):
    """A layer with random weights: conditional, or a prior for `given_units=None`."""
    layer = layers.get(family, units)
    layer.build(None if given_units is None else (None, given_units))
    random = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        variable.assign(random.normal(0.0, scale, variable.shape))
    return layer


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{'prior' if case[1] else 'given'}")
def case(request):
    """A layer of five units, and parents for it (or `None`)."""
    family, prior = request.param
    given = None if prior else np.array([[1, 0, 1], [0, 1, 1]], np.float32)
    return make(family, 5, None if prior else 3), given


@pytest.fixture(params=EVERY_FAMILY)
def conditional(request):
    """A conditional layer of five units, and two rows of parents for it."""
    return make(request.param, 5, 3), np.array([[1, 0, 1], [0, 1, 1]], np.float32)


def test_probabilities_sum_to_one(case):
    layer, given = case
    values = all_vectors(5) if given is None else all_vectors(5)[:, None]
    total = tf.reduce_sum(tf.exp(layer.distribution(given).log_prob(values)), axis=0)
    np.testing.assert_allclose(total, np.ones_like(total), atol=1e-5)


def test_sampled_frequencies_match(case):
    # Chi-square with seed 3: false-alarm rate 1e-4 a test, under 2e-3 for all sixteen.
    layer, given = case
    distribution = layer.distribution(given)
    values = all_vectors(5) if given is None else all_vectors(5)[:, None]
    expected = 50_000 * np.exp(distribution.log_prob(values)).reshape(32, -1)
    samples = distribution.sample(50_000, seed=3).numpy().reshape(50_000, -1, 5)
    codes = (samples @ 2 ** np.arange(4, -1, -1)).astype(int)
    for column in range(expected.shape[1]):
        observed = np.bincount(codes[:, column], minlength=32)
        # Rare states are pooled: chi-square wants about five counts in a cell.
        rare = expected[:, column] < 5
        cells = [
            np.append(counts[~rare], counts[rare].sum())
            for counts in (observed, expected[:, column])
        ]
        statistic = np.sum((cells[0] - cells[1]) ** 2 / np.maximum(cells[1], 1e-9))
        assert stats.chi2.sf(statistic, df=len(cells[0]) - 1) > 1e-4


def test_sample_carries_its_log_probability(case):
    layer, given = case
    distribution = layer.distribution(given)
    samples, log_prob = distribution.experimental_sample_and_log_prob(7, seed=0)
    np.testing.assert_allclose(log_prob, distribution.log_prob(samples), atol=1e-5)
    again = distribution.sample(7, seed=0)
    np.testing.assert_array_equal(samples, again)


def test_shapes_for_any_leading_dimensions(case):
    layer, given = case
    if given is None:
        distribution, batch = layer.distribution(), []
    else:
        distribution, batch = layer.distribution(np.tile(given, (4, 1, 1))), [4, 2]
    assert isinstance(distribution, tfd.Distribution)
    assert distribution.event_shape == [5]
    assert distribution.batch_shape == batch
    assert distribution.sample(seed=0).shape == [*batch, 5]
    assert distribution.sample([6, 3], seed=0).shape == [6, 3, *batch, 5]
    assert distribution.log_prob(np.zeros([6, *batch, 5], np.float32)).shape == [6, *batch]


def test_parents_broadcast_against_values(conditional, binary):
    layer, given = conditional
    values = binary(6, 2, 5)
    broadcast = layer.distribution(given).log_prob(values)
    tiled = layer.distribution(np.tile(given, (6, 1, 1))).log_prob(values)
    np.testing.assert_allclose(broadcast, tiled, atol=1e-5)
    # And the other way: K parents of one value.
    parents = np.stack([given, 1 - given, given])
    broadcast = layer.distribution(parents).log_prob(values[0])
    tiled = layer.distribution(parents).log_prob(np.tile(values[0], (3, 1, 1)))
    np.testing.assert_allclose(broadcast, tiled, atol=1e-5)


def test_parents_are_processed_once_for_all_particles(conditional):
    layer, given = conditional
    graph = tf.function(lambda h: layer.distribution(given).log_prob(h)).get_concrete_function(
        tf.TensorSpec([50, 2, 5])
    )
    inner = [op for op in graph.graph.get_operations() if op.type == "MatMul"]
    rows = {op.inputs[0].shape[0] for op in inner if op.inputs[0].shape[-1] == 3}
    assert rows == {2}


def test_log_prob_and_gradients_are_finite_at_extreme_logits(case):
    layer, given = case
    for bias in (-100.0, 100.0):
        layer.bias.assign(tf.fill([5], bias))
        with tf.GradientTape() as tape:
            values = all_vectors(5) if given is None else all_vectors(5)[:, None]
            log_prob = layer.distribution(given).log_prob(values)
        gradients = tape.gradient(log_prob, [v.value for v in layer.trainable_variables])
        assert np.isfinite(log_prob).all()
        assert np.min(log_prob) < -300
        assert all(np.isfinite(gradient).all() for gradient in gradients if gradient is not None)


def test_config_round_trip(case):
    layer, given = case
    config = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(layer)
    assert copy.is_prior == (given is None)
    for ours, theirs in zip(layer.variables, copy.variables, strict=True):
        theirs.assign(ours)
    values = np.zeros([2, 5], np.float32)
    np.testing.assert_array_equal(
        copy.distribution(given).log_prob(values), layer.distribution(given).log_prob(values)
    )


def test_prior_takes_no_parents_and_conditional_layers_need_them(case):
    layer, given = case
    with pytest.raises(ValueError, match="prior" if given is None else "as a prior"):
        layer.distribution(np.zeros([2, 3], np.float32) if given is None else None)
    with pytest.raises(ValueError, match="matching sizes"):
        layer.distribution(np.zeros([2, 4], np.float32))


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_conditional_probs_are_those_of_the_chain_rule(family):
    layer = make(family, 5, None)
    distribution = layer.distribution()
    probabilities = np.exp(distribution.log_prob(all_vectors(5)))
    value = np.array([1, 0, 0, 1, 1], np.float32)
    for unit in range(5):
        before = (all_vectors(5)[:, :unit] == value[:unit]).all(axis=1)
        on = before & (all_vectors(5)[:, unit] == 1)
        expected = probabilities[on].sum() / probabilities[before].sum()
        np.testing.assert_allclose(
            distribution.conditional_probs(value)[..., unit], expected, atol=1e-5
        )


def reference_logits(layer, value, given):
    """Unit by unit, as the equations are written."""
    weights = {v.name: v.numpy().astype(np.float64) for v in layer.variables}
    logits = np.zeros(value.shape) + weights["bias"] + given @ weights["kernel"]
    for i in range(layer.units):
        before = value[..., :i]
        if isinstance(layer, layers.ARSBN):
            logits[..., i] += before @ weights["autoregressive_kernel"][:i, i]
        elif isinstance(layer, layers.MADE):
            logits[..., i] += before @ weights["autoregressive_kernel"][:i, i]
            for k in range(layer.hidden_units):
                seen = k * layer.units // layer.hidden_units
                if seen <= i:
                    hidden = weights["hidden_bias"][k] + given @ weights["hidden_kernel"][:, k]
                    hidden = hidden + value[..., :seen] @ weights["encoder"][:seen, k]
                    logits[..., i] += np.maximum(hidden, 0.0) * weights["decoder"][i, k]
        else:
            hidden = weights["hidden_bias"] + given @ weights["hidden_kernel"]
            hidden = hidden + before @ weights["encoder"][:i]
            sigmoid = layer.activation == "sigmoid"
            hidden = 1 / (1 + np.exp(-hidden)) if sigmoid else np.maximum(hidden, 0.0)
            logits[..., i] += hidden @ weights["decoder"][i]
    return logits


IN_ORDER = {
    "arsbn": "arsbn",
    "nade": "nade",
    "nade-relu": {"family": "nade", "activation": "relu"},
    "made": "made",
    "made-few": {"family": "made", "hidden_units": 5},
    "made-many": {"family": "made", "hidden_units": 50},
}
of_units_in_order = pytest.mark.parametrize("family", IN_ORDER.values(), ids=IN_ORDER)


# 37 units are two blocks and a bit, 32 are exactly two.
@pytest.mark.parametrize("units", [1, 32, 37])
@of_units_in_order
def test_parallel_logits_and_sampling_loop_equal_unit_by_unit(family, units, binary):
    layer = make(family, units, 6, scale=0.5)
    given, value = binary(8, 6), binary(8, units, seed=1)
    distribution = layer.distribution(given)
    expected = reference_logits(layer, value, given)
    np.testing.assert_allclose(distribution.conditional_logits(value), expected, atol=1e-4)

    noise = uniform_noise((8, units), 5)
    sample, _ = distribution.sample_from_noise(noise)
    expected = 1 / (1 + np.exp(-reference_logits(layer, sample.numpy(), given)))
    # Where the noise is not within rounding of the threshold the sample is determined.
    clear = np.abs(expected - noise.numpy()) > 1e-5
    np.testing.assert_array_equal(sample.numpy()[clear], (noise.numpy() < expected)[clear])


@pytest.mark.parametrize("by_runs", [False, True], ids=["by-blocks", "by-runs"])
@pytest.mark.parametrize("units", [1, 32, 37])
@pytest.mark.parametrize("family", ["nade", "nade-relu", "made"])
def test_particles_of_the_same_value_equal_copies_of_it(family, units, by_runs, binary):
    layer = make(IN_ORDER[family], units, 6, scale=0.5)
    given, value = binary(3, 5, 6), binary(5, units, seed=1)
    value[0], value[1] = 0.0, 1.0
    value, copies = tf.constant(value), tf.constant(np.stack([value] * 3))
    variables = [variable.value for variable in layer.trainable_variables]

    def log_prob_and_gradients(value):
        with tf.GradientTape() as tape:
            tape.watch(value)
            log_prob = layer.distribution(given).log_prob(value)
            total = tf.reduce_sum(log_prob * np.arange(1.0, 16.0).reshape(3, 5))
        return log_prob, *tape.gradient(total, [*variables, value])

    *expected, to_copies = log_prob_and_gradients(copies)
    expected.append(tf.reduce_sum(to_copies, axis=0))
    with allow_value_shapes() if by_runs else contextlib.nullcontext():
        logits = layer.distribution(given).conditional_logits(value)
        found = log_prob_and_gradients(value)
    np.testing.assert_allclose(logits, reference_logits(layer, copies.numpy(), given), atol=1e-4)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=1e-4)


@of_units_in_order
def test_gradients_of_log_prob_equal_finite_differences(family, binary):
    layer = make(family, 19, 4, scale=0.5)
    given, value = binary(5, 4), tf.Variable(binary(3, 5, 19, seed=1))
    variables = [*(variable.value for variable in layer.trainable_variables), value]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer.distribution(given).log_prob(value))
    gradients = tape.gradient(total, variables)

    def reference(changed, entry, by):
        old = changed.numpy()
        new = old.copy()
        new[entry] += by
        changed.assign(new)
        x = value.numpy().astype(np.float64)
        logits = reference_logits(layer, x, given)
        changed.assign(old)
        return (x * logits - np.logaddexp(0, logits)).sum()

    random = np.random.default_rng(2)
    for index, variable in enumerate(variables):
        for _ in range(5):
            entry = tuple(random.integers(0, size) for size in variable.shape)
            step = 1e-3  # few activations pass their kink on the way
            difference = reference(variable, entry, step) - reference(variable, entry, -step)
            np.testing.assert_allclose(
                gradients[index].numpy()[entry], difference / (2 * step), rtol=1e-2, atol=1e-2
            )


@of_units_in_order
def test_log_prob_of_the_sampling_loop_is_differentiable(family, binary):
    layer = make(family, 5, 3)
    given = binary(4, 3)
    with tf.GradientTape(persistent=True) as tape:
        distribution = layer.distribution(given)
        sample, on_the_way = distribution.experimental_sample_and_log_prob(2, seed=0)
        in_parallel = distribution.log_prob(sample)
    for variable in layer.trainable_variables:
        np.testing.assert_allclose(
            tape.gradient(on_the_way, variable.value),
            tape.gradient(in_parallel, variable.value),
            atol=1e-4,
        )


def test_units_of_vanishing_probability_are_never_drawn():
    # Plain uniform numbers contain exact zeros, once in 2^23: 16 would be expected here,
    # none is found by chance once in 9 million.
    prior = make("sbn", 2**20, None)
    prior.bias.assign(tf.fill([2**20], -60.0))
    on = sum(float(tf.reduce_sum(prior.distribution().sample(8, seed=seed))) for seed in range(16))
    assert on == 0.0


def test_common_noise_is_shared_by_the_rows(binary):
    layer = make("nade", 5, 3)
    given = np.repeat(binary(1, 3), 4, axis=0)
    noise = uniform_noise((10, 1, 5), 0)
    sample, log_prob = layer.distribution(given).sample_from_noise(noise)
    assert sample.shape == [10, 4, 5]
    np.testing.assert_array_equal(sample, np.repeat(sample[:, :1], 4, axis=1))
    np.testing.assert_array_equal(log_prob, np.repeat(log_prob[:, :1], 4, axis=1))


def test_validate_args_rejects_values_that_are_not_binary():
    distribution = layers.FactorizedBernoulli(tf.zeros([3]), validate_args=True)
    distribution.log_prob([0.0, 1.0, 1.0])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"values in \{0, 1\}"):
        distribution.log_prob([0.0, 0.5, 1.0])


def test_layers_stack_as_keras_layers(binary):
    model = keras.Sequential([keras.Input([6]), layers.SBN(4), layers.DSBN(3, hidden_units=7)])
    sample = keras.ops.convert_to_numpy(model(binary(10, 6)))
    assert sample.shape == (10, 3)
    assert set(np.unique(sample)) <= {0.0, 1.0}


@pytest.mark.parametrize("units", [0, -1, 2.5, True])
def test_units_must_be_a_positive_integer(units):
    with pytest.raises(ValueError, match="positive integer"):
        layers.SBN(units)


def test_unknown_family_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'arsbn'"):
        layers.get("arsb", 3)
