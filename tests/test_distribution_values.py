"""Values and parameters of every kind: TFP's distributions are the referee."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from distributions import BATCH, KINDS, UNITS, bernoullis, both, close, of_all, of_binary

from rws_keras import layers
from rws_keras.errors import UserError

tfd = tfp.distributions


VALUE_DTYPES = ["bool", "uint8", "int32", "int64", "float16", "bfloat16", "float64"]


@of_all
@pytest.mark.parametrize("dtype", VALUE_DTYPES)
def test_values_of_every_dtype(kind, dtype):
    ours, theirs = both(kind)
    value = tf.cast(kind.values(4, *BATCH), dtype)
    expected = theirs.log_prob(tf.cast(value, tf.float32))
    for form in (value, value.numpy(), value.numpy().tolist()):
        close(ours.log_prob(form), expected)
        close(ours.unnormalized_log_prob(form), expected)
        close(ours.prob(form), tf.exp(expected))
        close(tf.reduce_sum(ours.unit_log_probs(form), axis=-1), expected)
        known = np.ones(value.shape, bool)
        completed = ours.complete(form, known, np.full(value.shape, 0.3, np.float32))
        close(completed, tf.cast(value, tf.float32))
        close(ours.conditional_mean(form), ours.conditional_mean(tf.cast(value, tf.float32)))


@of_all
def test_parameters_of_float64(kind):
    single = kind.parameters()
    double = {name: tf.constant(value, tf.float64) for name, value in single.items()}
    ours, theirs = kind.ours(**double), kind.theirs(**double)
    value = kind.values(4, *BATCH)
    assert ours.dtype == tf.float64
    close(ours.log_prob(value), theirs.log_prob(tf.cast(value, tf.float64)), rtol=1e-12, atol=1e-12)
    sample, log_prob = ours.experimental_sample_and_log_prob(6, seed=3)
    assert sample.dtype == log_prob.dtype == tf.float64
    close(log_prob, ours.log_prob(sample), rtol=1e-12, atol=1e-12)
    close(sample, kind.ours(**single).sample(6, seed=3))
    in_graph = tf.function(lambda: kind.ours(**double).experimental_sample_and_log_prob(6, seed=3))
    for eager, traced in zip((sample, log_prob), in_graph(), strict=True):
        close(traced, eager, rtol=1e-12, atol=1e-12)
    with tf.GradientTape() as tape:
        tape.watch(double)
        log_prob = kind.ours(**double).log_prob(value)
    gradients = tape.gradient(log_prob, double)
    assert {gradient.dtype for gradient in gradients.values()} == {tf.float64}


@of_all
@pytest.mark.parametrize("convert", [
    lambda x: tf.cast(x, tf.float16),
    lambda x: tf.Variable(tf.cast(x, tf.bfloat16)),
    lambda x: x.astype(np.float64),
    lambda x: x.tolist(),
    lambda x: np.ones(x.shape, int),
    lambda x: keras.Variable(x),
], ids=["float16", "bfloat16 variable", "array", "list", "integers", "Keras variable"])  # fmt: skip
def test_other_parameters_are_float32(kind, convert):
    parameters = {name: convert(value) for name, value in kind.parameters().items()}
    ours = kind.ours(**parameters)
    rounded = {name: np.asarray(value, np.float32) for name, value in parameters.items()}
    value = kind.values(*BATCH)
    returned = tf.function(lambda distribution: distribution)(ours)
    assert ours.dtype == ours[1:].dtype == returned.dtype == tf.float32
    assert ours.log_prob(value).dtype == tf.float32
    close(ours.log_prob(value), kind.theirs(**rounded).log_prob(value))
    close(ours[1:].log_prob(value[1:]), kind.theirs(**rounded).log_prob(value)[1:])
    close(ours.copy().sample(2, seed=0), kind.ours(**rounded).sample(2, seed=0))


@of_binary
def test_values_between_0_and_1_and_all_gradients(kind):
    random = np.random.default_rng(2)
    value = np.clip(random.uniform(-0.5, 1.5, (4, *BATCH, UNITS)), 0.0, 1.0)
    value = tf.constant(value.astype(np.float32))
    parameters = {name: tf.constant(x) for name, x in kind.parameters().items()}

    def differentiated(make):
        with tf.GradientTape() as tape:
            tape.watch([parameters, value])
            log_prob = make(**parameters).log_prob(value)
        return log_prob, *tf.nest.flatten(tape.gradient(log_prob, [parameters, value]))

    for ours, theirs in zip(differentiated(kind.ours), differentiated(kind.theirs), strict=True):
        close(ours, theirs, atol=1e-4)
    units = tf.reduce_sum(kind.ours(**parameters).unit_log_probs(value), axis=-1)
    close(units, kind.theirs(**parameters).log_prob(value))


def test_log_prob_between_0_and_1_in_figures():
    half = layers.FactorizedBernoulli([2.0]).log_prob([0.5])
    np.testing.assert_allclose(
        half, 0.5 * np.log(1 / (1 + np.exp(-2)) / (1 + np.exp(2))), rtol=1e-6
    )


@of_all
def test_second_derivatives(kind):
    parameters = {name: tf.constant(x) for name, x in kind.parameters(batch=()).items()}
    value = tf.constant(kind.values())

    def curvature(make):
        first = parameters[kind.first]
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(first)
            with tf.GradientTape() as inner:
                inner.watch(first)
                log_prob = make(**{**parameters, kind.first: first}).log_prob(value)
            gradient = inner.gradient(log_prob, first)
        return outer.jacobian(gradient, first, experimental_use_pfor=False)

    close(curvature(kind.ours), curvature(kind.theirs))


INFINITE = np.array([np.inf, -np.inf, np.inf, -np.inf, 0.5], np.float32)


@of_binary
def test_certain_and_impossible_values(kind):
    parameters = {name: tf.constant(x) for name, x in kind.parameters(batch=()).items()}
    parameters[kind.first] = tf.constant(INFINITE)
    value = np.float32([[1, 0, 1, 0, 1], [1, 0, 1, 0, 0], [1, 1, 1, 0, 1], [0, 1, 0, 1, 1]])

    def differentiated(make):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            log_prob = make(**parameters).log_prob(value)
        return log_prob, tape.gradient(log_prob, parameters)

    (ours, gradients), (theirs, expected) = map(differentiated, (kind.ours, kind.theirs))
    close(ours, theirs)
    assert np.isneginf(ours[2:]).all()
    assert np.isfinite(ours[:2]).all()
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name
        close(gradient, expected[name])
    distribution = kind.ours(**parameters)
    assert np.isneginf(distribution.unit_log_probs(value).numpy()[2, 1])
    close(tf.reduce_sum(distribution.unit_log_probs(value), axis=-1), theirs)
    sample, log_prob = distribution.experimental_sample_and_log_prob(50, seed=0)
    np.testing.assert_array_equal(sample[:, :4], np.tile([1, 0, 1, 0], (50, 1)))
    assert np.isfinite(log_prob).all()


def test_statistics_at_infinite_logits():
    logits = tf.constant([INFINITE, -INFINITE, np.full(UNITS, np.inf, np.float32)])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        ours = layers.FactorizedBernoulli(logits)
        entropy = ours.entropy()
    theirs = bernoullis(logits)
    assert entropy[2] == 0.0
    for name in ("entropy", "mean", "mode", "variance", "stddev"):
        close(getattr(ours, name)(), getattr(theirs, name)())
    assert np.isfinite(tape.gradient(entropy, logits)).all()
    assert np.isnan(layers.FactorizedBernoulli([np.nan]).entropy())


# What is refused.


@of_all
def test_values_of_other_widths(kind):
    ours, _ = both(kind)
    for width in (1, UNITS - 1, UNITS + 1):
        value = np.zeros([*BATCH, width], np.float32)
        for method in (ours.log_prob, ours.prob, ours.unit_log_probs, ours.sample_from_noise):
            with pytest.raises(UserError, match=r"expected shape \[\.\.\., 5\], got \(3, 2, "):
                method(value)
    with pytest.raises(UserError, match="The last axis of `value`"):
        ours.log_prob(1.0)
    with pytest.raises(UserError, match="`value` must hold real numbers, got complex64"):
        ours.log_prob(tf.zeros([*BATCH, UNITS], tf.complex64))


WRONG = [
    (
        "factorized",
        "logits",
        np.float32(1.0),
        "must be the units; got a scalar",
    ),
    ("factorized", "logits", np.array(["a"]), "`logits` must hold real numbers, got string"),
    ("factorized", "logits", tf.complex([1.0], [0.0]), "must hold real numbers, got complex64"),
    (
        "autoregressive",
        "shift",
        np.float32(1.0),
        "must be the units; got a scalar",
    ),
    ("autoregressive", "kernel", np.zeros([4, 5]), r"`kernel` must have shape \[5, 5\]"),
    ("autoregressive", "kernel", np.zeros([2, 5, 5]), r"got \(2, 5, 5\)"),
    ("autoregressive", "kernel", np.float32(0.0), r"`kernel` must have shape \[5, 5\]"),
    ("nade", "encoder", np.zeros([5, 4]), r"`encoder` must have shape \[5, 3\]"),
    ("nade", "decoder", np.zeros([3, 5]), r"`decoder` must have shape \[5, 3\]"),
    ("gaussian", "scale", np.ones([4]), "must have the same size, got"),
]


@pytest.mark.parametrize(("name", "parameter", "value", "message"), WRONG)
def test_wrong_parameters(name, parameter, value, message):
    with pytest.raises(UserError, match=message):
        both(KINDS[name])[0].copy(**{parameter: value})


@of_binary
def test_validation_refuses_what_is_not_binary(kind):
    ours = kind.ours(**kind.parameters(), validate_args=True)
    value = kind.values(*BATCH)
    close(ours.log_prob(value.astype(bool)), both(kind)[1].log_prob(value))
    in_graph = tf.function(lambda distribution, value: distribution.log_prob(value))
    for wrong in (0.5, 2.0, -1.0, np.nan):
        value[0, 0, 0] = wrong
        for call in (
            lambda: ours.log_prob(value),
            lambda: ours[:1].prob(value[:1]),
            lambda: in_graph(ours, value),
        ):
            with pytest.raises(tf.errors.InvalidArgumentError, match=r"values in \{0, 1\}"):
                call()


@pytest.mark.parametrize("scale", [-1.0, 0.0, np.nan])
def test_validation_refuses_scales_that_are_not_positive(scale):
    variable = tf.Variable([1.0, 1.0])
    ours = layers.DiagonalGaussian([0.0, 0.0], variable, validate_args=True)
    ours.sample(seed=0)
    variable.assign([1.0, scale])
    for call in (
        lambda: layers.DiagonalGaussian([0.0, 0.0], [1.0, scale], validate_args=True),
        lambda: ours.log_prob([0.0, 0.0]),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match="The scale must be positive"):
            call()


@pytest.fixture
def checked_numerics():
    tf.debugging.enable_check_numerics()
    yield
    tf.debugging.disable_check_numerics()


@of_all
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_no_nan_is_made_on_the_way(kind, graph, checked_numerics):
    # Traces made meanwhile keep the checks: no other test has six units.
    parameters = {name: tf.constant(x) for name, x in kind.parameters(batch=(), units=6).items()}
    if kind.binary:
        parameters[kind.first] = tf.constant([1e30, -1e30, 200.0, -200.0, 1.0, 0.0])

    def compute(value):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(parameters)
            ours = kind.ours(**parameters)
            results = [ours.log_prob(value), tf.reduce_sum(ours.unit_log_probs(value))]
            results.append(ours.experimental_sample_and_log_prob(4, seed=0)[1])
            if ours.units_are_independent:
                results += [ours.entropy(), ours.kl_divergence(kind.ours(**parameters))]
                results += [ours.mean(), ours.variance(), ours.covariance()]
        return results, [
            tape.gradient(result, parameters, unconnected_gradients="zero")
            for result in results[:5]
        ]

    results, gradients = (tf.function(compute) if graph else compute)(kind.values(4, units=6))
    for tensor in tf.nest.flatten([results, gradients]):
        assert np.isfinite(tensor).all()
