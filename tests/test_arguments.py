"""What is wrong is refused at once, not after the first epoch, and by its name."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rws_keras import HelmholtzMachine, layers
from rws_keras.callbacks import ObjectiveSchedule, StopOnDivergence, TensorBoard
from rws_keras.errors import UserError
from rws_keras.objectives import ReweightedWakeSleep


@pytest.fixture
def x(binary):
    return binary(20, 16)


def make(**arguments):
    machine = HelmholtzMachine.from_sizes(16, [4], seed=0)
    machine.compile("adam", ReweightedWakeSleep(2), jit_compile=False, **arguments)
    return machine


SHAPES = [(4, 4, 1), (2, 2, 4), (16,), 16, (-4, -4), (4.0, 4.0), (True, 16), "4x4", (None, 16)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_image_shapes(shape, tmp_path):
    with pytest.raises(UserError, match="`image_shape`"):
        TensorBoard(tmp_path, image_shape=shape)


def test_an_image_shape_of_another_size(x, tmp_path):
    with pytest.raises(UserError, match="16 visible units"):
        make().fit(x, callbacks=[TensorBoard(tmp_path, image_shape=(4, 5))], verbose=0)


def test_hyperparameters_may_be_numpy_scalars(x, tmp_path):
    board = TensorBoard(tmp_path, hyperparameters={"rate": np.float32(0.5), "k": np.int64(3)})
    make().fit(x, callbacks=[board], verbose=0)
    assert board.hyperparameters == {"rate": 0.5, "k": 3}


SCHEDULES = {
    "a later value": ({"sleep_q": {0: 1.0, 9: "x"}}, "`sleep_q` must be a finite number"),
    "an unknown setting": ({"sleep": {0: 1.0}}, "Unknown setting of ReweightedWakeSleep 'sleep'"),
    "no start": ({"sleep_q": {1: 1.0}}, "must have a value for epoch 0"),
    "no schedule": ({"sleep_q": 0.5}, "a dict of epochs to values, or a function"),
    "nothing": ({}, "at least one schedule"),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_schedules(case, x):
    schedules, message = SCHEDULES[case]
    with pytest.raises(UserError, match=message):
        make().fit(x, callbacks=[ObjectiveSchedule(**schedules)], verbose=0)


def test_schedules_may_be_those_of_keras(x):
    machine, seen = make(), []
    decay = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(machine.objective.sleep_q)
    )
    machine.fit(x, epochs=3, callbacks=[ObjectiveSchedule(sleep_q=decay), look], verbose=0)
    assert seen == [1.0, 0.5, 0.25]


COMPILE = {
    "loss": ({"loss": "mse"}, "takes no `loss`"),
    "metrics": ({"metrics": ["mae"]}, "takes no `metrics`"),
    "no steps": ({"steps_per_execution": 0}, "`steps_per_execution` must be a positive integer"),
    "text": ({"steps_per_execution": "2"}, "`steps_per_execution` must be a positive integer"),
    "run_eagerly": ({"run_eagerly": "no"}, "`run_eagerly` must be True or False"),
}


@pytest.mark.parametrize("case", COMPILE)
def test_compile(case):
    arguments, message = COMPILE[case]
    with pytest.raises(UserError, match=message):
        make(**arguments)
    machine = HelmholtzMachine.from_sizes(16, [4])
    with pytest.raises(UserError, match="`optimizer` must be"):
        machine.compile(None, ReweightedWakeSleep(2))
    with pytest.raises(UserError, match="`jit_compile` must be True, False or 'auto'"):
        machine.compile("sgd", ReweightedWakeSleep(2), jit_compile="no")
    machine.compile("sgd", ReweightedWakeSleep(2), jit_compile="auto")


def test_lists_of_layers():
    for wrong in (layers.SBN(16), None, 3):
        with pytest.raises(UserError, match="`p_layers` takes a list of stochastic layers"):
            HelmholtzMachine(wrong, [layers.SBN(4)])
    made = HelmholtzMachine((layers.SBN(n) for n in (16, 4)), (layers.SBN(n) for n in (4,)))
    assert made.latent_units == [4]


@pytest.mark.parametrize("seed", [[[1], [2, 3]], [2**70, 1], 2**63, 1.5, "0", [1, 2, 3]])
def test_seeds(seed, x):
    with pytest.raises(UserError, match="seed"):
        HelmholtzMachine.from_sizes(16, [4], seed=seed)
    with pytest.raises(UserError, match="seed"):
        make().log_likelihood(x, 3, seed=seed)


def test_numbers_that_float32_has_not():
    for huge in (1e39, 2**200, np.inf):
        with pytest.raises(UserError, match="`sleep_q` must be a finite number"):
            ReweightedWakeSleep(2, sleep_q=huge)


def test_batches_where_data_are_wanted_as_a_whole(x):
    batches = tf.data.Dataset.from_tensor_slices(x).batch(5)
    for method in ("log_likelihood", "posterior_mean", "reconstruct"):
        with pytest.raises(UserError, match=r"got batches \(.*`predict` accept"):
            getattr(make(), method)(batches)


class OfItsOwn(layers.StochasticLayer):
    """Holds a Keras layer whose dtype is not the machine's."""

    def __init__(self, units, inner, **kwargs):
        super().__init__(units, **kwargs)
        self.dense = keras.layers.Dense(units, dtype=inner)

    def _distribution(self, given):
        return layers.FactorizedBernoulli(self.dense(given))


def test_keras_layers_inside_with_a_dtype_of_their_own(x):
    for inner in ("mixed_float16", "bfloat16"):
        machine = HelmholtzMachine([OfItsOwn(16, inner), layers.SBN(4)], [layers.SBN(4)])
        assert machine.predict(x, verbose=0).dtype == np.float32
    with pytest.raises(UserError, match=r"has dtype float64.*float32"):
        HelmholtzMachine([OfItsOwn(16, "float64"), layers.SBN(4)], [layers.SBN(4)])


def test_empty_validation_data(x):
    for empty in ((), []):
        with pytest.raises(UserError, match=r"\[N, 16\]"):
            make().fit(x, validation_data=empty, verbose=0)


def test_a_datum_of_probability_zero_is_called_what_it_is(x):
    machine = make()
    machine.p_layers[0].bias.assign(np.where(np.arange(16) == 2, np.inf, 0.0))
    with pytest.raises(UserError, match="probability zero"):
        machine.fit(x, callbacks=[StopOnDivergence()], verbose=0)
