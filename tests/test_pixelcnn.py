"""The PixelCNN layer: against its equation, pixel by pixel, and against enumeration."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exact import all_vectors, exact_log_likelihood, randomize
from graphs import optimized_graphs
from scipy import stats
from test_last_bit import sums_in_no_fixed_order

from rws_keras import HelmholtzMachine, layers, objectives
from rws_keras.errors import UserError
from rws_keras.layers.noise import uniform_noise

SMALL = {"family": "pixelcnn", "image_shape": [2, 3], "filters": 3, "blocks": 2}
VALUES = all_vectors(6)


def make(given_units=None, scale=0.6, **options):
    """A layer with random weights."""
    options = {"image_shape": [2, 3], "filters": 3, "blocks": 2, **options}
    layer = layers.PixelCNN(int(np.prod(options["image_shape"])), **options)
    layer.build(None if given_units is None else (None, given_units))
    random = np.random.default_rng(0)
    for variable in layer.trainable_variables:
        variable.assign(random.normal(0.0, scale, variable.shape))
    return layer


def reference_logits(layer, value, given=None):
    """One pixel, one neighbour, one filter bank at a time, in float64."""
    weights = {v.name: v.numpy().astype(np.float64) for v in layer.variables}
    rows, columns = layer.image_shape
    images = np.reshape(value, [-1, rows, columns, 1]).astype(np.float64)

    def convolve(images, name, size, itself):
        reach = size // 2
        kernel = np.reshape(weights[name], [reach + 1, size, images.shape[-1], layer.filters])
        found = np.zeros([*images.shape[:3], layer.filters])
        for row in range(rows):
            for column in range(columns):
                for i in range(max(0, row - reach), row + 1):
                    for j in range(max(0, column - reach), min(columns, column + reach + 1)):
                        before = i < row or j < column or (itself and j == column)
                        if before:
                            entry = kernel[i - row + reach, j - column + reach]
                            found[:, row, column] += images[:, i, j] @ entry
        return found

    features = convolve(images, "image_kernel", layer.image_kernel_size, itself=False)
    features += np.reshape(weights["image_bias"], [rows, columns, layer.filters])
    for block in range(layer.blocks):
        seen = np.maximum(features, 0.0)
        seen = convolve(seen, f"block_kernel_{block}", layer.kernel_size, itself=True)
        features = features + seen + weights[f"block_bias_{block}"]
    logits = np.maximum(features, 0.0) @ weights["readout"][:, 0] + 0.0
    shift = weights["bias"] + (0.0 if given is None else given @ weights["kernel"])
    return np.reshape(logits, value.shape) + shift


SHAPES = pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_shape": [1, 6]},
        {"image_shape": [6, 1]},
        {"image_shape": [1, 1]},
        {"image_shape": [7, 6], "image_kernel_size": 5, "kernel_size": 3, "filters": 4},
        {"image_shape": [6, 7], "image_kernel_size": 3, "kernel_size": 5, "blocks": 1},
    ],
    ids=lambda options: "-".join(map(str, options.get("image_shape", ["default"]))),
)


@SHAPES
def test_logits_and_the_sampling_loop_equal_the_equation(options, binary):
    layer = make(4, **options)
    given, value = binary(8, 4), binary(8, layer.units, seed=1)
    distribution = layer.distribution(given)
    expected = reference_logits(layer, value, given)
    np.testing.assert_allclose(distribution.conditional_logits(value), expected, atol=1e-4)

    noise = uniform_noise((8, layer.units), 5)
    sample, log_prob = distribution.sample_from_noise(noise)
    logits = reference_logits(layer, sample.numpy(), given)
    expected = 1 / (1 + np.exp(-logits))
    # Where the noise is not within rounding of the threshold the sample is determined.
    clear = np.abs(expected - noise.numpy()) > 1e-5
    np.testing.assert_array_equal(sample.numpy()[clear], (noise.numpy() < expected)[clear])
    signs = 1.0 - 2.0 * sample.numpy()
    np.testing.assert_allclose(log_prob, -np.logaddexp(0, signs * logits).sum(-1), atol=1e-3)


@pytest.mark.parametrize("given_units", [None, 3])
def test_probabilities_sum_to_one_and_samples_follow_them(given_units):
    layer = make(given_units)
    given = None if given_units is None else np.array([1, 0, 1], np.float32)
    distribution = layer.distribution(given)
    probabilities = np.exp(distribution.log_prob(VALUES).numpy().astype(np.float64))
    np.testing.assert_allclose(probabilities.sum(), 1.0, rtol=1e-5)
    # Chi-square with seed 3: false-alarm rate 1e-4.
    samples = distribution.sample(50_000, seed=3).numpy()
    counts = np.bincount((samples @ 2 ** np.arange(5, -1, -1)).astype(int), minlength=64)
    expected = 50_000 * probabilities / probabilities.sum()
    enough = expected >= 5
    found = [*counts[enough], counts[~enough].sum()]
    wanted = [*expected[enough], expected[~enough].sum() + 1e-9]
    assert stats.chisquare(found, np.multiply(wanted, sum(found) / sum(wanted))).pvalue > 1e-4


def test_gradients_equal_finite_differences(binary):
    layer = make(4)
    given, value = binary(5, 4), binary(5, 6, seed=1)
    variables = [variable.value for variable in layer.trainable_variables]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer.distribution(given).log_prob(value))
    gradients = tape.gradient(total, variables)

    def log_prob():
        logits = reference_logits(layer, value, given)
        return -np.logaddexp(0.0, (1.0 - 2.0 * value) * logits).sum()

    random, step = np.random.default_rng(0), 1e-4
    for variable, gradient in zip(layer.trainable_variables, gradients, strict=True):
        old, direction = variable.numpy(), random.normal(size=variable.shape)
        either = []
        for sign in (1, -1):
            variable.assign(old + sign * step * direction)
            either.append(log_prob())
        variable.assign(old)
        slope = (either[0] - either[1]) / (2 * step)
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=2e-2, atol=2e-2)


def test_the_network_is_computed_once_for_all_particles(binary):
    layer = make(4, image_shape=[4, 4])
    given, value = binary(7, 5, 4), binary(5, 16, seed=1)

    def log_prob(value):
        return layer.distribution(given).log_prob(value)

    np.testing.assert_allclose(
        log_prob(value), log_prob(np.broadcast_to(value, [7, 5, 16])), atol=1e-5
    )
    graph = tf.function(log_prob).get_concrete_function(tf.constant(value)).graph
    convolved = [op.outputs[0].shape[0] for op in graph.get_operations() if op.type == "Conv2D"]
    assert convolved == [5] * 3


def test_another_number_of_rows_needs_no_new_trace(binary):
    from rws_keras.layers import pixelcnn

    layer = make(3)

    def use(layer, rows):
        return layer.distribution(binary(rows, 3)).sample(seed=0)

    use(layer, 2)
    use(layer, 3)  # here the number of rows becomes unknown
    before = pixelcnn._logits_in_order.experimental_get_tracing_count()
    for rows in (4, 5, 1):
        use(layer, rows)
    assert pixelcnn._logits_in_order.experimental_get_tracing_count() == before
    # Layers of other sizes have traces of their own, with static sizes.
    for other in ({"filters": 2}, {"blocks": 1}, {"image_shape": [3, 3]}, {"kernel_size": 5}):
        layer = make(3, **other)
        assert use(layer, 2).shape == [2, layer.units]


@pytest.fixture(scope="module")
def machine():
    """Images of two rows and three columns, and latents 3-2."""
    return randomize(
        HelmholtzMachine.from_sizes(6, [3, 2], p=[SMALL, "sbn"], q="sbn", seed=0), 1, 0.7
    )


def test_the_estimate_is_the_likelihood(machine):
    # 64 rows, z below 4.5: false-alarm rate 5e-4, seed 0.
    estimate = machine.log_likelihood(VALUES, num_particles=20_000, seed=0)
    z = (estimate.log_likelihood - exact_log_likelihood(machine, VALUES)) / estimate.standard_error
    assert np.abs(z).max() < 4.5


@pytest.mark.parametrize("jit_compile", ["auto", True])
def test_training_raises_the_exact_likelihood(jit_compile):
    keras.utils.set_random_seed(0)
    x = np.repeat(VALUES[[13, 49, 42, 22]], 50, axis=0)
    machine = HelmholtzMachine.from_sizes(
        6, [2], p=[{**SMALL, "filters": 8}], q="sbn", prior="sbn", seed=0
    )
    before = exact_log_likelihood(machine, x).mean()
    machine.compile(
        keras.optimizers.Adam(2e-2), objectives.ReweightedWakeSleep(5), jit_compile=jit_compile
    )
    machine.fit(x, batch_size=50, epochs=40, verbose=0)
    after = exact_log_likelihood(machine, x).mean()
    # The most is the negative entropy of four equally frequent rows, log 4.
    assert before < -3.5
    assert -1.45 < after <= -np.log(4) + 1e-4


def test_xla_is_used_for_it_only_on_demand():
    def uses_xla(layer, **arguments):
        machine = HelmholtzMachine([layer, layers.SBN(2)], [layers.SBN(2)])
        machine.compile("adam", objectives.ReweightedWakeSleep(2), **arguments)
        return machine._compiled.learn._jit_compile

    assert not uses_xla(layers.PixelCNN(9))
    assert uses_xla(layers.PixelCNN(9), jit_compile=True)
    assert uses_xla(layers.SBN(9))


def test_missing_pixels_are_drawn_given_those_before_them():
    machine = HelmholtzMachine.from_sizes(
        6, [2], p=[SMALL], q="sbn", prior="sbn", missing="marginalize", seed=0
    )
    randomize(machine, 1, 0.7)
    x = VALUES[[5, 40, 62]].copy()
    x[0, 1] = x[1, [0, 5]] = x[2, 3] = np.nan
    # z below 4.5 for three rows: false-alarm rate 2e-5, seed 0.
    estimate = machine.log_likelihood(x, num_particles=50_000, seed=0)
    log_p = exact_log_likelihood(machine, VALUES)
    for row, found, error in zip(x, *map(np.asarray, estimate[:2]), strict=True):
        agree = ((row == VALUES) | np.isnan(row)).all(axis=1)
        assert abs(found - np.logaddexp.reduce(log_p[agree])) < 4.5 * error


def test_saving(machine, tmp_path):
    expected = machine.predict(VALUES, verbose=0)
    machine.save(tmp_path / "machine.keras")
    machine.save_to_preset(tmp_path / "preset")
    loaded = keras.models.load_model(tmp_path / "machine.keras")
    np.testing.assert_array_equal(loaded.predict(VALUES, verbose=0), expected)
    loaded = HelmholtzMachine.from_preset(tmp_path / "preset")
    np.testing.assert_allclose(loaded.predict(VALUES, verbose=0), expected, atol=1e-5)
    machine.export(tmp_path / "exported", num_particles=10_000, verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    scores = exported.signatures["serving_default"](x=tf.constant(VALUES))
    z = scores["log_likelihood"] - exact_log_likelihood(machine, VALUES)
    # 64 rows, false-alarm rate 5e-4.
    assert np.abs(z / scores["standard_error"]).max() < 4.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 6}, "6 units, which are no square image, needs their `image_shape`"),
        ({"units": 6, "image_shape": [2, 2]}, "has 4 pixels, but the layer has 6 units"),
        ({"units": 6, "image_shape": 6}, r"must be \[height, width\], got 6"),
        ({"units": 6, "image_shape": "23"}, r"must be \[height, width\], got '23'"),
        ({"units": 6, "image_shape": [6]}, r"must be \[height, width\], got \[6\]"),
        ({"units": 6, "image_shape": [-2, -3]}, "`image_shape` must be a positive integer"),
        ({"units": 9, "filters": 0}, "`filters` must be a positive integer"),
        ({"units": 9, "blocks": 1.5}, "`blocks` must be a positive integer"),
        ({"units": 9, "kernel_size": 4}, "`kernel_size` must be odd"),
        ({"units": 9, "image_kernel_size": 1}, "`image_kernel_size` must be an integer of at"),
        ({"units": 9, "choices": [3, 6]}, "takes no `choices`"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        layers.PixelCNN(**arguments)


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("shift", lambda x: x[:5], "one unit for each of the 6 pixels of `image_bias`, got 5"),
        ("kernels", lambda x: x[..., :2], "`kernels` must have shape"),
        ("kernels", lambda x: x[:1], "`biases` must have shape"),
        ("kernels", lambda x: x[:, :, :2], "a middle column; got 2 rows and 2 columns"),
        ("image_kernel", lambda x: x[:1], "at least two rows, .* got 1 rows and 7 columns"),
    ],
)
def test_parameters_that_do_not_fit(name, changed, message):
    parameters = dict(make().distribution().parameters)
    parameters[name] = changed(parameters[name])
    with pytest.raises(UserError, match=message):
        layers.ConvolutionalAutoregressiveBernoulli(**parameters)


def test_the_shapes_of_the_network_must_be_known():
    parameters = dict(make().distribution().parameters)

    def log_prob(shift, kernel, value):
        changed = {**parameters, "shift": shift, "image_kernel": kernel}
        return layers.ConvolutionalAutoregressiveBernoulli(**changed).log_prob(value)

    arguments = parameters["shift"], parameters["image_kernel"], VALUES
    unknown, known = tf.TensorSpec(None), tf.TensorSpec(arguments[1].shape)
    graph = tf.function(log_prob, autograph=False, input_signature=[unknown, known, unknown])
    np.testing.assert_allclose(graph(*arguments), log_prob(*arguments), atol=1e-5)
    # Rows of another length are no images.
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph(*arguments[:2], VALUES[:, :3])
    graph = tf.function(log_prob, autograph=False, input_signature=[unknown] * 3)
    with pytest.raises(UserError, match="shape of `image_kernel` must be known statically"):
        graph(*arguments)


def test_forbidden_entries_are_not_used():
    parameters = dict(make().distribution().parameters)
    changed = {name: np.array(parameters[name]) for name in ("image_kernel", "kernels")}
    changed["image_kernel"][-1, 3:] = np.nan
    changed["kernels"][:, -1, 2:] = np.inf
    ours, theirs = (
        layers.ConvolutionalAutoregressiveBernoulli(**each)
        for each in ({**parameters, **changed}, parameters)
    )
    np.testing.assert_array_equal(ours.log_prob(VALUES), theirs.log_prob(VALUES))
    np.testing.assert_array_equal(ours.sample(20, seed=0), theirs.sample(20, seed=0))


@pytest.mark.parametrize("graph", [False, True])
def test_no_rows(graph):
    layer = make(3)
    kernel = layer.image_kernel.value

    def of(rows):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            distribution = layer.distribution(tf.zeros([tf.shape(rows)[0], 3]))
            log_prob = distribution.log_prob(rows)
            total = tf.reduce_sum(log_prob)
        return log_prob, tape.gradient(total, kernel), distribution.sample(seed=0)

    if graph:
        of = tf.function(of, input_signature=[tf.TensorSpec([None, 6])])
    log_prob, gradient, sample = of(tf.zeros([0, 6]))
    assert (log_prob.shape, sample.shape) == ([0], [0, 6])
    np.testing.assert_array_equal(gradient, tf.zeros_like(gradient))


def test_all_sums_have_a_fixed_order(machine):
    machine = keras.models.clone_model(machine)
    machine.compile("adam", objectives.ReweightedWakeSleep(4))
    graphs = optimized_graphs(lambda: machine.fit(VALUES, batch_size=32, verbose=0))
    assert any(node.op == "Conv2D" for graph in graphs for node in graph.node)
    assert [name for graph in graphs for name in sums_in_no_fixed_order(graph)] == []


def test_pixels_are_no_choices():
    with pytest.raises(UserError, match="ConvolutionalAutoregressiveBernoulli cannot be choices"):
        layers.Choices(make().distribution(), [2, 4])


def test_default_image_shape_and_config():
    assert layers.PixelCNN(784).get_config()["image_shape"] == [28, 28]
    layer = layers.PixelCNN(6, image_shape=np.array([2, 3]), filters=3, blocks=2)
    layer = layers.PixelCNN.from_config(layer.get_config())
    assert (layer.image_shape, layer.filters, layer.blocks) == ((2, 3), 3, 2)
