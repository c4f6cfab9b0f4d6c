"""Gradients of resampled particles only: their variance, and the time of the step."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from benchmarks.machines import SBN3, VISIBLE
from rws_keras import HelmholtzMachine, datasets
from rws_keras.objectives import ReweightedWakeSleep
from rws_keras.training import recipe as recipes
from rws_keras.training.timing import alternate, ratio, summary, timer

_BATCH = 100
_SETTINGS = ((5, None), (5, 1), (5, 2), (50, None), (50, 1), (50, 5), (50, 10))
_DRAWS = 200


def measure(report) -> dict:
    """Variance over minibatches and noise at a machine of a few epochs; time in turn."""
    report("training a machine for three epochs")
    data = datasets.load("binarized_mnist")
    machine = _trained(data)
    batches = datasets.minibatches(data.train, _BATCH, seed=1)
    rows, subjects = [], {}
    for num_particles, num_resampled in _SETTINGS:
        report(f"K = {num_particles}, resampled {num_resampled}")
        objective = ReweightedWakeSleep(num_particles, num_resampled=num_resampled)
        step = tf.function(
            lambda x, noise, objective=objective: objective.gradients(machine, x, noise)[0],
            jit_compile=True,
        )
        mean, square = 0.0, 0.0
        for seed, batch in enumerate(batches.take(_DRAWS)):
            x = tf.cast(batch, tf.float32)
            gradients = step(x, objective.noise(machine, _BATCH, seed))
            flat = np.concatenate([np.ravel(gradient) for gradient in gradients]).astype(np.float64)
            mean, square = mean + flat / _DRAWS, square + flat**2 / _DRAWS
        variance = float(np.sum(square - mean**2) * _DRAWS / (_DRAWS - 1))
        rows.append({"num_particles": num_particles, "num_resampled": num_resampled})
        rows[-1] |= {"variance": variance, "squared_norm": float(np.sum(mean**2))}
        subjects[f"{num_particles}/{num_resampled}"] = timer(_step(objective, x))
    times = alternate(subjects, rounds=9, steps=10)
    for row, (num_particles, num_resampled) in zip(rows, _SETTINGS, strict=True):
        own = times[f"{num_particles}/{num_resampled}"]
        plain = times[f"{num_particles}/None"]
        full = next(r for r in rows if r["num_particles"] == num_particles)
        row |= {**summary(own), **ratio(own, plain)}
        row["variance_ratio"] = row["variance"] / full["variance"]
        row["variance_times_time"] = row["variance_ratio"] * row["ratio"]
    return {
        "batch_size": _BATCH,
        "draws": _DRAWS,
        "rows": rows,
        "k50_resampled5_over_k5": ratio(times["50/5"], times["5/None"]),
    }


def _trained(data):
    _, recipe = recipes.load("mnist-rws-200-200-200")
    machine = recipe.make_machine(data)
    machine.fit(data.train, batch_size=recipe.batch_size, epochs=3, verbose=0)
    return machine


def _step(objective, x):
    machine = HelmholtzMachine.from_sizes(VISIBLE, SBN3, seed=0)
    machine.compile(keras.optimizers.Adam(2e-3), objective)
    machine.optimizer.build(machine.trainable_variables)
    step = tf.function(machine.train_step, autograph=False)
    step((x,))
    return lambda: step((x,))
