"""Two updates under `tf.distribute`, compared with its definition; run as a process of its own.

    python tests/distributed_step.py mirrored OUT      # two logical devices
    python tests/distributed_step.py worker OUT        # one of several, placed by TF_CONFIG

Writes to OUT the weights after two steps of `fit`, what they should be, and what they would be
if the replicas had drawn the same noise or had been averaged without regard to their data.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import rws_keras
from rws_keras.objectives import ReweightedWakeSleep

ROWS = ((5, 5), (7, 4))  # of each step on the two replicas
RATE = 0.5


def make():
    keras.utils.set_random_seed(0)
    machine = rws_keras.HelmholtzMachine.from_sizes(10, [6, 4], seed=5)
    machine.compile(keras.optimizers.SGD(RATE), ReweightedWakeSleep(3))
    return machine


def flat(values):
    return np.concatenate([np.ravel(value) for value in values])


def batches(x):
    """The rows of each step on each replica."""
    ends = np.cumsum(np.ravel(ROWS))
    return np.reshape(np.array(np.split(x, ends[:-1]), dtype=object), np.shape(ROWS))


def expected(x, replica_of_noise=(0, 1), weighted=True):
    """Weights after steps in which each replica has its rows, noise and share."""
    machine = make()
    for number, parts in enumerate(batches(x)):
        total = [0.0] * len(machine.trainable_variables)
        for part, replica in zip(parts, replica_of_noise, strict=True):
            share = len(part) / sum(map(len, parts)) if weighted else 0.5
            seed = tf.random.fold_in(tf.constant([5, number]), replica)
            noise = machine.objective.noise(machine, len(part), seed)
            gradients, _ = machine.objective.gradients(machine, tf.constant(part), noise)
            total = [t + share * gradient for t, gradient in zip(total, gradients, strict=True)]
        for variable, gradient in zip(machine.trainable_variables, total, strict=True):
            variable.assign(variable - RATE * gradient)
    return flat(machine.get_weights())


def main(how, out):
    if how == "mirrored":
        device = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            device, [tf.config.LogicalDeviceConfiguration()] * 2
        )
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    else:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    x = (np.random.default_rng(0).random((np.sum(ROWS), 10)) < 0.4).astype(np.float32)
    with strategy.scope():
        machine = make()

    def rows(context):
        parts = batches(x)
        if how == "worker":
            parts = parts[:, context.input_pipeline_id]
        # Where one pipeline feeds both devices, they take turns.
        return tf.data.Dataset.from_generator(
            lambda: iter(np.ravel(parts)), output_signature=tf.TensorSpec([None, 10], tf.float32)
        )

    data = strategy.distribute_datasets_from_function(rows)
    history = machine.fit(data, steps_per_epoch=len(ROWS), epochs=1, verbose=0)
    num_data = history.history["num_data"][0]
    evaluation = machine.evaluate(x, batch_size=6, num_particles=50, return_dict=True, verbose=0)
    np.savez(
        out,
        weights=flat(machine.get_weights()),
        expected=expected(x),
        same_noise=expected(x, replica_of_noise=(0, 0)),
        unweighted=expected(x, weighted=False),
        num_data=num_data,
        evaluated=[evaluation["num_data"], evaluation["log_likelihood"]],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
