"""Checkpoints: what a run needs to go on as if it had not been interrupted."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import keras

from rws_keras import HelmholtzMachine
from rws_keras.errors import UserError
from rws_keras.files import read_json, replace_directory, replace_file, write_json
from rws_keras.training.run import Run, load_machine

_KEPT = 2
_MONITOR = "val_log_likelihood"


class Checkpoint(keras.callbacks.Callback):
    """Saves every epoch, keeps the best, and stops when there is no more progress.

    An epoch is a directory with the machine (weights, optimizer, state of the noise) and
    what the run knows of itself. It is flushed to disk and renamed into place when it is complete,
    so that a crash or a power cut at any moment leaves the epoch before.

    Args:
        run: The run.
        patience: Stop after this many epochs without a better validation likelihood.
        state: State of the run to go on from, as `latest` returns it.
    """

    def __init__(self, run: Run, patience: int | None = None, state: dict | None = None):
        super().__init__()
        self.run = run
        self.patience = patience
        self.state = state or {"epoch": 0, "best_epoch": 0, "seconds": 0.0, "history": []}

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        state = self.state
        state["epoch"] = epoch + 1
        state["seconds"] += time.perf_counter() - self._began
        state["history"].append({key: float(value) for key, value in logs.items()})
        best = state["history"][max(state["best_epoch"] - 1, 0)][_MONITOR]
        is_best = state["epoch"] == 1 or logs[_MONITOR] > best
        if is_best:
            state["best_epoch"] = state["epoch"]
        self._save(is_best)
        self.run.update_metrics(**state)
        if self.patience and state["epoch"] - state["best_epoch"] >= self.patience:
            self.model.stop_training = True

    def _save(self, is_best):
        # A disk without space, or a crash, leaves the checkpoints that were there before.
        with replace_directory(self.run.checkpoints / f"epoch-{self.state['epoch']:05d}") as new:
            self.model.save(new / "machine.keras")
            write_json(new / "state.json", self.state)
            if is_best:
                # Before the epoch itself: after a crash in between the epoch is trained again,
                # to the same machine.
                with replace_file(self.run.best) as best:
                    shutil.copyfile(new / "machine.keras", best)
        for old in _epochs(self.run)[:-_KEPT]:
            shutil.rmtree(old)


def latest(run: Run) -> tuple[HelmholtzMachine | None, dict | None]:
    """The machine and the state of the last complete epoch, or `(None, None)`.

    Raises:
        ValueError: If the checkpoint is damaged.
    """
    epochs = _epochs(run)
    if not epochs:
        return None, None
    advice = f"Delete {epochs[-1]} and resume again: the run then goes on from the epoch before."
    machine = load_machine(epochs[-1] / "machine.keras", advice)
    try:
        state = read_json(epochs[-1] / "state.json")
    except ValueError as error:
        raise UserError(f"The checkpoint {epochs[-1]} is damaged ({error}) {advice}") from error
    return machine, state


def _epochs(run: Run) -> list[Path]:
    return sorted(run.checkpoints.glob("epoch-*"))
