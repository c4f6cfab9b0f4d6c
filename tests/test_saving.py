"""Every door through which Keras and TensorFlow save a model."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from marks import slow_except

from rws_keras import HelmholtzMachine, layers
from rws_keras.errors import UserError
from rws_keras.objectives import ReweightedWakeSleep


@pytest.fixture
def x(binary):
    return binary(20, 8)


def make(**arguments):
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(8, [5, 3], seed=0)
    arguments = {"jit_compile": False, "num_particles": 5, **arguments}
    machine.compile("adam", ReweightedWakeSleep(2), **arguments)
    return machine


def used(x, **arguments):
    """A machine after everything that a session does with it."""
    machine = make(**arguments)
    machine.fit(x, batch_size=10, validation_data=x, verbose=0)
    machine.evaluate(x, verbose=0)
    machine.predict(x, verbose=0)
    machine.log_likelihood(x, 10)
    return machine


@pytest.mark.parametrize("machine", ["fresh", "used"])
def test_a_tensorflow_saved_model(machine, x, tmp_path):
    machine = make() if machine == "fresh" else used(x)
    tf.saved_model.save(machine, tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved")
    machine.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    ours, theirs = (
        each.signatures["serving_default"](x=tf.constant(x)) for each in (loaded, exported)
    )
    np.testing.assert_array_equal(ours["log_likelihood"], theirs["log_likelihood"])


def test_a_saved_model_with_signatures_of_ones_own(x, tmp_path):
    machine = used(x)
    spec = tf.TensorSpec([None, 8])
    own = tf.function(lambda x: {"score": machine(x)}, input_signature=[spec])
    tf.saved_model.save(machine, tmp_path / "saved", signatures=own)
    loaded = tf.saved_model.load(tmp_path / "saved")
    assert loaded.signatures["serving_default"](x=tf.constant(x))["score"].shape == [20]
    archive = keras.export.ExportArchive()
    archive.track(machine)
    archive.add_endpoint("score", machine.call, input_signature=[spec])
    archive.write_out(tmp_path / "archive", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "archive")
    assert np.isfinite(loaded.score(tf.constant(x))).all()


COPIES = {
    "pickle": lambda machine, path: pickle.loads(pickle.dumps(machine)),
    "deepcopy": lambda machine, path: copy.deepcopy(machine),
    "keras": lambda machine, path: (
        machine.save(path / "machine.keras"),
        keras.saving.load_model(path / "machine.keras"),
    )[1],
}


@pytest.mark.parametrize("door", slow_except(["pickle", "keras"], COPIES))
def test_a_copy_trains_on_as_the_machine_would(door, x, tmp_path):
    machine = used(x, run_eagerly=True)
    again = COPIES[door](machine, tmp_path)
    for each in (machine, again):
        each.fit(x, batch_size=10, shuffle=False, verbose=0)
    for ours, theirs in zip(machine.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "arguments", [{"run_eagerly": True}, {"steps_per_execution": 3}, {"jit_compile": True}]
)
def test_how_it_was_compiled_comes_back(arguments, tmp_path):
    machine = make(**arguments)
    machine.save(tmp_path / "machine.keras")
    loaded = keras.saving.load_model(tmp_path / "machine.keras")
    assert loaded.get_compile_config() == machine.get_compile_config()
    for name, value in arguments.items():
        assert loaded.get_compile_config()[name] == value
    assert loaded.run_eagerly == machine.run_eagerly
    assert loaded.steps_per_execution == machine.steps_per_execution


def test_a_tensorflow_checkpoint(x, tmp_path):
    machine, other = used(x), make()
    path = tf.train.Checkpoint(machine=machine).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(machine=other).restore(path).assert_existing_objects_matched()
    for ours, theirs in zip(machine.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["machine.h5", "machine.hdf5"])
def test_hdf5_is_refused_but_for_weights(name, x, tmp_path):
    machine, other = used(x), HelmholtzMachine.from_sizes(8, [5, 3])
    with pytest.raises(UserError, match=r"cannot be saved as HDF5.*\.keras file"):
        machine.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
    machine.save_weights(tmp_path / "machine.weights.h5")
    other.load_weights(tmp_path / "machine.weights.h5")
    np.testing.assert_array_equal(other.get_weights()[0], machine.get_weights()[0])


def with_a_shared_layer():
    shared = layers.SBN(8, name="shared")
    machine = HelmholtzMachine(
        [layers.SBN(8), layers.SBN(8), layers.SBN(8)], [shared, shared], seed=0
    )
    machine.compile("adam", ReweightedWakeSleep(2), jit_compile=False)
    return machine


@pytest.mark.parametrize("door", ["keras", "clone", "config", "pickle"])
def test_a_shared_layer_stays_shared(door, x, tmp_path):
    machine = with_a_shared_layer()
    machine.fit(x, batch_size=10, verbose=0)
    if door == "clone":
        again = keras.models.clone_model(machine)
    elif door == "config":
        again = HelmholtzMachine.from_config(machine.get_config())
    else:
        again = COPIES[door](machine, tmp_path)
        np.testing.assert_array_equal(again.predict(x, verbose=0), machine.predict(x, verbose=0))
    assert again.q_layers[0] is again.q_layers[1]
    assert again.p_layers[0] is not again.p_layers[1]
    assert len(again.weights) == len(machine.weights)
