"""Run directories: what a run writes to disk, and how.

RUN/recipe.json         the recipe as run
RUN/run.json            command, seed, versions, machine
RUN/checkpoints/        the last two epochs, and best.keras
RUN/logs/               TensorBoard
RUN/metrics.json        history, best epoch, final evaluations, or where the run diverged
RUN/samples.png|csv     samples from P: images as a PNG, other data as rows of zeros and ones
RUN/evaluating-….json   an evaluation that was interrupted

The field `format` of run.json and metrics.json is the version of this layout. This version of the
library reads formats up to `FORMAT`; files without the field have format 1. It is increased when a
field is removed or changes its meaning, not when one is added.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import keras

import rws_keras
from rws_keras import HelmholtzMachine
from rws_keras.errors import UserError
from rws_keras.files import expanded, make_directory, read_json, write_json
from rws_keras.training import recipe as recipes
from rws_keras.training.recipe import Recipe

FORMAT = 1
# What is evaluated when the training has ended.
FINAL_SPLITS = ("validation", "test")
_PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "numpy")


class Run:
    """A run directory.

    Args:
        path: The directory.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = expanded(path)
        self.checkpoints = self.path / "checkpoints"
        self.logs = self.path / "logs"
        self.samples = self.path / "samples.png"
        self.best = self.checkpoints / "best.keras"

    @classmethod
    def create(cls, path: str | os.PathLike, recipe: Recipe) -> Run:
        """Makes the directory of a new run.

        The recipe is checked first, so that one that cannot be run leaves no directory.

        Raises:
            ValueError: If the directory holds a run already, the recipe cannot be run, or the
                directory cannot be written.
        """
        run = cls(path)
        if run.exists():
            raise UserError(
                f"{run.path} contains a run already. Continue it with --resume, or choose another "
                "directory with --run-dir."
            )
        recipe.check()
        make_directory(run.checkpoints)
        write_json(run.path / "run.json", provenance(recipe.seed))
        write_json(run.path / "recipe.json", recipe.model_dump())
        return run

    @classmethod
    def open(cls, path: str | os.PathLike) -> Run:
        """Opens the directory of an existing run.

        Raises:
            ValueError: If there is no run.
        """
        run = cls(path)
        if not run.exists():
            raise UserError(
                f"{run.path} is not a run directory (it has no recipe.json and run.json). "
                "`rws-keras runs` lists the runs."
            )
        return run

    def exists(self) -> bool:
        """Whether the directory holds a run."""
        # A preset has a recipe.json too.
        return all((self.path / name).exists() for name in ("recipe.json", "run.json"))

    @property
    def recipe(self) -> Recipe:
        """The recipe as run."""
        return recipes.load(self.path / "recipe.json")[1]

    @property
    def about(self) -> dict:
        """The content of run.json."""
        return _read_versioned(self.path / "run.json")

    @property
    def metrics(self) -> dict:
        """The content of metrics.json, empty before the first epoch has ended."""
        path = self.path / "metrics.json"
        return _read_versioned(path) if path.exists() else {}

    def update_metrics(self, **entries) -> None:
        """Replaces entries of metrics.json."""
        write_json(self.path / "metrics.json", {"format": FORMAT, **self.metrics, **entries})

    @property
    def evaluations(self) -> list[dict]:
        """The evaluations of the best machine; those of earlier best epochs are left out."""
        metrics = self.metrics
        best = metrics.get("best_epoch")
        entries = metrics.get("evaluations", [])
        return [entry for entry in entries if entry.get("best_epoch", best) == best]

    @property
    def complete_evaluations(self) -> list[dict]:
        """Those on all rows of their split."""
        return [entry for entry in self.evaluations if "first_rows" not in entry]

    def evaluated(self, split: str) -> bool:
        """Whether the final evaluation of a split is done."""
        wanted = (split, self.recipe.evaluation.num_particles)
        return any((e["split"], e["num_particles"]) == wanted for e in self.complete_evaluations)

    @property
    def status(self) -> str:
        """`"not started"`, `"unfinished"`, `"diverged"` or `"finished"`."""
        metrics = self.metrics
        if "diverged" in metrics:
            return "diverged"
        if not metrics.get("epoch"):
            return "not started"
        done = all(self.evaluated(split) for split in FINAL_SPLITS)
        return "finished" if done else "unfinished"

    @property
    def best_validation(self) -> float | None:
        """The validation log-likelihood of the best epoch in nats, if an epoch has ended."""
        metrics = self.metrics
        best = metrics.get("best_epoch")
        return metrics["history"][best - 1]["val_log_likelihood"] if best else None

    def best_machine(self) -> HelmholtzMachine:
        """The machine of the epoch with the best validation likelihood.

        Raises:
            ValueError: If there is none, or its file is damaged.
        """
        if not self.best.exists():
            diverged = self.metrics.get("diverged")
            reason = diverged["message"] if diverged else "No epoch has finished."
            raise UserError(f"{self.path} has no trained machine. {reason}")
        return load_machine(self.best, "Train again, or restore the file.")


def load_machine(path: Path, advice: str) -> HelmholtzMachine:
    """Loads a `.keras` file.

    Raises:
        UserError: If the file is damaged, in which case the message ends with the advice, or holds
            another model.
    """
    try:
        machine = keras.saving.load_model(path)
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # zipfile, h5py, json and Keras each have errors of their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise UserError(f"{path} is damaged ({reason}). {advice}") from error
    if not isinstance(machine, HelmholtzMachine):
        kind = type(machine).__name__
        raise UserError(f"{path} holds a {kind}, not a HelmholtzMachine.")
    return machine


def provenance(seed: int, program: str = "rws-keras") -> dict:
    """Where a result comes from: command, seed, date, versions and machine."""
    return {
        "format": FORMAT,
        "command": shlex.join([*program.split(), *sys.argv[1:]]),
        "seed": seed,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "rws_keras": rws_keras.__version__,
            **{package: metadata.version(package) for package in _PACKAGES},
        },
        "machine": {"processor": _processor(), "cores": os.cpu_count()},
    }


def _processor() -> str:
    """The processor's name where Linux tells it, else the kind of machine."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.machine()


def _read_versioned(path: Path) -> dict:
    content = read_json(path)
    if not isinstance(written := content.get("format", 1), int) or written > FORMAT:
        raise UserError(
            f"{path} has format {written}, but this version of rws_keras reads formats up to "
            f"{FORMAT}. Install the version that wrote it, or a later one."
        )
    return content


class Found(NamedTuple):
    """What `find` found.

    Attributes:
        runs: The runs, by path.
        skipped: Directories that look like a run but are not one, or cannot be read: path and
            reason.
    """

    runs: list[Run]
    skipped: dict[Path, str]


def find(directory: str | os.PathLike = "runs") -> Found:
    """Finds the runs below a directory.

    Other files and damaged runs are returned with the reason why they were skipped. A directory
    that does not exist holds no runs.
    """
    found = Found([], {})

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            found.skipped[Path(error.filename)] = error.strerror or str(error)

    for folder, folders, files in os.walk(expanded(directory), onerror=unreadable):
        folders.sort()
        if "recipe.json" not in files:
            continue
        folders.clear()
        run = Run(folder)
        try:
            if not run.exists():
                raise UserError("It has a recipe.json, but no run.json.")
            run.about, run.recipe, run.status, run.best_validation  # noqa: B018
        except UserError as error:
            found.skipped[run.path] = str(error)
        except (AttributeError, LookupError, TypeError) as error:
            found.skipped[run.path] = f"Its metrics.json is not from a run ({error!r})."
        else:
            found.runs.append(run)
    return found
