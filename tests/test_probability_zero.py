"""Data that P cannot produce: -inf for them, nothing for the gradient, one warning."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from exact import FAMILIES
from marks import slow_except

from rws_keras import HelmholtzMachine
from rws_keras.models import Scorer
from rws_keras.models.evaluator import ZeroProbabilityWarning
from rws_keras.objectives import ReweightedWakeSleep, WakeSleep

pytestmark = pytest.mark.filterwarnings("ignore::rws_keras.models.evaluator.ZeroProbabilityWarning")


def make(p="sbn", objective=None, **arguments):
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(8, [5, 3], p=p, q="sbn", seed=0)
    arguments = {"jit_compile": False, "num_particles": 5, **arguments}
    machine.compile(keras.optimizers.SGD(0.5), objective or ReweightedWakeSleep(3), **arguments)
    return machine


def forbid_zeros(machine):
    """Makes the third visible unit one for certain."""
    bias = machine.p_layers[0].bias
    bias.assign(np.where(np.arange(8) == 2, np.inf, bias.numpy()))
    return machine


@pytest.fixture
def x(binary):
    x = binary(20, 8, probability=0.6)
    assert 3 < x[:, 2].sum() < 17
    return x


@pytest.mark.parametrize("family", slow_except(["sbn", "dsbn"], FAMILIES))
def test_impossible_rows_have_minus_infinity_and_leave_the_others_alone(family, x):
    machine, possible = make(family), x[:, 2] == 1
    plain = machine.log_likelihood(x, 50, seed=0)
    before = plain.log_likelihood.numpy()
    forbid_zeros(machine)
    found = machine.log_likelihood(x, 50, seed=0)
    for values in (found.log_likelihood.numpy(), machine.predict(x, verbose=0)):
        assert (values[~possible] == -np.inf).all()
        assert np.isfinite(values[possible]).all()
    # What is certain costs nothing any more.
    assert (found.log_likelihood.numpy()[possible] > before[possible]).all()
    assert np.isnan(found.standard_error.numpy()[~possible]).all()
    assert np.isfinite(found.standard_error.numpy()[possible]).all()
    assert (found.effective_sample_size.numpy()[~possible] == 0).all()
    assert (found.effective_sample_size.numpy()[possible] >= 1).all()
    alone = machine.log_likelihood(x, 50, seed=0).log_likelihood.numpy()[possible]
    np.testing.assert_array_equal(alone, found.log_likelihood.numpy()[possible])
    sure = machine.log_likelihood(x, 400, seed=0, max_standard_error=0.5)
    assert (sure.num_particles.numpy()[~possible] == 400).all()
    assert np.isfinite(sure.log_likelihood.numpy()[possible]).all()
    assert all(np.isfinite(mean).all() for mean in machine.posterior_mean(x[possible], 9, seed=0))
    exported = Scorer(machine).signatures()["serving_default"](tf.constant(x))
    assert (exported["log_likelihood"].numpy()[~possible] == -np.inf).all()
    assert np.isfinite(exported["log_likelihood"].numpy()[possible]).all()


OBJECTIVES = {
    "all updates": ReweightedWakeSleep(3),
    "resampled": ReweightedWakeSleep(4, num_resampled=2),
    "wake-sleep": WakeSleep(),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("family", slow_except(["sbn"], FAMILIES))
def test_impossible_rows_have_no_gradient(family, objective, x):
    objective = OBJECTIVES[objective]
    machine, possible = forbid_zeros(make(family, objective)), x[:, 2] == 1

    def gradients(sample_weight=None):
        noise = objective.noise(machine, len(x), seed=0)
        found, _ = objective.gradients(machine, tf.constant(x), noise, sample_weight)
        return [gradient.numpy() for gradient in found]

    draws = objective.draw(
        machine, x, objective.split(machine, len(x), objective.noise(machine, len(x), seed=0))
    )
    assert np.isfinite(objective.loss(machine, tf.constant(x), draws)[0])
    with_all, only_possible = gradients(), gradients(tf.constant(possible, tf.float32))
    assert all(np.isfinite(gradient).all() for gradient in with_all)
    # A mean over all rows and one over the possible ones: equal but for the number of rows. The
    # sleep update, of Q alone, is the same in both.
    share = possible.mean()
    for variable, ours, theirs in zip(
        machine.trainable_variables, with_all, only_possible, strict=True
    ):
        if variable.path.startswith("p_"):
            np.testing.assert_allclose(ours, share * theirs, atol=1e-5)


@pytest.mark.parametrize("jit_compile", slow_except([False], [False, True]))
def test_training_goes_on_with_the_other_rows(jit_compile, x):
    machine = forbid_zeros(make(jit_compile=jit_compile))
    before = machine.get_weights()
    history = machine.fit(x, batch_size=10, epochs=2, verbose=0).history
    assert history["log_likelihood"] == [-np.inf, -np.inf]
    after = machine.get_weights()
    assert not any(np.isnan(weights).any() for weights in after)
    assert not any(np.array_equal(old, new) for old, new in zip(before, after, strict=True))


def test_weights_so_large_that_sums_overflow(x):
    machine, possible = make(), x[:, 2] == 1
    kernel = machine.p_layers[0].kernel
    kernel.assign(np.where(np.arange(8) == 2, 1e38, kernel.numpy()))
    scores = machine.predict(x, verbose=0)
    assert np.isfinite(scores[possible]).all()
    assert (scores[~possible] < -1e37).sum() > 0
    assert not np.isnan(scores).any()
    machine.fit(x, batch_size=10, verbose=0)
    assert not any(np.isnan(weights).any() for weights in machine.get_weights())


def test_one_warning_a_call(x):
    machine = forbid_zeros(make())
    count = f"{int((x[:, 2] == 0).sum())} of 20"
    for call, message in (
        (lambda: machine.predict(x, verbose=0), count),
        (lambda: machine.evaluate(x, verbose=0), "1 of 1"),
        (lambda: machine.fit(x, epochs=3, validation_data=x, batch_size=5, verbose=0), "6 of 6"),
        (lambda: machine.log_likelihood(x, 5), count),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        ours = [w for w in caught if issubclass(w.category, ZeroProbabilityWarning)]
        assert len(ours) == 1
        assert message in str(ours[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ZeroProbabilityWarning)
        machine.predict(x[x[:, 2] == 1], verbose=0)
        # A row of weight zero does not count.
        assert np.isfinite(machine.evaluate(x, sample_weight=x[:, 2], verbose=0)).all()
