"""Wall-clock time to a validation NLL on binarized MNIST: ours, PyTorch and Pyro.

All train SBN/SBN 200-200-200 with K = 5 from the same initial weights, one after the other, and are
evaluated by our estimator; the clock runs only while they train. With Adam the rate is constant,
with batches of 100: a constant rate reaches the target sooner than a decay over any number of
epochs tried. With Muon, the optimizer of our recipes, the rate falls to zero over a fixed number of
epochs, with batches of 200, and only the end counts. The best of three rates counts; ours
has one, with Muon that of the recipe. Run after `make bench`, which installs the peers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import keras
import numpy as np

from benchmarks.against_peers import PeerProcess, named
from benchmarks.machines import SBN3, VISIBLE
from rws_keras import HelmholtzMachine, datasets
from rws_keras.objectives import ReweightedWakeSleep
from rws_keras.training import recipe as recipes

_RECIPE = "mnist-rws-200-200-200"
_PARTICLES = 5
_VALIDATION_ROWS, _VALIDATION_PARTICLES = 2000, 100
_OUR_ADAM_RATE, _ADAM_RATES, _ADAM_BATCH, _EVALUATE_EVERY = 2e-3, (1e-3, 2e-3, 4e-3), 100, 2
# Ours has the rate of the recipe.
_MUON_RATES, _MUON_BATCH = (3e-2, 6e-2, 1.2e-1), 200
# Target, and epochs of Muon.
_TARGETS = {100.0: 16}
# A run with Adam is given up after so many times what ours takes with Muon.
_MOST_TIMES = 5.0


class Entry(NamedTuple):
    """A library with an optimizer."""

    library: str
    optimizer: str
    rates: tuple[float, ...]


class Trainer(Protocol):
    """Trains for some epochs."""

    def epochs(self, first: int, count: int) -> float:
        """Trains; returns the seconds."""

    def machine(self) -> HelmholtzMachine:
        """The machine as it is now."""


def measure(report: Callable) -> dict:
    """Seconds to each target, of ours with Muon first."""
    data = datasets.load("binarized_mnist")
    _, recipe = recipes.load(_RECIPE)
    entries = [
        Entry("rws_keras", "muon", (recipe.optimizer.learning_rate,)),
        Entry("rws_keras", "adam", (_OUR_ADAM_RATE,)),
        Entry("torch_compile", "muon", _MUON_RATES),
        Entry("torch_compile", "adam", _ADAM_RATES),
        Entry("pyro", "adam", _ADAM_RATES),
    ]
    process = PeerProcess()
    rows: list[dict] = []
    try:
        versions = process.ask("versions")
        with tempfile.TemporaryDirectory() as directory:
            files = _write(Path(directory), data)
            for target, muon_epochs in _TARGETS.items():
                limit = np.inf
                for number, entry in enumerate(entries):
                    runs = [
                        _run(entry, rate, target, muon_epochs, limit, data, process, files, report)
                        for rate in entry.rates
                    ]
                    reached = [run for run in runs if run["reached"]]
                    best = min(reached, key=lambda run: run["seconds"], default=None)
                    rows.append(
                        {
                            "target": target,
                            "library": entry.library,
                            "optimizer": entry.optimizer,
                            "best": best,
                            "runs": runs,
                        }
                    )
                    if number == 0:
                        limit = _MOST_TIMES * runs[0]["seconds"]
    finally:
        process.close()
    return {
        "num_particles": _VALIDATION_PARTICLES,
        "num_data": _VALIDATION_ROWS,
        "most_times": _MOST_TIMES,
        "versions": versions,
        "rows": rows,
    }


def _write(directory, data):
    """Training data and initial weights for the peers; returns their directory."""
    np.save(directory / "train.npy", data.train)
    np.savez(directory / "weights.npz", **dict(_weights(_new_machine())))
    return directory


def _new_machine():
    keras.utils.set_random_seed(0)
    return HelmholtzMachine.from_sizes(VISIBLE, SBN3, seed=0)


def _weights(machine):
    return ((name, variable.numpy()) for name, variable in named(machine))


def _run(entry, rate, target, muon_epochs, limit, data, process, files, report):
    """Trains until an evaluation meets the target, or it takes too long."""
    is_muon = entry.optimizer == "muon"
    batch_size = _MUON_BATCH if is_muon else _ADAM_BATCH
    steps = len(data.train) // batch_size
    trainer: Trainer
    arguments = (entry, rate, batch_size, steps, muon_epochs * steps if is_muon else None)
    if entry.library == "rws_keras":
        trainer = Ours(data, *arguments)
    else:
        trainer = Peer(process, files, *arguments)
    seconds, curve, epoch = 0.0, [], 0
    count = muon_epochs if is_muon else _EVALUATE_EVERY
    while True:
        seconds += trainer.epochs(epoch, count)
        epoch += count
        result = trainer.machine().evaluate(
            data.validation[:_VALIDATION_ROWS],
            num_particles=_VALIDATION_PARTICLES,
            batch_size=100,
            return_dict=True,
            verbose=0,
        )
        nll = -float(result["log_likelihood"])
        curve.append({"epoch": epoch, "seconds": seconds, "nll": nll})
        report(
            f"{entry.library}, {entry.optimizer} {rate:g}: epoch {epoch}, {seconds:.0f} s, "
            f"NLL {nll:.2f}"
        )
        if nll <= target or is_muon or seconds > limit or not np.isfinite(nll):
            break
    return {
        "rate": rate,
        "batch_size": batch_size,
        "epochs": epoch,
        "updates": epoch * steps,
        "seconds": seconds,
        "nll": nll,
        "nll_se": float(result["log_likelihood_se"]),
        "reached": nll <= target,
        "curve": curve,
    }


class Ours:
    """Ours, by `fit`."""

    def __init__(self, data, entry, rate, batch_size, steps, decay_steps):
        self._data, self._batch_size, self._steps = data, batch_size, steps
        self._machine = machine = _new_machine()
        if entry.optimizer == "muon":
            recipe = recipes.load(_RECIPE)[1].optimizer
            optimizer = recipe.model_copy(update={"learning_rate": rate}).make(decay_steps)
        else:
            optimizer = keras.optimizers.Adam(rate)
        machine.compile(
            optimizer, ReweightedWakeSleep(_PARTICLES), num_particles=_VALIDATION_PARTICLES
        )
        # Compilation is no part of training.
        weights = machine.get_weights()
        state = [variable.numpy() for variable in machine.optimizer.variables]
        self._fit(0, 1, steps=1)
        machine.set_weights(weights)
        for variable, value in zip(machine.optimizer.variables, state, strict=True):
            variable.assign(value)

    def _fit(self, first, count, steps):
        self._machine.fit(
            datasets.minibatches(self._data.train, self._batch_size, 0, first_epoch=first),
            steps_per_epoch=steps,
            epochs=first + count,
            initial_epoch=first,
            shuffle=False,
            verbose=0,
        )

    def epochs(self, first: int, count: int) -> float:
        """Trains; returns the seconds."""
        began = time.perf_counter()
        self._fit(first, count, self._steps)
        return time.perf_counter() - began

    def machine(self) -> HelmholtzMachine:
        """The machine as it is now."""
        return self._machine


class Peer:
    """A peer in its process."""

    def __init__(self, process, files, entry, rate, batch_size, steps, decay_steps):
        self._process, self._files, self._steps = process, files, steps
        self._machine = _new_machine()
        process.ask(
            "start",
            name=entry.library,
            sizes=[VISIBLE, *SBN3],
            num_particles=_PARTICLES,
            optimizer=entry.optimizer,
            rate=rate,
            decay_steps=decay_steps,
            batch_size=batch_size,
            data=str(files / "train.npy"),
            weights=str(files / "weights.npz"),
        )

    def epochs(self, first: int, count: int) -> float:
        """Trains; returns the seconds."""
        return self._process.ask("train", first=first, count=count)

    def machine(self) -> HelmholtzMachine:
        """The machine as it is now."""
        path = self._files / "trained.npz"
        self._process.ask("save", to=str(path))
        arrays = np.load(path)
        for name, variable in named(self._machine):
            variable.assign(arrays[name])
        return self._machine
