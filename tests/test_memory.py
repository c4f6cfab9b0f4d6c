"""Work that would not fit if all of it were held at once, in bounded memory."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

START = """
import resource

import numpy as np
import tensorflow as tf
from rws_keras import HelmholtzMachine, layers


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

"""

# The visible layer's activations of all particles at once would be 160 MB each.
MANY_PARTICLES = """
machine = HelmholtzMachine.from_sizes(200, [100, 50], seed=0)
x = (np.random.default_rng(0).random((2, 200)) < 0.4).astype(np.float32)
machine.evaluate(x, num_particles=2_500, verbose=0)
before = peak()
result = machine.evaluate(x, num_particles=100_000, return_dict=True, verbose=0)
assert result["num_particles"] == 100_000
assert result["ess"] > 1
print(peak() - before)
"""

# The hidden activations of all units at once would be 392 MB, and as much again backwards.
MANY_UNITS = """
layer = layers.NADE(784, hidden_units=250)
layer.build()
x = tf.constant((np.random.default_rng(0).random((500, 784)) < 0.2).astype(np.float32))


def gradients(x):
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer.distribution().log_prob(x))
    return tape.gradient(total, [v.value for v in layer.trainable_variables])


gradients(x[:1])
before = peak()
assert all(np.isfinite(gradient).all() for gradient in gradients(x))
print(peak() - before)
"""


# Every call with another K than the one before, each as often as a long session would.
MANY_CALLS = """
from rws_keras.callbacks import ObjectiveSchedule
from rws_keras.objectives import ReweightedWakeSleep

machine = HelmholtzMachine.from_sizes(50, [20, 10], seed=0)
x = (np.random.default_rng(0).random((60, 50)) < 0.4).astype(np.float32)
machine.compile("adam", ReweightedWakeSleep(3), jit_compile=False)
dataset = tf.data.Dataset.from_tensor_slices(x).batch(30)
annealed = ObjectiveSchedule(sleep_q=lambda epoch: 0.5 + 0.01 * epoch)


def use(rounds):
    for number in range(rounds):
        machine.objective.num_particles = 3 + number % 2
        machine.fit(x, batch_size=30, validation_data=x, verbose=0)
        for num_particles in (5, 7 + number % 3):
            machine.evaluate(dataset, num_particles=num_particles, verbose=0)
            machine.predict(x, num_particles=num_particles, verbose=0)
            machine.log_likelihood(x, num_particles)
    machine.fit(x, epochs=rounds, callbacks=[annealed], verbose=0)


use(20)
before = peak()
use(80)
print(peak() - before)
"""

WORK = {"particles": MANY_PARTICLES, "units": MANY_UNITS, "calls": MANY_CALLS}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_peak_memory_grows_by_less_than_150_megabytes(work):
    done = subprocess.run(
        [sys.executable, "-c", START + work],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 150, done.stdout
