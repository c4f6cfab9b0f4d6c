"""TensorFlow's checks for NaN and infinities find none on the way."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exact import FAMILIES

from rws_keras import HelmholtzMachine
from rws_keras.models import Scorer
from rws_keras.objectives import ReweightedWakeSleep, WakeSleep

# Sizes of which no other test has autoregressive layers: what is traced here keeps the checks.
UNITS, LATENTS = 23, 11


@pytest.fixture(autouse=True)
def checked():
    tf.debugging.enable_check_numerics()
    yield
    tf.debugging.disable_check_numerics()


OBJECTIVES = {
    "RWS": lambda: ReweightedWakeSleep(3),
    "resampled": lambda: ReweightedWakeSleep(4, num_resampled=2),
    "wake-sleep": lambda: WakeSleep(),  # K = 1, of which no standard error can be told
}
GAUSSIAN = {"p": "dsbn", "q": "gaussian", "prior": "gaussian"}
MACHINES = {**{family: {"p": family, "q": family} for family in FAMILIES}, "gaussian": GAUSSIAN}


# All families with RWS, and all objectives with one of them, eagerly too.
CASES = [
    *((family, "RWS", False) for family in MACHINES),
    *(("sbn", objective, False) for objective in OBJECTIVES if objective != "RWS"),
    *(("sbn", objective, True) for objective in OBJECTIVES),
]


@pytest.mark.parametrize(
    ("family", "objective", "run_eagerly"),
    [CASES[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES[1:])],
)
def test_fit_evaluate_and_predict(family, objective, run_eagerly, binary):
    x = binary(20, UNITS)
    machine = HelmholtzMachine.from_sizes(UNITS, [LATENTS], **MACHINES[family], seed=0)
    optimizer, objective = keras.optimizers.Adam(1e-3), OBJECTIVES[objective]()
    machine.compile(optimizer, objective, run_eagerly=run_eagerly, jit_compile=False)
    machine.fit(x, sample_weight=np.arange(20) % 3, batch_size=10, validation_data=x, verbose=0)
    for num_particles in (1, 30):
        assert np.isfinite(machine.evaluate(x, num_particles=num_particles, verbose=0)).all()
        assert np.isfinite(machine.predict(x, num_particles=num_particles, verbose=0)).all()
    assert np.isfinite(machine.log_likelihood(x, 30, seed=0).standard_error).all()
    machine.log_likelihood(x, 300, max_standard_error=0.5)
    machine.posterior_mean(x, 5)
    machine.reconstruct(x, 5)
    machine.sample(5)
    if family != "gaussian":
        Scorer(machine).signatures()["impute"](tf.constant(x), tf.ones_like(x))


def test_the_default_is_compiled_without_xla_and_says_so(binary):
    machine = HelmholtzMachine.from_sizes(UNITS, [LATENTS], seed=0)
    machine.compile("adam", ReweightedWakeSleep(3))
    with pytest.warns(UserWarning, match="not compiled by XLA"):
        machine.fit(binary(20, UNITS), verbose=0)


def test_checks_that_begin_after_the_first_fit(binary):
    tf.debugging.disable_check_numerics()
    machine, x = HelmholtzMachine.from_sizes(UNITS, [LATENTS], seed=0), binary(20, UNITS)
    machine.compile("adam", ReweightedWakeSleep(3))
    machine.fit(x, batch_size=10, verbose=0)
    tf.debugging.enable_check_numerics()
    with pytest.warns(UserWarning, match="not compiled by XLA"):
        machine.fit(x, batch_size=7, verbose=0)


def test_what_is_not_a_number_is_still_found(binary):
    machine = HelmholtzMachine.from_sizes(UNITS, [LATENTS], seed=0)
    machine.p_layers[0].bias.assign(np.full(UNITS, np.nan))
    with pytest.raises(tf.errors.InvalidArgumentError, match="NaN"):
        machine.predict(binary(20, UNITS), verbose=0)
