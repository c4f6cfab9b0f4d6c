"""Wall-clock time to a validation NLL of 100 nats on binarized MNIST: the recipe against Adam.

Both train SBN/SBN 200-200-200 with K = 5 by `fit`. Adam keeps its rate of 2e-3 with batches of
100, which takes it to the target sooner than a decay over any number of epochs tried. The
recipe's rate falls to zero over its epochs, so its length is part of it.
"""

from __future__ import annotations

import time

import keras

from rws_keras import HelmholtzMachine, datasets
from rws_keras.objectives import ReweightedWakeSleep
from rws_keras.training import recipe as recipes

TARGET = 100.0
_RECIPE = "mnist-rws-200-200-200"
_RECIPE_EPOCHS = 12
_MOST_EPOCHS = 80


def measure(report) -> dict:
    """Trains both from the same seed, one after the other."""
    data = datasets.load("binarized_mnist")
    _, recipe = recipes.load(_RECIPE)
    steps = _RECIPE_EPOCHS * recipe.steps_per_epoch(len(data.train))
    adam = _train(data, "Adam 2e-3", keras.optimizers.Adam(2e-3), 100, _MOST_EPOCHS, 2, report)
    best = _train(
        data,
        f"recipe {_RECIPE}, {_RECIPE_EPOCHS} epochs",
        recipe.optimizer.make(steps),
        recipe.batch_size,
        _RECIPE_EPOCHS,
        _RECIPE_EPOCHS,
        report,
    )
    return {
        "target": TARGET,
        "runs": [adam, best],
        "seconds_ratio": best["seconds"] / adam["seconds"],
    }


def _train(data, name, optimizer, batch_size, epochs, evaluate_every, report):
    """Trains until an evaluation meets the target; the clock runs while `fit` does."""
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(data.train.shape[1], [200, 200, 200], seed=0)
    machine.compile(optimizer, ReweightedWakeSleep(num_particles=5), num_particles=100)
    batches = datasets.minibatches(data.train, batch_size, seed=0)
    steps = -(-len(data.train) // batch_size)
    # Compilation is no part of training.
    weights = machine.get_weights()
    machine.optimizer.build(machine.trainable_variables)
    state = [variable.numpy() for variable in machine.optimizer.variables]
    machine.fit(batches, steps_per_epoch=1, epochs=1, shuffle=False, verbose=0)
    machine.set_weights(weights)
    for variable, value in zip(machine.optimizer.variables, state, strict=True):
        variable.assign(value)

    seconds, curve = 0.0, []
    for done in range(0, epochs, evaluate_every):
        more = min(evaluate_every, epochs - done)
        part = datasets.minibatches(data.train, batch_size, seed=0, first_epoch=done)
        began = time.perf_counter()
        machine.fit(
            part,
            steps_per_epoch=steps,
            epochs=done + more,
            initial_epoch=done,
            shuffle=False,
            verbose=0,
        )
        seconds += time.perf_counter() - began
        result = machine.evaluate(data.validation, batch_size=100, return_dict=True, verbose=0)
        nll = float(result["loss"])
        curve.append({"epoch": done + more, "seconds": seconds, "nll": nll})
        report(f"{name}: epoch {done + more}, {seconds:.0f} s, NLL {nll:.2f}")
        if nll <= TARGET:
            break
    return {
        "name": name,
        "batch_size": batch_size,
        "epochs": curve[-1]["epoch"],
        "updates": curve[-1]["epoch"] * steps,
        "seconds": seconds,
        "nll": nll,
        "nll_se": float(result["log_likelihood_se"]),
        "num_particles": 100,
        "num_data": int(result["num_data"]),
        "reached": nll <= TARGET,
        "curve": curve,
    }
