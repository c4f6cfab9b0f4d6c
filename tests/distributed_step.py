"""Two updates under `tf.distribute`, compared with its definition; run as a process of its own.

    python tests/distributed_step.py mirrored OUT      # two logical devices
    python tests/distributed_step.py mirrored OUT weighted    # and data with weights
    python tests/distributed_step.py mirrored OUT unweighted NVIL    # with another objective
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
from rws_keras import objectives

ROWS = ((5, 5), (7, 4))  # of each step on the two replicas
COUNTS = np.arange(np.sum(ROWS), dtype=np.float32) % 5  # weights, where the data have some
RATE = 0.5


def make(objective):
    keras.utils.set_random_seed(0)
    machine = rws_keras.HelmholtzMachine.from_sizes(10, [6, 4], seed=5)
    machine.compile(keras.optimizers.SGD(RATE), getattr(objectives, objective)(3))
    return machine


def flat(values):
    return np.concatenate([np.ravel(value) for value in values])


def batches(x):
    """The rows of each step on each replica."""
    ends = np.cumsum(np.ravel(ROWS))
    return np.reshape(np.array(np.split(x, ends[:-1]), dtype=object), np.shape(ROWS))


def expected(objective, x, sample_weight, replica_of_noise=(0, 1), weighted=True):
    """Weights after steps in which each replica has its rows, noise and share.

    Running means of an objective are the mean of what each replica makes of them.
    """
    machine = make(objective)
    running = machine.objective.non_trainable_variables
    for number, (parts, weights) in enumerate(zip(batches(x), batches(sample_weight), strict=True)):
        total = [0.0] * len(machine.trainable_variables)
        before, after = [variable.numpy() for variable in running], []
        for part, weight, replica in zip(parts, weights, replica_of_noise, strict=True):
            share = weight.sum() / sum(each.sum() for each in weights) if weighted else 0.5
            seed = tf.random.fold_in(tf.constant([5, number]), replica)
            noise = machine.objective.noise(machine, len(part), seed)
            gradients, particles = machine.objective.gradients(
                machine, tf.constant(part), noise, tf.constant(weight)
            )
            machine.objective.after_step(machine, part, particles, tf.constant(weight))
            after.append([variable.numpy() for variable in running])
            for variable, value in zip(running, before, strict=True):
                variable.assign(value)
            total = [t + share * gradient for t, gradient in zip(total, gradients, strict=True)]
        for variable, gradient in zip(machine.trainable_variables, total, strict=True):
            variable.assign(variable - RATE * gradient)
        for variable, values in zip(running, zip(*after, strict=True), strict=True):
            variable.assign(np.mean(values, axis=0))
    return flat(machine.get_weights())


def main(how, out, data="unweighted", objective="ReweightedWakeSleep"):
    if how == "mirrored":
        device = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            device, [tf.config.LogicalDeviceConfiguration()] * 2
        )
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    else:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    x = (np.random.default_rng(0).random((np.sum(ROWS), 10)) < 0.4).astype(np.float32)
    is_weighted = data == "weighted"
    weight = COUNTS if is_weighted else np.ones(len(x), np.float32)
    with strategy.scope():
        machine = make(objective)

    def rows(context):
        parts, weights = batches(x), batches(weight)
        if how == "worker":
            parts, weights = (each[:, context.input_pipeline_id] for each in (parts, weights))
        # Where one pipeline feeds both devices, they take turns.
        pairs = tf.data.Dataset.from_generator(
            lambda: zip(np.ravel(parts), np.ravel(weights), strict=True),
            output_signature=(tf.TensorSpec([None, 10]), tf.TensorSpec([None])),
        )
        # TensorFlow distributes no `None`.
        return pairs.map(lambda x, weight: {"x": x, "sample_weight": weight} if is_weighted else x)

    data = strategy.distribute_datasets_from_function(rows)
    history = machine.fit(data, steps_per_epoch=len(ROWS), epochs=1, verbose=0)
    num_data = history.history["num_data"][0]
    evaluation = machine.evaluate(
        x,
        sample_weight=weight if is_weighted else None,
        batch_size=6,
        num_particles=50,
        return_dict=True,
        verbose=0,
    )
    np.savez(
        out,
        weights=flat(machine.get_weights()),
        expected=expected(objective, x, weight),
        same_noise=expected(objective, x, weight, replica_of_noise=(0, 0)),
        unweighted=expected(objective, x, weight, weighted=False),
        num_data=num_data,
        evaluated=[evaluation["num_data"], evaluation["log_likelihood"]],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
