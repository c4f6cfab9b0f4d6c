"""Wall-clock time to a validation NLL on binarized MNIST: ours, PyTorch and Pyro.

All train SBN/SBN 200-200-200 with K = 5 from the same initial weights, one after the other, and are
evaluated by our estimator; the clock runs only while they train. With Adam the rate is constant,
with batches of 100: a constant rate reaches the target sooner than a decay over any number of
epochs tried. With Muon, the optimizer of our recipes, the rate falls to zero over a fixed number of
epochs, with batches of 200, and only the end counts. The best of several rates counts. Run after
`make bench`, which installs the peers.
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
# The likeliest first: a rate that is behind the best one after some epochs is given up.
_ADAM_RATES, _ADAM_BATCH, _EVALUATE_EVERY, _COMPARE_AFTER = (4e-3, 2e-3, 1e-3), 100, 2, 8
_MUON_BATCH = 200
# A run with Adam is given up after so many times what ours takes with Muon.
_MOST_TIMES = 5.0


class Muon(NamedTuple):
    """Runs with Muon."""

    epochs: int
    rates: tuple[float, ...]


# By target. A long run needs a lower rate: training/NOTES.md.
_MUON = {100.0: Muon(16, (6e-2, 3e-2)), 96.0: Muon(45, (3e-2,))}
# Adam takes several times as long to this target as Muon; the others are left out for it.
_ADAM_TARGET = 100.0


class Entry(NamedTuple):
    """A library with an optimizer."""

    library: str
    optimizer: str
    rates: tuple[float, ...]


class Trainer(Protocol):
    """Trains for some epochs."""

    batch_size: int
    steps: int

    def epochs(self, first: int, count: int) -> float:
        """Trains; returns the seconds."""

    def machine(self) -> HelmholtzMachine:
        """The machine as it is now."""


def measure(report: Callable) -> dict:
    """Seconds to each target, of ours with Muon first."""
    data = datasets.load("binarized_mnist")
    process = PeerProcess()
    rows: list[dict] = []
    try:
        versions = process.ask("versions")
        with tempfile.TemporaryDirectory() as directory:
            files = _write(Path(directory), data)
            for target, muon in _MUON.items():
                limit = np.inf
                for entry in _entries(target, muon):
                    runs: list[dict] = []
                    for rate in entry.rates:
                        trainer = _trainer(entry, rate, muon.epochs, data, process, files)
                        if entry.optimizer == "muon":
                            run = _whole(trainer, muon.epochs, data)
                        else:
                            run = _until(trainer, target, limit, runs, data)
                        run["rate"] = rate
                        run["reached"] = run["nll"] <= target
                        report(
                            f"{entry.library}, {entry.optimizer} {rate:g}: epoch {run['epochs']}, "
                            f"{run['seconds']:.0f} s, NLL {run['nll']:.2f}"
                        )
                        runs.append(run)
                    reached = [run for run in runs if run["reached"]]
                    best = min(reached, key=lambda run: run["seconds"], default=None)
                    rows.append({"target": target, **entry._asdict(), "best": best, "runs": runs})
                    if not np.isfinite(limit):
                        limit = _MOST_TIMES * (best or runs[0])["seconds"]
    finally:
        process.close()
    return {
        "num_particles": _VALIDATION_PARTICLES,
        "num_data": _VALIDATION_ROWS,
        "most_times": _MOST_TIMES,
        "compare_after": _COMPARE_AFTER,
        "versions": versions,
        "rows": rows,
    }


def _entries(target, muon):
    """What is run for a target: ours with Muon first, it sets the limit for the others."""
    yield Entry("rws_keras", "muon", muon.rates)
    yield Entry("torch_compile", "muon", muon.rates)
    if target == _ADAM_TARGET:
        for library in ("rws_keras", "torch_compile", "pyro"):
            yield Entry(library, "adam", _ADAM_RATES)


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


def _trainer(entry, rate, muon_epochs, data, process, files) -> Trainer:
    is_muon = entry.optimizer == "muon"
    batch_size = _MUON_BATCH if is_muon else _ADAM_BATCH
    steps = len(data.train) // batch_size
    arguments = (entry, rate, batch_size, steps, muon_epochs * steps if is_muon else None)
    if entry.library == "rws_keras":
        return Ours(data, *arguments)
    return Peer(process, files, *arguments)


def _whole(trainer, epochs, data):
    """A run of a fixed length."""
    seconds = trainer.epochs(0, epochs)
    return _result(trainer, [{"epoch": epochs, "seconds": seconds, **_evaluate(trainer, data)}])


def _until(trainer, target, limit, others, data):
    """Trains until an evaluation meets the target, or other rates or the clock say stop."""
    best_after = min((_nll_after(run, _COMPARE_AFTER) for run in others), default=np.inf)
    seconds, curve = 0.0, []
    while True:
        epoch = len(curve) * _EVALUATE_EVERY
        seconds += trainer.epochs(epoch, _EVALUATE_EVERY)
        epoch += _EVALUATE_EVERY
        point = {"epoch": epoch, "seconds": seconds, **_evaluate(trainer, data)}
        curve.append(point)
        behind = epoch == _COMPARE_AFTER and point["nll"] > best_after
        if point["nll"] <= target or behind or seconds > limit or not np.isfinite(point["nll"]):
            return _result(trainer, curve)


def _nll_after(run, epoch):
    return next((point["nll"] for point in run["curve"] if point["epoch"] == epoch), np.inf)


def _evaluate(trainer, data):
    result = trainer.machine().evaluate(
        data.validation[:_VALIDATION_ROWS],
        num_particles=_VALIDATION_PARTICLES,
        batch_size=100,
        return_dict=True,
        verbose=0,
    )
    return {
        "nll": -float(result["log_likelihood"]),
        "nll_se": float(result["log_likelihood_se"]),
    }


def _result(trainer, curve):
    end = curve[-1]
    return {
        "batch_size": trainer.batch_size,
        "epochs": end["epoch"],
        "updates": end["epoch"] * trainer.steps,
        "seconds": end["seconds"],
        "nll": end["nll"],
        "nll_se": end["nll_se"],
        "curve": curve,
    }


class Ours:
    """Ours, by `fit`."""

    def __init__(self, data, entry, rate, batch_size, steps, decay_steps):
        self._data, self.batch_size, self.steps = data, batch_size, steps
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
            datasets.minibatches(self._data.train, self.batch_size, 0, first_epoch=first),
            steps_per_epoch=steps,
            epochs=first + count,
            initial_epoch=first,
            shuffle=False,
            verbose=0,
        )

    def epochs(self, first: int, count: int) -> float:
        """Trains; returns the seconds."""
        began = time.perf_counter()
        self._fit(first, count, self.steps)
        return time.perf_counter() - began

    def machine(self) -> HelmholtzMachine:
        """The machine as it is now."""
        return self._machine


class Peer:
    """A peer in its process."""

    def __init__(self, process, files, entry, rate, batch_size, steps, decay_steps):
        self._process, self._files = process, files
        self.batch_size, self.steps = batch_size, steps
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
