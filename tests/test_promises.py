"""Ways of using the library that Keras's users would expect to work, or to be refused."""

import copy
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from rws_keras import HelmholtzMachine, layers
from rws_keras.callbacks import TensorBoard
from rws_keras.errors import UserError
from rws_keras.objectives import Objective, ReweightedWakeSleep

pytestmark = pytest.mark.slow


@pytest.fixture
def x(binary):
    return binary(40, 16)


def machine_of(p_0, q_1, objective=None, **arguments):
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine([p_0, layers.SBN(4)], [q_1], seed=0)
    arguments = {"jit_compile": False, "num_particles": 5, **arguments}
    machine.compile(keras.optimizers.Adam(1e-2), objective or ReweightedWakeSleep(3), **arguments)
    return machine


def assert_trained(machine, x, path):
    """It trains every weight, and is the same after saving and loading."""
    before = [variable.numpy() for variable in machine.trainable_variables]
    machine.fit(x, batch_size=10, epochs=2, verbose=0)
    for old, variable in zip(before, machine.trainable_variables, strict=True):
        assert not np.array_equal(old, variable.numpy()), variable.path
    machine.save(path / "machine.keras")
    loaded = keras.saving.load_model(path / "machine.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), machine.predict(x, verbose=0))
    return loaded


@keras.saving.register_keras_serializable(package="tests")
class Deep(layers.StochasticLayer):
    """The example of the docstring: a `Sequential`, which takes one leading dimension."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.network = keras.Sequential([keras.layers.Dense(9, "relu"), keras.layers.Dense(units)])

    def _distribution(self, given):
        return layers.FactorizedBernoulli(self.network(given))


@keras.saving.register_keras_serializable(package="tests")
class Picture(Deep):
    """Reshapes inside, and knows nothing of particles."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.network = keras.Sequential(
            [
                keras.layers.Reshape((2, -1, 1)),
                keras.layers.Conv2D(3, 2, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(units),
            ]
        )


@pytest.mark.parametrize("family", [Deep, Picture])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_networks_inside_a_layer_need_not_know_of_particles(family, jit_compile, x, tmp_path):
    machine = machine_of(family(16), family(4), jit_compile=jit_compile)
    loaded = assert_trained(machine, x, tmp_path)
    assert [layer.name for layer in loaded.p_layers] == ["p_0", "p_1"]
    assert machine.q_layers[0].trainable_variables[0].path.startswith("q_1/")
    # The particles of a datum are given the same parents as without the detour.
    h = machine.q.sample([tf.fill([3, 40, 4], 0.5)], given=x)[0][0]
    by_hand = machine.p_layers[0].network(tf.reshape(h, [-1, 4]))
    logits = machine.p_layers[0].distribution(h).logits
    np.testing.assert_allclose(tf.reshape(logits, [-1, 16]), by_hand, atol=1e-5)


class KerasWay(layers.StochasticLayer):
    """Overrides what a Keras layer overrides, and nothing with an underscore."""

    def build(self, given_shape=None):
        rows = 1 if given_shape is None else given_shape[-1]
        self.w = self.add_weight(name="w", shape=(rows, self.units))

    def distribution(self, given=None):
        given = tf.ones([1]) if given is None else tf.cast(given, tf.float32)
        return layers.FactorizedBernoulli(tf.tensordot(given, self.w.value, 1))


@keras.saving.register_keras_serializable(package="tests")
class WithSuper(KerasWay):
    """Calls `super().build`, as Keras's guides do."""

    def build(self, given_shape=None):
        self.b = self.add_weight(name="b", shape=(self.units,))
        super().build(given_shape)

    def distribution(self, given=None):
        plain = super().distribution(given)
        return layers.FactorizedBernoulli(plain.logits + self.b.value)


keras.saving.register_keras_serializable(package="tests")(KerasWay)


@pytest.mark.parametrize("family", [KerasWay, WithSuper])
def test_layers_made_the_keras_way(family, x, tmp_path):
    assert_trained(machine_of(family(16), family(4)), x, tmp_path)


@keras.saving.register_keras_serializable(package="tests")
class Warm(layers.SBN):
    """Has an argument of its own, and no `get_config`."""

    def __init__(self, units, temperature=1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.temperature = temperature

    def _distribution(self, given):
        plain = super()._distribution(given)
        return layers.FactorizedBernoulli(plain.logits / self.temperature)


class Hides(layers.SBN):
    """Keeps its argument under another name."""

    def __init__(self, units, temperature=1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.t = temperature


def test_plain_arguments_are_saved_and_others_are_not_lost_in_silence(x, tmp_path):
    loaded = assert_trained(machine_of(Warm(16, temperature=3.0), layers.SBN(4)), x, tmp_path)
    assert loaded.p_layers[0].temperature == 3.0
    with pytest.raises(UserError, match="argument `temperature` is not stored in an attribute"):
        Hides(4).get_config()


def test_layers_that_act_otherwise_in_training_are_refused():
    for inner in (keras.layers.Dropout(0.5), keras.layers.BatchNormalization()):
        layer = Deep(4)
        layer.network = keras.Sequential([inner, keras.layers.Dense(4)])
        with pytest.raises(UserError, match="acts differently in training and inference"):
            HelmholtzMachine([layers.SBN(16), layers.SBN(4)], [layer])


class Untracked(layers.SBN):
    """Has a variable that Keras does not know of."""

    def _distribution(self, given):
        if not hasattr(self, "shift"):
            self.shift = tf.Variable(0.0)
        return layers.FactorizedBernoulli(super()._distribution(given).logits + self.shift)


class Beta(Objective):
    """An objective with a plain setting and, if wanted, an untracked variable."""

    def __init__(self, num_particles=2, beta=1.0, untracked=False, **kwargs):
        super().__init__(num_particles, **kwargs)
        self.beta, self.untracked = beta, untracked

    def build(self, state_shapes):
        self.free = [lambda: None]
        if self.untracked:
            self.variable = tf.Variable(0.0)

    def loss(self, machine, x, draws):
        from rws_keras import Particles

        particles = Particles(draws.latents, machine.log_p(x, draws.latents), draws.log_q)
        loss = -self.beta * tf.reduce_mean(tf.add_n(particles.log_p))
        if self.untracked:
            loss += tf.square(self.variable - 1.0)
        return loss, particles


keras.saving.register_keras_serializable(package="tests")(Beta)


def test_variables_that_keras_does_not_know_of_are_refused(x):
    with pytest.raises(UserError, match="would be neither trained nor saved"):
        machine_of(Untracked(16), layers.SBN(4)).fit(x, verbose=0)
    with pytest.raises(UserError, match="would be neither trained nor saved"):
        machine_of(layers.SBN(16), layers.SBN(4), Beta(untracked=True)).fit(x, verbose=0)


def test_a_plain_setting_of_an_own_objective_takes_effect_and_is_saved(x, tmp_path):
    def moved(beta):
        machine = machine_of(layers.SBN(16), layers.SBN(4), Beta())
        machine.compile(keras.optimizers.SGD(1.0), machine.objective, jit_compile=False)
        machine.fit(x, batch_size=40, shuffle=False, verbose=0)
        before = machine.p_layers[0].bias.numpy()
        machine.objective.beta = beta
        machine.fit(x, batch_size=40, shuffle=False, verbose=0)
        return machine, np.abs(machine.p_layers[0].bias.numpy() - before).sum()

    (_, one), (machine, ten) = moved(1.0), moved(10.0)
    assert ten > 5 * one
    machine.save(tmp_path / "machine.keras")
    assert keras.saving.load_model(tmp_path / "machine.keras").objective.beta == 10.0


@keras.saving.register_keras_serializable(package="tests")
class Baseline(ReweightedWakeSleep):
    """A network made in `__init__`, with states of its own."""

    def __init__(self, num_particles=2, **kwargs):
        super().__init__(num_particles, **kwargs)
        self.network = keras.Sequential(
            [keras.layers.BatchNormalization(), keras.layers.Dropout(0.1), keras.layers.Dense(1)]
        )

    def loss(self, machine, x, draws):
        loss, particles = super().loss(machine, x, draws)
        return loss + tf.reduce_mean(self.network(x, training=True) ** 2), particles


def test_networks_inside_an_objective(x, tmp_path):
    machine = machine_of(layers.SBN(16), layers.SBN(4), Baseline())
    normalisation = machine.objective.network.layers[0]
    machine.fit(x, batch_size=10, verbose=0)
    assert np.abs(normalisation.moving_mean.numpy()).max() > 0.01
    assert any(variable is normalisation.gamma for variable in machine.trainable_variables)
    machine.save(tmp_path / "machine.keras")
    loaded = keras.saving.load_model(tmp_path / "machine.keras").objective
    assert len(loaded.weights) == 4 + 2  # the normalisation's, the dense layer's
    for ours, theirs in zip(machine.objective.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    frozen = Baseline()
    frozen.trainable = False
    machine_of(layers.SBN(16), layers.SBN(4), frozen).fit(x, verbose=0)


def test_looking_at_an_objective_in_tensorboard_does_not_change_it(x, tmp_path):
    averages = []
    for callbacks in ([], [TensorBoard(tmp_path, x[:5])]):
        machine = machine_of(layers.SBN(16), layers.SBN(4), Baseline())
        machine.fit(x, batch_size=10, epochs=2, shuffle=False, callbacks=callbacks, verbose=0)
        averages.append(machine.objective.network.layers[0].moving_mean.numpy())
    np.testing.assert_array_equal(*averages)


class OnlyLoss(ReweightedWakeSleep):
    """Forgets the particles."""

    def build(self, state_shapes):
        self.w = self.add_weight(name="w", shape=())

    def loss(self, machine, x, draws):
        return super().loss(machine, x, draws)[0]


def test_a_loss_without_particles():
    with pytest.raises(UserError, match="must return a scalar and the particles"):
        machine_of(layers.SBN(16), layers.SBN(4), OnlyLoss(2))


@pytest.fixture
def machine():
    return machine_of(layers.SBN(16), layers.SBN(4))


def test_single_batches(machine, x):
    result = machine.test_on_batch(x, return_dict=True)
    expected = machine.evaluate(x, batch_size=40, return_dict=True, verbose=0)
    assert result == expected
    scores = machine.predict(x, batch_size=40, verbose=0)
    np.testing.assert_array_equal(machine.predict_on_batch(x), scores)
    machine.train_on_batch(x)
    fresh = HelmholtzMachine.from_sizes(16, [4], seed=0)
    assert len(fresh.predict_on_batch(x)) == 40
    assert not fresh.compiled


def test_positional_arguments_of_keras(machine, x):
    seen = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs))
    machine.fit(x, None, 10, 1, 0, [callback], 0.0, x)
    assert "val_log_likelihood" in seen[0]
    machine.evaluate(x, None, 10, 0, None, None, [callback])
    with pytest.raises(UserError, match="every value 0 or 1"):
        machine.fit(x, None, 10, 1, 0, None, 0.0, np.full([3, 16], 0.5))


def test_lists_begin_with_the_likelihood_in_the_order_of_their_names(machine, x):
    machine.fit(x, verbose=0)
    names = machine.metrics_names
    assert names[:3] == ["log_likelihood", "log_likelihood_se", "loss"]
    for method in (machine.evaluate, machine.test_on_batch):
        quiet = {"verbose": 0} if method == machine.evaluate else {}
        named = method(x, return_dict=True, **quiet)
        assert method(x, **quiet) == [named[name] for name in names]
        assert set(named) == set(names)
    assert machine.train_on_batch(x)[0] < 0

    class More(HelmholtzMachine):
        def train_step(self, data):
            return {**super().train_step(data), "a": 7.0}

    more = More.from_sizes(16, [4], seed=0)
    more.compile("sgd", ReweightedWakeSleep(2), jit_compile=False)
    assert more.train_on_batch(x)[-1] == 7.0


def test_the_objective_is_changed_by_compile_only(machine):
    with pytest.raises(UserError, match="Change the objective by compile"):
        machine.objective = ReweightedWakeSleep(2)
    with pytest.raises(UserError, match="`num_particles` must be a positive integer"):
        machine.num_particles = 0
    machine.compile("adam", Beta(), jit_compile=False)
    assert [layer.name for layer in machine.layers].count("objective") == 1


def test_a_layer_that_was_not_built_comes_back_unbuilt():
    layer = layers.NADE(3, hidden_units=5)
    config = keras.saving.serialize_keras_object(layer)
    for again in (keras.saving.deserialize_keras_object(config), copy.deepcopy(layer)):
        assert not layer.built
        assert not again.built
        assert again.distribution(np.ones([2, 4], np.float32)).batch_shape == [2]


STRATEGY = """
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import threading
import rws_keras as r
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    machine = r.HelmholtzMachine.from_sizes(16, [4], seed=0)
    machine.compile(keras.optimizers.Adam(1e-2), r.objectives.ReweightedWakeSleep(3))
x = (np.random.default_rng(0).random((40, 16)) < 0.4).astype(np.float32)
growing = r.callbacks.ParticleSchedule({0: 2, 1: 4})
machine.fit(x, batch_size=10, epochs=2, callbacks=[growing], verbose=0)
seen = {3: set(), 20: set()}
def work(k):
    for _ in range(3):
        found = machine.evaluate(x, batch_size=20, num_particles=k, return_dict=True, verbose=0)
        seen[k].add(found["num_particles"])
threads = [threading.Thread(target=work, args=(k,)) for k in seen]
[t.start() for t in threads]; [t.join() for t in threads]
assert seen == {3: {3.0}, 20: {20.0}}, seen
"""


@pytest.mark.processes
def test_adam_and_threads_under_a_distribution_strategy():
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", STRATEGY], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_threads_do_not_meet(machine, x):
    # Two evaluations in one thread each leave nothing behind for the next.
    done = []
    thread = threading.Thread(target=lambda: done.append(machine.predict_on_batch(x)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(done[0], machine.predict_on_batch(x))
    assert not vars(machine._thread)
