"""NADE's two ways to its logits: by blocks for XLA, by runs for scoring."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rws_keras import HelmholtzMachine
from rws_keras.layers import nade
from rws_keras.objectives import ReweightedWakeSleep

UNITS, HIDDEN = 37, 4


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# 250 particles are three parts of a row.
@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("particles", [0, 1, 99, 250])
def test_both_ways_agree_where_no_size_is_known(particles, rows):
    encoder, decoder = random(UNITS, HIDDEN), random(UNITS, HIDDEN)[::-1].copy()

    @tf.function(
        input_signature=[tf.TensorSpec([None, UNITS]), tf.TensorSpec([None, None, HIDDEN])]
    )
    def both(value, hidden_shift):
        arguments = (value, hidden_shift, encoder, decoder, "sigmoid", UNITS, HIDDEN)
        return nade._logits_by_runs(*arguments), nade._logits_by_blocks(*arguments)

    # Values that are not binary change the hidden layer too.
    value = np.round(2 * random(rows, UNITS).clip(0)) / 2
    by_runs, by_blocks = both(value, random(particles, rows, HIDDEN))
    assert by_runs.shape == [particles, rows, UNITS]
    np.testing.assert_allclose(by_runs, by_blocks, atol=1e-4)


def test_scoring_goes_by_runs_and_training_by_blocks():
    family = {"family": "nade", "hidden_units": 3}
    machine = HelmholtzMachine.from_sizes(23, [5], p=[family], q="sbn")
    machine.compile(keras.optimizers.SGD(1e-2), ReweightedWakeSleep(3))
    x = np.eye(23, dtype=np.float32)[:4]

    def traces():
        ways = (nade._logits_by_runs, nade._logits_by_blocks)
        return [way.experimental_get_tracing_count() for way in ways]

    before = traces()
    machine.train_on_batch(x)
    after_training = traces()
    assert after_training[0] == before[0]
    assert after_training[1] > before[1]
    machine.predict(x, num_particles=3, verbose=0)
    assert traces()[0] > after_training[0]
