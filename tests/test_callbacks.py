"""What the TensorBoard callback writes, read back from its event files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from marks import slow_except

from rws_keras import HelmholtzMachine
from rws_keras.callbacks import (
    ParticleSchedule,
    TensorBoard,
    receptive_fields,
    tile_images,
    write_png,
)
from rws_keras.objectives import ReweightedWakeSleep


def events(directory):
    """`{tag: {step: value}}` of all event files below a directory."""
    found = {}
    for path in sorted(directory.glob("events*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                tensor = tf.make_ndarray(value.tensor)
                found.setdefault(value.tag, {})[event.step] = tensor
    return found


@pytest.fixture(scope="module", params=slow_except(["sbn"], ["sbn", "nade"]))
def logs(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("logs")
    x = (np.random.default_rng(0).random((40, 12)) < 0.4).astype(np.uint8)
    machine = HelmholtzMachine.from_sizes(12, [8, 4], p=request.param, seed=0)
    machine.compile(keras.optimizers.Adam(1e-2), ReweightedWakeSleep(5), num_particles=10)
    board = TensorBoard(
        directory,
        x[:10],
        (3, 4),
    )
    history = machine.fit(x, epochs=2, validation_data=x, callbacks=[board], verbose=0).history
    return events(directory / "train"), events(directory / "validation"), history


def test_curves_of_training_and_validation(logs):
    train, validation, history = logs
    for name, tag in [
        ("log_likelihood", "estimates/log_likelihood"),
        ("elbo", "estimates/elbo"),
        ("kl_1", "layers/kl_1"),
        ("kl_2", "layers/kl_2"),
        ("entropy_1", "layers/entropy_1"),
        ("entropy_2", "layers/entropy_2"),
    ]:
        for split, key in [(train, name), (validation, f"val_{name}")]:
            assert list(split[tag]) == [1, 2]
            np.testing.assert_allclose(list(split[tag].values()), history[key], rtol=1e-5)


def test_gradient_norms_and_weights(logs):
    train = logs[0]
    norms = {tag for tag in train if tag.startswith("gradient_norm/")}
    assert norms == {f"gradient_norm/{layer}" for layer in ("p_0", "p_1", "p_2", "q_1", "q_2")}
    assert all(value > 0 for tag in norms for value in train[tag].values())
    # A histogram's rows are left edge, right edge, count: 5 particles of 10 data.
    assert train["particles/normalized_weights"][2][:, 2].sum() == 50


def test_images(logs):
    train = logs[0]
    for tag, channels in [
        ("samples_from_p", 1),
        ("data_and_reconstructions", 1),
        ("receptive_fields_1", 3),
        ("receptive_fields_2", 3),
    ]:
        width, height, png = train[f"images/{tag}"][2][:3]
        image = tf.io.decode_png(png).numpy()
        assert image.shape == (int(height), int(width), channels)
        assert image.std() > 0


def test_learning_rate(logs):
    np.testing.assert_allclose(list(logs[0]["training/learning_rate"].values()), 1e-2)


def test_one_image_and_bad_settings(tmp_path):
    x = np.ones([4, 6], np.uint8)
    machine = HelmholtzMachine.from_sizes(6, [3], seed=0)
    machine.compile("adam", ReweightedWakeSleep(2), jit_compile=False)
    machine.fit(x, callbacks=[TensorBoard(tmp_path, x, (2, 3), num_images=1)], verbose=0)
    assert "images/data_and_reconstructions" in events(tmp_path / "train")
    with pytest.raises(ValueError, match="does not match the machine's 6 visible units"):
        machine.fit(x, callbacks=[TensorBoard(tmp_path, x, (2, 2))], verbose=0)
    with pytest.raises(ValueError, match="`num_images` must be a positive integer"):
        TensorBoard(tmp_path, num_images=0)
    with pytest.raises(ValueError, match="`num_images` has no effect without `image_shape`"):
        TensorBoard(tmp_path, x, num_images=36)
    with pytest.raises(ValueError, match="`run_name` has no effect"):
        TensorBoard(tmp_path, run_name="mine")
    with pytest.raises(ValueError, match="`reference` has no effect together with `image_shape`"):
        TensorBoard(tmp_path, image_shape=(2, 3), reference=x)
    with pytest.raises(ValueError, match="`column_names` has no effect without `reference`"):
        TensorBoard(tmp_path, x, column_names=["a"] * 6)
    board = TensorBoard(tmp_path, reference=x, column_names=["a"])
    with pytest.raises(ValueError, match="a name for each of the 6 visible units, got 1"):
        machine.fit(x, callbacks=[board], verbose=0)
    with pytest.raises(ValueError, match="at least two rows"):
        machine.fit(x, callbacks=[TensorBoard(tmp_path, x[:1])], verbose=0)


def test_weights_of_a_changed_k_are_shown(tmp_path):
    x = np.ones([4, 6], np.uint8)
    machine = HelmholtzMachine.from_sizes(6, [3], seed=0)
    machine.compile("adam", ReweightedWakeSleep(2), jit_compile=False)
    callbacks = [ParticleSchedule({0: 2, 1: 5}), TensorBoard(tmp_path, x)]
    machine.fit(x, epochs=2, callbacks=callbacks, verbose=0)
    weights = events(tmp_path / "train")["particles/normalized_weights"]
    assert [weights[step][:, 2].sum() for step in (1, 2)] == [2 * 4, 5 * 4]


def test_receptive_fields_are_the_strongest_first():
    machine = HelmholtzMachine.from_sizes(4, [3])
    kernel = np.array([[1, 1, 0, 0], [0, 0, -4, 0], [0, 0, 0, 2]], np.float32)
    machine.p_layers[0].kernel.assign(kernel)
    fields = receptive_fields(machine, 2)
    np.testing.assert_allclose(fields, [[0.5, 0.5, 0, 0.5], [0.5, 0.5, 0.5, 1.0]])


def test_tiles_and_png(tmp_path):
    rows = np.zeros([5, 6])
    rows[4] = 1.0
    grid = tile_images(rows, (2, 3))
    assert grid.shape == (2 * 3 + 1, 3 * 4 + 1, 1)
    # The fifth image is the second of the second line of three.
    assert (grid[4:6, 5:8] == 255).all()
    assert (grid[1:3, 1:4] == 0).all()
    path = write_png(tmp_path / "grid.png", grid, enlarge=2)
    np.testing.assert_array_equal(
        tf.io.decode_png(path.read_bytes()), grid.repeat(2, axis=0).repeat(2, axis=1)
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["grid.png"]
