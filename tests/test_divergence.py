"""A training that diverges stops, and says where."""

import math
import pickle

import keras
import pytest

from rws_keras import HelmholtzMachine
from rws_keras.callbacks import DivergenceError, StopOnDivergence
from rws_keras.errors import UserError
from rws_keras.objectives import ReweightedWakeSleep


class Record(keras.callbacks.Callback):
    """Keeps the logs of every step. Keras then calls the callbacks in the main thread."""

    def __init__(self):
        super().__init__()
        self.logs = []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(logs)


def machine_of(growth):
    """A machine whose weights grow by so large a factor in each step."""
    machine = HelmholtzMachine.from_sizes(8, [5], seed=0)
    optimizer = keras.optimizers.SGD(1.0, weight_decay=growth + 1.0)
    machine.compile(optimizer, ReweightedWakeSleep(3), num_particles=5, jit_compile=False)
    machine.set_weights([weight + 0.1 for weight in machine.get_weights()])
    return machine


@pytest.mark.parametrize("others", [[Record()], []], ids=["one thread", "several threads"])
def test_the_first_step_that_is_not_finite_is_named(binary, others):
    machine = machine_of(growth=1e6)
    with pytest.raises(DivergenceError) as caught:
        machine.fit(
            binary(80, 8),
            batch_size=10,
            epochs=3,
            callbacks=[StopOnDivergence(), *others],
            verbose=0,
        )
    error = caught.value
    assert isinstance(error, UserError)
    assert error.epoch == 1
    assert not math.isfinite(error.value)
    assert f"`{error.metric}` is {error.value} at step {error.step} of epoch 1" in str(error)
    assert "smaller learning rate" in str(error)
    assert "global_clipnorm" in str(error)
    # Before step n the weights are 0.1 * 1e6^(n - 1): beyond float32 from n = 8 on.
    assert error.step == 8
    if others:
        finite = [all(map(math.isfinite, logs.values())) for logs in others[0].logs]
        assert finite == [True] * 7 + [False]
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_divergence_that_only_the_validation_shows(binary):
    machine = machine_of(growth=3e38)
    # The one step makes them infinite.
    machine.set_weights([weight + 5.0 for weight in machine.get_weights()])
    x = binary(10, 8)
    with pytest.raises(DivergenceError, match=r"`val_\w+` is .* at step 1 of epoch 1"):
        machine.fit(x, batch_size=10, validation_data=x, callbacks=[StopOnDivergence()], verbose=0)


def test_other_trainings_go_on(binary):
    machine = HelmholtzMachine.from_sizes(8, [5], seed=0)
    machine.compile("adam", ReweightedWakeSleep(3), num_particles=5, jit_compile=False)
    x = binary(20, 8)
    history = machine.fit(
        x, epochs=2, validation_data=x, callbacks=[StopOnDivergence()], verbose=0
    ).history
    assert len(history["loss"]) == 2
