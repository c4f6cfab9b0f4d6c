"""Our distributions in graphs, in SavedModels and within TFP's joint distributions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from distributions import BATCH, KINDS, UNITS, both, close, of, of_all
from marks import slow_except

from rws_keras import layers

tfd = tfp.distributions


def specs(kind, known):
    shapes = [value.shape for value in [*kind.parameters().values(), kind.values(4, *BATCH)]]
    if known == "nothing":
        return [tf.TensorSpec(None)] * len(shapes)
    if known == "rank":
        return [tf.TensorSpec([None] * len(shape)) for shape in shapes]
    return [tf.TensorSpec([*[None] * (len(s) - 1), s[-1]] if len(s) > 2 else s) for s in shapes]


# The network of a PixelCNN must be known statically: tests/test_pixelcnn.py.
@of(*(name for name in KINDS if name != "pixelcnn"))
@pytest.mark.parametrize("known", ["nothing", "rank", "units"])
def test_unknown_static_shapes(kind, known):
    parameters, value = kind.parameters(), kind.values(4, *BATCH)
    eager, theirs = both(kind)

    @tf.function(input_signature=specs(kind, known))
    def graph(*arguments):
        *given, x = arguments
        ours = kind.ours(**dict(zip(parameters, given, strict=True)))
        return {
            "log_prob": ours.log_prob(x),
            "units": tf.reduce_sum(ours.unit_log_probs(x), axis=-1),
            "gradients": tf.gradients(ours.log_prob(x), given),
            "sample": ours.sample([2, 3], seed=1),
            "both": ours.experimental_sample_and_log_prob(3, seed=1),
            "batch": ours.batch_shape_tensor(),
            "event": ours.event_shape_tensor(),
            "entropy": ours.entropy() if ours.units_are_independent else tf.zeros(BATCH),
        }

    found = graph(*parameters.values(), value)
    close(found["log_prob"], theirs.log_prob(value))
    close(found["units"], theirs.log_prob(value))
    close(found["sample"], eager.sample([2, 3], seed=1))
    close(found["both"][1], eager.log_prob(found["both"][0]))
    assert found["batch"].numpy().tolist() == list(BATCH)
    assert found["event"].numpy().tolist() == [UNITS]
    close(found["entropy"], eager.entropy() if eager.units_are_independent else np.zeros(BATCH))
    watched = [tf.constant(parameter) for parameter in parameters.values()]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        log_prob = kind.theirs(*watched).log_prob(value)
    for ours, expected in zip(found["gradients"], tape.gradient(log_prob, watched), strict=True):
        close(ours, expected, atol=1e-4)
    if known != "units":
        # Wrong units cannot be seen beforehand here.
        with pytest.raises(tf.errors.InvalidArgumentError):
            graph(*parameters.values(), value[..., :1])


@of_all
def test_into_and_out_of_functions(kind):
    ours, theirs = both(kind)
    value = kind.values(*BATCH)
    expected = theirs.log_prob(value)
    returned = tf.function(lambda d: d.copy())(ours)
    assert type(returned) is kind.ours
    close(returned.log_prob(value), expected)
    close(tf.function(lambda d, x: d.log_prob(x))(ours, value), expected)
    flat = tf.nest.flatten(ours, expand_composites=True)
    packed = tf.nest.pack_sequence_as(ours, flat, expand_composites=True)
    close(packed.log_prob(value), expected)
    _, looped = tf.while_loop(lambda i, _: i < 3, lambda i, d: (i + 1, d.copy()), (0, ours))
    close(looped.log_prob(value), expected)


@of_all
@pytest.mark.filterwarnings("ignore:Encoding a StructuredValue")
def test_saved_with_a_function(kind, tmp_path):
    ours, theirs = both(kind)
    value = kind.values(*BATCH)
    module = tf.Module()
    module.score = tf.function(lambda d, x: (d, d.log_prob(x)))
    module.score(ours, value)
    tf.saved_model.save(module, tmp_path / "module")
    returned, log_prob = tf.saved_model.load(tmp_path / "module").score(ours, value)
    close(log_prob, theirs.log_prob(value))
    close(returned.log_prob(value), log_prob)


@of_all
def test_variables_stay_variables(kind):
    variables = {name: tf.Variable(value) for name, value in kind.parameters().items()}
    ours = kind.ours(**variables)
    value = kind.values(*BATCH)
    assert len(ours.trainable_variables) == len(variables)
    assert len(tfd.Independent(ours, 1).trainable_variables) == len(variables)
    log_prob_in_graph = tf.function(lambda d: d.log_prob(value))
    for log_prob in (lambda: ours.log_prob(value), lambda: log_prob_in_graph(ours)):
        with tf.GradientTape() as tape:
            result = log_prob()
        gradients = tape.gradient(result, list(variables.values()))
        assert all(gradient is not None for gradient in gradients)
    with tf.GradientTape() as tape:
        result = ours[1:].log_prob(value[1:])
    assert tape.gradient(result, variables[kind.first]) is not None
    variables[kind.first].assign_add(tf.ones_like(variables[kind.first]))
    now = {name: variable.numpy() for name, variable in variables.items()}
    close(ours.log_prob(value), kind.theirs(**now).log_prob(value))
    constrained = tfp.util.TransformedVariable(np.full(UNITS, 0.7, np.float32), tfp.bijectors.Exp())
    name = "scale" if "scale" in kind.shapes else kind.first
    ours = kind.ours(**{**kind.parameters(), name: constrained})
    _, theirs = both(kind, **{name: constrained.numpy()})
    close(ours.log_prob(value), theirs.log_prob(value))
    assert len(ours.trainable_variables) == 1


@of_all
def test_keras_variables_are_watched(kind):
    variables = {name: keras.Variable(value) for name, value in kind.parameters().items()}
    with tf.GradientTape() as tape:
        log_prob = kind.ours(**variables).log_prob(kind.values(*BATCH))
    gradients = tape.gradient(log_prob, [variable.value for variable in variables.values()])
    assert all(gradient is not None for gradient in gradients)


# Samples.


@of_all
def test_samples_carry_their_log_probability(kind):
    ours, theirs = both(kind)
    for shape in ((), 4, (2, 3), [0]):
        sample, log_prob = ours.experimental_sample_and_log_prob(shape, seed=3)
        close(sample, ours.sample(shape, seed=3))
        close(log_prob, ours.log_prob(sample), atol=1e-4)
        close(log_prob, theirs.log_prob(sample), atol=1e-4)


SEEDS = [np.int64(7), np.uint8(7), np.array(7), tf.constant(7), [0, 7], (0, 7), np.array([0, 7]),
         tf.constant([0, 7]), tf.constant([0, 7], tf.int64)]  # fmt: skip


@of_all
def test_one_seed_one_sample(kind):
    ours, _ = both(kind)
    expected = ours.sample(9, seed=7)
    for seed in SEEDS:
        close(ours.sample(9, seed=seed), expected)
    close(tf.function(lambda: ours.sample(9, seed=7))(), expected)
    close(tf.function(lambda seed: ours.sample(9, seed=seed))(tf.constant([0, 7])), expected)

    def stream():
        return tfp.util.SeedStream(1, salt="test")

    from_stream = ours.sample(9, seed=stream())
    close(ours.sample(9, seed=stream()), from_stream)
    close(ours.experimental_sample_and_log_prob(9, seed=stream())[0], from_stream)
    later = stream()
    later()
    for seed in (later, 2**80, None, tfp.util.SeedStream(None, salt="test")):
        # 270 units, of which each differs with a probability of far more than a tenth.
        assert not np.array_equal(ours.sample(9, seed=seed), from_stream)


JOINT = {
    "Sequential": tfd.JointDistributionSequential,
    "SequentialAutoBatched": tfd.JointDistributionSequentialAutoBatched,
    "Named": tfd.JointDistributionNamed,
    "NamedAutoBatched": tfd.JointDistributionNamedAutoBatched,
}


JOINT_CASES = [(joint, name) for joint in JOINT for name in KINDS]
QUICK = [case for case in JOINT_CASES if "AutoBatched" not in case[0] or case[1] == "factorized"]


@pytest.mark.filterwarnings("ignore:Saw Tensor seed")
@pytest.mark.parametrize("case", slow_except(QUICK, JOINT_CASES), ids="-".join)
def test_joint_distributions(case):
    joint, kind = case[0], KINDS[case[1]]
    parameters = kind.parameters(batch=())

    def child(a, make=kind.ours):
        return make(**{**parameters, kind.first: parameters[kind.first] + 0.5 * a})

    model = {"a": kind.ours(**parameters), "b": lambda a: child(a)}
    distribution = JOINT[joint](model if "Named" in joint else list(model.values()))

    def split(sample):
        return (sample["a"], sample["b"]) if "Named" in joint else sample

    for shape, seed in (((), 3), (40, 3), ((5, 8), (3, 4))):
        sample = distribution.sample(shape, seed=seed)
        a, b = split(sample)
        assert a.shape == b.shape == [*np.atleast_1d(shape).astype(int), UNITS]
        expected = kind.theirs(**parameters).log_prob(a) + child(a, kind.theirs).log_prob(b)
        close(distribution.log_prob(sample), expected, atol=1e-4)
        if shape:
            # Each row is a draw of its own.
            assert len(np.unique(np.reshape(a, [40, UNITS]), axis=0)) > 4
    sample, log_prob = distribution.experimental_sample_and_log_prob(4, seed=3)
    close(log_prob, distribution.log_prob(sample), atol=1e-4)


@of_all
def test_vectorized_map(kind):
    ours, theirs = both(kind)
    value = tf.constant(kind.values(4, *BATCH))
    close(tf.vectorized_map(ours.log_prob, value), theirs.log_prob(value))
    seeds = tf.constant([[1, 2], [3, 4]])
    drawn = tf.vectorized_map(lambda seed: ours.sample(seed=seed), seeds)
    close(drawn, tf.stack([ours.sample(seed=seed) for seed in seeds]))


def test_graph_gradients_through_gaussian_samples():
    @tf.function
    def gradients(loc, scale):
        sample = layers.DiagonalGaussian(loc, scale).sample(6, seed=2)
        return sample, tf.gradients(tf.reduce_sum(sample), [loc, scale])

    loc, scale = KINDS["gaussian"].parameters(batch=()).values()
    sample, (by_loc, by_scale) = gradients(tf.constant(loc), tf.constant(scale))
    close(by_loc, np.full(UNITS, 6.0))
    close(by_scale, tf.reduce_sum((sample - loc) / scale, axis=0), atol=1e-4)
