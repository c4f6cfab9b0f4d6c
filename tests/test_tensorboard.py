"""What TensorBoard shows of a run, compared with what it should be."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from rws_keras import HelmholtzMachine
from rws_keras.callbacks import TensorBoard, log_results, monitoring, plots
from rws_keras.errors import UserError
from rws_keras.models.particles import Particles
from rws_keras.models.unit_activity import ACTIVE, unit_activity
from rws_keras.objectives import ReweightedWakeSleep

PARAMETERS = {"optimizer.name": "adam", "epochs": 2}


def read(directory):
    """What TensorBoard's own reader finds in a directory."""
    accumulator = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    return accumulator.Reload()


def value(accumulator, tag, step=-1):
    """The value of a tag, the last one by default."""
    return tf.make_ndarray(accumulator.Tensors(tag)[step].tensor_proto)


def description(accumulator, tag):
    return accumulator.SummaryMetadata(tag).summary_description


def pixels(accumulator, tag):
    return tf.io.decode_png(value(accumulator, tag)[2]).numpy()


def make(latents=(5, 3), visible=12, **families):
    machine = HelmholtzMachine.from_sizes(visible, list(latents), seed=0, **families)
    machine.compile(
        keras.optimizers.Adam(1e-2), ReweightedWakeSleep(5), jit_compile=False, num_particles=10
    )
    return machine


def log(machine, board):
    """Logs an epoch without training."""
    board.set_model(machine)
    board.on_train_begin()
    board.on_epoch_end(0, {})
    board.on_train_end()


NAMES = [f"answer {letter}" for letter in "abcdefghijkl"]


@pytest.fixture(scope="module")
def x():
    rows = (np.random.default_rng(0).random((60, 12)) < 0.4).astype(np.uint8)
    rows[:, 1] = rows[:, 0]
    return rows


@pytest.fixture(scope="module")
def table(x, tmp_path_factory):
    """A machine trained on a table, its history, and the logs."""
    directory = tmp_path_factory.mktemp("table")
    machine = make()
    board = TensorBoard(
        directory,
        x[:40],
        hyperparameters=PARAMETERS,
        run_name="the run",
        reference=x,
        column_names=NAMES,
    )
    history = machine.fit(x, epochs=2, validation_data=x, callbacks=[board], verbose=0).history
    for each in ("validation", "test"):
        result = machine.evaluate(x, num_particles=20, return_dict=True, verbose=0)
        log_results(directory, {each: result}, step=2)
    parts = {part: read(directory / part) for part in ("train", "validation", "summary")}
    return machine, history, parts, result


def test_the_effective_sample_size_is_a_share_of_k(table):
    _, history, parts, _ = table
    tag = "estimates/effective_sample_size_share"
    for part, prefix, num_particles in (("train", "", 5), ("validation", "val_", 10)):
        for step in range(2):
            share = history[f"{prefix}ess"][step] / num_particles
            np.testing.assert_allclose(value(parts[part], tag, step), share, rtol=1e-6)
            assert value(parts[part], "estimates/num_particles", step) == num_particles
        assert "K = 5 in training and K = 10 in validation" in description(parts[part], tag)


def test_the_spread_of_the_log_weights_is_that_of_numpy():
    log_p = np.random.default_rng(0).normal(size=(6, 9)).astype(np.float32)
    log_q = np.random.default_rng(1).normal(size=(6, 9)).astype(np.float32)
    particles = Particles([], [tf.constant(log_p)], [tf.constant(log_q)])
    expected = (log_p - log_q).std(axis=0, ddof=1).mean()
    found = monitoring.log_weight_spread(particles.log_weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_spread_without_particles_of_probability_zero():
    log_weights = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    expected = [log_weights[:, 0].std(ddof=1), log_weights[1:, 1].std(ddof=1)]
    log_weights[0, 1] = log_weights[1:, 2] = log_weights[:, 3] = -np.inf
    found = monitoring.log_weight_spread(tf.constant(log_weights))
    np.testing.assert_allclose(found, np.mean(expected), rtol=1e-5)
    assert np.isnan(monitoring.log_weight_spread(tf.constant(log_weights[:, 2:])))


def test_the_spread_is_that_of_the_machine(table, x):
    machine, _, parts, _ = table
    logged = value(parts["train"], "particles/log_weight_spread")
    log_weights = machine.sample_posterior(x[:40], 2000, seed=1).log_weights.numpy()
    # 8 particles of 20 data: a standard error of about 8 percent, always of the same noise.
    np.testing.assert_allclose(logged, log_weights.std(axis=0).mean(), rtol=0.25)


@pytest.mark.parametrize("family", ["sbn", "gaussian"])
def test_active_and_dead_units(family, x, tmp_path):
    """Units that copy data are active, those that look away from them dead."""
    machine = make(latents=[4], q=family, prior=family)
    kernel = np.zeros([12, 4], np.float32)
    kernel[3, 1] = 20.0
    machine.q_layers[0].kernel.assign(kernel)
    machine.q_layers[0].bias.assign([0.0, -10.0, 20.0, -20.0])
    log(machine, TensorBoard(tmp_path, x))
    train = read(tmp_path / "train")
    if family == "sbn":
        assert [int((layer > ACTIVE).sum()) for layer in unit_activity(machine, x)] == [1]
    assert value(train, "units/active_1") == 1
    assert value(train, "units/dead_1") == 3
    assert "Dead units among the 4 units" in description(train, "units/dead_1")


@pytest.mark.parametrize(("family", "rows"), [("sbn", 20), ("gaussian", 20), ("gaussian", 60)])
def test_units_that_ignore_the_data_are_dead(family, rows, x, tmp_path):
    """Also those of an upper layer, which depend on units that are noise.

    5 standard errors, 200 units: with another seed one of them is active in a run of 700.
    """
    machine = make([200, 200], p=["sbn", family], q=family, prior=family)
    lowest = machine.q_layers[0]
    for variable in lowest.variables:
        if "kernel" in variable.name:
            variable.assign(tf.zeros_like(variable))
    log(machine, TensorBoard(tmp_path, x[:rows]))
    train = read(tmp_path / "train")
    assert [value(train, f"units/active_{layer}") for layer in (1, 2)] == [0, 0]


def test_active_units_of_an_upper_layer(x, tmp_path):
    """The noise of the particles does not hide a unit that copies a copy."""
    machine = make([4, 3])
    for layer, parents in zip(machine.q_layers, (12, 4), strict=True):
        kernel = np.zeros([parents, layer.units], np.float32)
        kernel[3, 1] = 4.0
        kernel[3 if parents == 12 else 1, 1] = 4.0
        layer.kernel.assign(kernel)
        layer.bias.assign(np.full(layer.units, -2.0))
    log(machine, TensorBoard(tmp_path, x[:20]))
    train = read(tmp_path / "train")
    assert [value(train, f"units/active_{layer}") for layer in (1, 2)] == [1, 1]


def test_the_number_of_images_does_not_change_the_spread(x, tmp_path):
    machine, spreads = make(), []
    for count in (4, 100):
        log(machine, TensorBoard(tmp_path / f"{count}", x, (3, 4), num_images=count))
        train = read(tmp_path / f"{count}" / "train")
        spreads.append(value(train, "particles/log_weight_spread"))
    assert spreads[0] == spreads[1]


@pytest.mark.parametrize("count", [18, 36])
def test_reconstructions_stand_right_of_their_data(count, tmp_path, monkeypatch):
    monkeypatch.setattr(
        monitoring, "reconstructions", lambda machine, particles, seed: np.zeros([60, 12])
    )
    log(make(), TensorBoard(tmp_path, np.ones([60, 12]), (3, 4), num_images=count))
    image = pixels(read(tmp_path / "train"), "images/data_and_reconstructions")
    lines, columns = (image.shape[0] - 1) // 4, (image.shape[1] - 1) // 5
    for place in range(count):
        top, left = place // columns * 4 + 1, place % columns * 5 + 1
        data_on_the_left = 255 * (place % columns % 2 == 0)
        assert (image[top : top + 3, left : left + 4] == data_on_the_left).all()
    assert columns * (lines - 1) < count <= columns * lines


def test_many_rows_are_not_all_looked_at(tmp_path):
    board = TensorBoard(tmp_path, np.ones([1200, 12]))
    log(make(), board)
    assert len(board.x) == 1000


def test_weights_have_histograms(table):
    machine, _, parts, _ = table
    histograms = value(parts["train"], "weights/p_0/kernel")
    kernel = machine.p_layers[0].kernel.numpy()
    assert histograms[:, 2].sum() == kernel.size
    np.testing.assert_allclose([histograms[0, 0], histograms[-1, 1]], [kernel.min(), kernel.max()])
    layers = [("p", 0, machine.p_layers), ("q", 1, machine.q_layers)]
    expected = {
        f"weights/{stack}_{level}/{variable.name}"
        for stack, first, of_stack in layers
        for level, layer in enumerate(of_stack, start=first)
        for variable in layer.variables
    }
    tags = parts["train"].Tags()["tensors"]
    assert {tag for tag in tags if tag.startswith("weights/")} == expected


def test_weights_that_are_not_finite(x, tmp_path):
    """They are left out of histograms, and nothing that is drawn fails because of them."""
    machine = make()
    kernel = machine.p_layers[0].kernel
    kernel.assign(np.where(np.arange(60).reshape(5, 12) == 7, np.nan, kernel.numpy()))
    log(machine, TensorBoard(tmp_path, x, reference=x))
    histogram = value(read(tmp_path / "train"), "weights/p_0/kernel")
    assert histogram[:, 2].sum() == 59
    assert np.isfinite(histogram).all()


def test_the_prior_beside_q(table, x):
    machine, _, parts, _ = table
    prior = tf.sigmoid(machine.p_layers[-1].bias).numpy()
    np.testing.assert_allclose(monitoring.prior_mean(machine, 0), prior, rtol=1e-6)
    means = monitoring.look(machine, tf.cast(x[:40], tf.float32), 20, 0).means[-1]
    gap = np.abs(prior - means).mean()
    np.testing.assert_allclose(value(parts["train"], "units/prior_gap"), gap, rtol=1e-5)
    exact = machine.sample_posterior(x[:40], 3000, seed=1).latents[-1].numpy().mean(axis=(0, 1))
    # 20 particles of 40 data: five standard errors are 0.09 at most.
    np.testing.assert_allclose(means, exact, atol=0.09)
    np.testing.assert_array_equal(
        pixels(parts["train"], "units/top_layer_of_q_beside_prior"),
        plots.means_beside(prior, means),
    )


def test_an_autoregressive_prior_is_sampled():
    machine = HelmholtzMachine.from_sizes(6, [3], prior="arsbn")
    machine.p_layers[-1].autoregressive_kernel.assign(np.zeros([3, 3], np.float32))
    machine.p_layers[-1].bias.assign([-30.0, 0.0, 30.0])
    # 256 samples: five standard errors are 0.16.
    np.testing.assert_allclose(monitoring.prior_mean(machine, 0), [0, 0.5, 1], atol=0.16)


def test_tables_are_compared(table, x):
    machine, _, parts, _ = table
    samples = machine.sample(20_000, seed=1).x.numpy()
    marginal = np.sqrt(np.mean((samples.mean(axis=0) - x.mean(axis=0)) ** 2))
    logged = value(parts["train"], "table/marginal_error")
    # 1,000 samples: a standard error of 0.016 in each mean.
    np.testing.assert_allclose(logged, marginal, atol=0.02)
    pairs = np.triu_indices(12, k=1)
    of_samples, of_data = (np.corrcoef(rows.T)[pairs] for rows in (samples, x))
    expected = np.sqrt(np.mean((of_samples - of_data) ** 2))
    np.testing.assert_allclose(
        value(parts["train"], "table/correlation_error"), expected, atol=0.03
    )
    image = pixels(parts["train"], "table/correlations")
    size = (image.shape[1] - 6) // 2
    assert image.shape == (size, 2 * size + 6, 3)
    # Columns 0 and 1 of the data are equal, which the colour of a correlation of 1 shows.
    pixel = size // 12
    assert tuple(image[pixel + 1, 1]) == tuple(image[1, 1]) != (255, 255, 255)
    np.testing.assert_array_equal(
        pixels(parts["train"], "table/marginals"),
        plots.means_beside(x.mean(axis=0), monitoring.sample_table(machine, 0).means),
    )


def test_columns_that_differ_are_named(table, x):
    """On the card of the last epoch, the largest difference first."""
    machine, _, parts, _ = table
    card = value(parts["train"], "table/columns").item().decode()
    of_means, of_pairs = card.split("\n\n")
    samples = monitoring.sample_table(machine, 0)
    worst = np.abs(samples.means - x.mean(axis=0)).argmax()
    figures = f"{x[:, worst].mean():.3f} | {samples.means[worst]:.3f}"
    assert of_means.splitlines()[2] == f"| `{NAMES[worst]}` | {figures} |"
    assert len(of_means.splitlines()) == 2 + 12
    # Columns 0 and 1 of the data are equal, which the machine does not know yet.
    first = of_pairs.splitlines()[2]
    assert first.startswith("| `answer a` | `answer b` | 1.000 | ")
    assert len(of_pairs.splitlines()) == 2 + 20


def test_correlations_are_those_of_numpy(x):
    constant = np.c_[x, np.ones(len(x))]
    found = monitoring.Table.of(constant).correlations
    np.testing.assert_allclose(found[:12, :12], np.corrcoef(x.T), atol=1e-5)
    np.testing.assert_array_equal(found[12], 0.0)


def test_of_a_wide_table_the_columns_that_vary_most_are_correlated():
    random = np.random.default_rng(0)
    odds = np.where(np.arange(150) % 7 == 0, 0.02, 0.5)
    rows, others = (random.random((2, 300, 150)) < odds).astype(np.uint8)
    chosen = np.sort(np.argsort(-rows.var(axis=0), kind="stable")[:128])
    assert not any(chosen % 7 == 0)
    data = monitoring.Table.of(rows)
    samples = monitoring.Table.of(others, data.columns)
    expected = [np.corrcoef(each[:, chosen].T) for each in (rows, others)]
    np.testing.assert_allclose(data.correlations, expected[0], atol=1e-5)
    difference = (expected[0] - expected[1])[np.triu_indices(128, k=1)]
    error = data.errors(samples)[1]
    np.testing.assert_allclose(error, np.sqrt(np.mean(difference**2)), rtol=1e-4)


def test_cards(table):
    machine, _, parts, result = table
    recipe = value(parts["summary"], "recipe").item().decode()
    assert "| optimizer.name | `adam` |" in recipe
    assert f"| q_2 | SBN | 3 | {machine.q_layers[1].count_params()} |" in recipe
    card = value(parts["summary"], "result").item().decode()
    figures = f"{result['log_likelihood']:.2f} | {result['log_likelihood_se']:.2f}"
    assert f"| test | {figures} | 20 | 60 |" in card


def test_results_that_are_none(tmp_path):
    with pytest.raises(UserError, match="no results"):
        log_results(tmp_path, {}, step=1)
    with pytest.raises(UserError, match="'test' has no log_likelihood_se, num_particles"):
        log_results(tmp_path, {"test": {"log_likelihood": -1.0, "num_data": 3}}, step=1)


def test_every_chart_has_a_description(table):
    for part in table[2].values():
        tags = [tag for tag in part.Tags()["tensors"] if part.SummaryMetadata(tag).plugin_data]
        charts = [tag for tag in tags if not tag.startswith(("_hparams_", "custom_scalars"))]
        assert charts
        assert [tag for tag in charts if len(description(part, tag)) < 20] == []


def test_the_layout_has_the_tags_of_both_splits_in_one_chart(table):
    parts = table[2]
    layout = layout_pb2.Layout.FromString(
        value(parts["summary"], "custom_scalars__config__").item()
    )
    charts = {chart.title: chart for category in layout.category for chart in category.chart}
    for chart in charts.values():
        for expression in chart.multiline.tag:
            assert any(re.match(expression, tag) for tag in parts["train"].Tags()["tensors"])
    for title, tag in [
        ("log-likelihood and ELBO (nats)", "estimates/log_likelihood"),
        ("effective sample size / K", "estimates/effective_sample_size_share"),
        ("KL divergence of each layer (nats)", "layers/kl_2"),
    ]:
        expressions = charts[title].multiline.tag
        for part in ("train", "validation"):
            assert tag in parts[part].Tags()["tensors"]
        assert any(re.match(expression, tag) for expression in expressions)
    # And nothing else: the names of charts may begin alike.
    (share,) = charts["effective sample size / K"].multiline.tag
    assert not re.match(share, "estimates/effective_sample_size_share_of_another")


def test_the_page_names_every_chart(table, x, tmp_path):
    log(make(), TensorBoard(tmp_path, x, (3, 4)))
    parts = [*table[2].values(), read(tmp_path / "train")]
    tags = {tag for part in parts for tag in part.Tags()["tensors"]}
    page = (Path(__file__).parents[1] / "docs" / "tensorboard.md").read_text()
    named = set(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL)))
    # The page names the first of several layers or weights.
    several = {"weights": "p_0/kernel", "gradient_norm": "p_0"}
    for tag in tags - {"custom_scalars__config__"}:
        if tag.startswith("_hparams_"):
            continue
        group = tag.partition("/")[0]
        first = f"{group}/{several[group]}" if group in several else re.sub(r"_\d$", "_1", tag)
        assert first in named
