"""An objective is a Keras layer: its settings take effect, its weights live with the machine."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exact import tiny_machine
from marks import slow_except
from test_callbacks import events

from rws_keras import HelmholtzMachine, Particles
from rws_keras.callbacks import TensorBoard
from rws_keras.errors import UserError
from rws_keras.objectives import Objective, ReweightedWakeSleep, WakeSleep


@keras.saving.register_keras_serializable(package="tests")
class WithBaseline(ReweightedWakeSleep):
    """Learns the mean log-likelihood of its data beside, twice: by gradient and by counting."""

    def build(self, state_shapes):
        self.network = keras.layers.Dense(1, name="baseline")
        self.network.build(state_shapes[0])
        self.mean = self.add_weight(name="mean", shape=(), initializer="zeros", trainable=False)
        self.steps = self.add_weight(name="steps", shape=(), initializer="zeros", trainable=False)

    def loss(self, machine, x, draws):
        loss, particles = super().loss(machine, x, draws)
        signal = tf.stop_gradient(tf.reduce_logsumexp(particles.log_weights, axis=0))
        error = signal - self.network(x)[:, 0]
        return loss + tf.reduce_mean(tf.square(error)), particles

    def update(self, machine, x, particles):
        self.steps.assign_add(1.0)
        batch = tf.reduce_mean(tf.reduce_logsumexp(particles.log_weights, axis=0))
        self.mean.assign_add((batch - self.mean) / self.steps)


def trained(objective, binary, **arguments):
    machine = HelmholtzMachine.from_sizes(6, [4, 2], seed=0)
    machine.compile(keras.optimizers.Adam(1e-2), objective, **arguments)
    machine.fit(binary(40, 6), batch_size=10, epochs=2, verbose=0)
    return machine


@pytest.mark.parametrize("jit_compile", slow_except([False], [False, True]))
def test_its_weights_are_trained_and_updated_with_the_step(binary, jit_compile):
    objective = WithBaseline(3)
    machine = trained(objective, binary, jit_compile=jit_compile)
    assert {id(v) for v in objective.trainable_variables} <= {
        id(v) for v in machine.trainable_variables
    }
    assert float(objective.steps) == 8
    assert -10 < float(objective.mean) < -1
    assert np.abs(objective.network.bias.numpy()) > 1e-3


def test_its_weights_are_saved_and_restored_with_the_machine(binary, tmp_path):
    machine = trained(WithBaseline(3), binary, jit_compile=False)
    machine.save(tmp_path / "machine.keras")
    loaded = keras.saving.load_model(tmp_path / "machine.keras")
    assert len(loaded.objective.variables) == 4
    for ours, theirs in zip(machine.objective.variables, loaded.objective.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    # Training goes on as it would have, with the optimizer's state of the baseline.
    for each in (machine, loaded):
        each.fit(binary(40, 6), batch_size=10, shuffle=False, verbose=0)
    for ours, theirs in zip(machine.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_another_objective_takes_its_weights_along(binary):
    machine = trained(WithBaseline(3), binary, jit_compile=False)
    with_baseline = machine.count_params()
    machine.compile("adam", ReweightedWakeSleep(3))
    assert machine.count_params() == with_baseline - (6 + 1) - 2
    assert not any("baseline" in variable.path for variable in machine.variables)


def test_its_weights_are_shown_in_tensorboard(binary, tmp_path):
    x = binary(40, 6)
    machine = HelmholtzMachine.from_sizes(6, [4, 2], seed=0)
    machine.compile(keras.optimizers.Adam(1e-2), WithBaseline(3), jit_compile=False)
    machine.fit(x, batch_size=10, callbacks=[TensorBoard(tmp_path, x[:5])], verbose=0)
    found = events(tmp_path / "train")
    assert found["gradient_norm/objective"][1] > 0
    assert sum(tag.startswith("objective/") for tag in found) == 4
    # Looking does not change what is counted.
    assert float(machine.objective.steps) == 4


class Forgotten(ReweightedWakeSleep):
    """Has a weight that its loss does not use."""

    def build(self, state_shapes):
        self.unused = self.add_weight(name="unused", shape=(3,))


class NeverUpdated(ReweightedWakeSleep):
    """Has a weight that nothing changes."""

    def build(self, state_shapes):
        self.unused = self.add_weight(name="unused", shape=(3,), trainable=False)


def test_weights_that_would_not_be_trained_raise(binary):
    with pytest.raises(UserError, match=r"does not depend on its weight.*unused"):
        trained(Forgotten(3), binary)
    with pytest.raises(UserError, match=r"weights that are not trained \(unused\)"):
        trained(NeverUpdated(3), binary)


BAD_SETTINGS = [
    ({"sleep_q": False, "num_dreams": 3}, "`num_dreams` has no effect"),
    ({"wake_p": False, "wake_q": False, "num_resampled": 2}, "`num_resampled` has no effect"),
    ({"wake_p": False, "wake_q": 0, "sleep_q": 0.0}, "All updates are off"),
    ({"num_dreams": 0}, "`num_dreams` must be a positive integer"),
    ({"num_resampled": 1.5}, "`num_resampled` must be a positive integer"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_settings_that_would_be_ignored_raise(settings, message):
    with pytest.raises(UserError, match=message):
        ReweightedWakeSleep(5, **settings)


def test_settings_are_checked_when_they_change(binary):
    objective = ReweightedWakeSleep(5)
    with pytest.raises(UserError, match="`num_particles` must be a positive integer"):
        objective.num_particles = 0
    with pytest.raises(UserError, match="`wake_q` must be a finite number of at least 0"):
        objective.wake_q = -1
    objective.num_particles = np.int64(7)
    objective.sleep_q = np.float32(0.5)
    assert objective.get_config()["num_particles"] == 7
    assert type(objective.get_config()["sleep_q"]) is float
    objective.num_dreams, objective.sleep_q = 3, False
    machine = HelmholtzMachine.from_sizes(6, [4], seed=0)
    machine.compile("adam", objective, jit_compile=False)
    with pytest.raises(UserError, match="`num_dreams` has no effect"):
        machine.fit(binary(8, 6), verbose=0)
    with pytest.raises(UserError, match="WakeSleep needs `num_particles` = 1, got 2"):
        WakeSleep().num_particles = 2


def test_one_objective_for_machines_of_one_size():
    objective = ReweightedWakeSleep(2)
    HelmholtzMachine.from_sizes(6, [4]).compile("adam", objective)
    HelmholtzMachine.from_sizes(6, [4]).compile("adam", objective)
    with pytest.raises(UserError, match="was built for a machine with"):
        HelmholtzMachine.from_sizes(6, [5]).compile("adam", objective)


@pytest.mark.parametrize("wrong", [ReweightedWakeSleep, "mse", keras.losses.MeanSquaredError()])
def test_what_is_no_objective_is_refused(wrong):
    with pytest.raises(UserError, match=r"must be an rws_keras\.objectives\.Objective"):
        HelmholtzMachine.from_sizes(6, [4]).compile("adam", wrong)


class Sum(Objective):
    """The plainest objective: every particle counts alike."""

    def loss(self, machine, x, draws):
        particles = Particles(draws.latents, machine.log_p(x, draws.latents), draws.log_q)
        return -tf.reduce_mean(tf.add_n(particles.log_p)), particles


def test_noise_and_draws_have_defaults():
    machine, x = tiny_machine("sbn", "sbn"), tf.ones([3, 4])
    objective = Sum(2)
    assert list(objective.noise_shapes(machine, 3)) == ["particles"]
    gradients, particles = objective.gradients(machine, x, objective.noise(machine, 3, seed=0))
    assert [latent.shape for latent in particles.latents] == [[2, 3, 3], [2, 3, 2]]
    by_path = dict(zip([v.path for v in machine.trainable_variables], gradients, strict=True))
    assert all(np.abs(by_path[v.path]).max() == 0 for v in machine.q_variables)
    with pytest.raises(NotImplementedError, match="Objective does not override `loss`"):
        Objective(2).gradients(machine, x, objective.noise(machine, 3, seed=0))
