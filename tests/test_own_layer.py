"""A layer of one's own: a convolution inside, from `fit` to an exported score."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_callbacks import events

from rws_keras import HelmholtzMachine, layers
from rws_keras.callbacks import TensorBoard
from rws_keras.objectives import ReweightedWakeSleep

pytestmark = pytest.mark.slow


@keras.saving.register_keras_serializable(package="tests")
class Convolutional(layers.StochasticLayer):
    """Units whose logits come from a convolution over an image of the parents."""

    def __init__(self, units, side, **kwargs):
        super().__init__(units, **kwargs)
        self.side = side
        self.network = keras.Sequential(
            [
                keras.layers.Reshape((side, side, 1)),
                keras.layers.Conv2D(3, 2, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(units),
            ]
        )

    def _distribution(self, given):
        # A Keras network takes one leading dimension, particles have two.
        logits = self.network(tf.reshape(given, [-1, self.side**2]))
        shape = tf.concat([tf.shape(given)[:-1], [self.units]], axis=0)
        logits = tf.ensure_shape(tf.reshape(logits, shape), [*given.shape[:-1], self.units])
        return layers.FactorizedBernoulli(logits)

    def get_config(self):
        return {**super().get_config(), "side": self.side}


def make():
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine(
        [Convolutional(16, side=2), layers.SBN(4)], [Convolutional(4, side=4)], seed=0
    )
    machine.compile(keras.optimizers.Adam(1e-2), ReweightedWakeSleep(5), num_particles=20)
    return machine


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    x = (np.random.default_rng(0).random((60, 16)) < 0.3).astype(np.float32)
    machine = make()
    before = [weight.copy() for weight in machine.get_weights()]
    board = TensorBoard(logs, x[:10], (4, 4), num_images=1)
    history = machine.fit(x, epochs=4, validation_data=x, callbacks=[board], verbose=0).history
    return machine, x, before, history, logs


def test_it_trains(trained):
    machine, _, before, history, _ = trained
    # A convolution, a dense layer, and for each a bias: in P and in Q; and the prior's bias.
    assert len(machine.trainable_variables) == 2 * 4 + 1
    for old, new in zip(before, machine.get_weights(), strict=True):
        assert not np.array_equal(old, new)
    assert history["val_log_likelihood"][-1] > history["val_log_likelihood"][0]


def test_it_is_saved(trained, tmp_path):
    machine, x, *_ = trained
    machine.save(tmp_path / "machine.keras")
    loaded = keras.saving.load_model(tmp_path / "machine.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), machine.predict(x, verbose=0))


def test_it_is_shown_in_tensorboard(trained):
    train = events(trained[-1] / "train")
    assert {"gradient_norm/p_0", "gradient_norm/p_1", "gradient_norm/q_1"} <= set(train)
    assert {"images/samples_from_p", "images/data_and_reconstructions"} <= set(train)
    assert "images/receptive_fields_1" not in train  # it has no kernel


def test_it_is_exported(trained, tmp_path):
    machine, x, *_ = trained
    machine.export(tmp_path / "model", num_particles=200, verbose=False)
    model = tf.saved_model.load(str(tmp_path / "model"))
    scores = model.signatures["serving_default"](x=tf.constant(x[:10]))
    expected = machine.log_likelihood(x[:10], 20_000, seed=0)
    # Ten z-scores; an estimate from 200 particles is a little too low, by half its variance.
    z = (scores["log_likelihood"] - expected.log_likelihood) / scores["standard_error"]
    assert np.abs(z).max() < 5
    assert model.signatures["posterior"](x=tf.constant(x[:2]))["latent_1"].shape == [2, 4]
    with pytest.raises(ValueError, match="exists already"):
        machine.export(tmp_path / "model", verbose=False)


def test_gaussian_machines_are_exported(tmp_path):
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(3, [2], p="gaussian", q="gaussian", seed=0)
    machine.export(tmp_path / "model", num_particles=100, verbose=False)
    model = tf.saved_model.load(str(tmp_path / "model"))
    x = np.float32([[0.2, -1.0, 0.4], [np.nan, 0.0, 0.0]])
    scores = model.signatures["serving_default"](x=tf.constant(x))["log_likelihood"].numpy()
    assert np.isfinite(scores[0])
    assert np.isnan(scores[1])
    mask = np.float32([[1, 0, 1], [0, 1, 1]])
    completed = model.signatures["impute"](x=tf.constant(x), mask=tf.constant(mask))
    observed = np.asarray(completed["completions"])[:, 0][mask == 1]
    np.testing.assert_array_equal(observed, x[mask == 1])
    assert np.isfinite(completed["log_likelihood"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "onnx"}, "exported only as 'tf_saved_model', not as 'onnx'"),
        ({"num_particle": 5}, "Did you mean 'num_particles'"),
        ({"num_particles": 1}, "must be from 2 to 10,000"),
        ({"seed": "1"}, "`seed` must be an integer of up to 64 bits"),
    ],
)
def test_bad_exports(arguments, message, tmp_path):
    machine = HelmholtzMachine.from_sizes(3, [2])
    with pytest.raises(ValueError, match=message):
        machine.export(tmp_path / "model", **arguments)
    assert not list(tmp_path.iterdir())
