"""Run directories: what a run leaves on the disk, and how it is written.

RUN/recipe.json         the recipe as run
RUN/run.json            command, seed, versions, machine
RUN/checkpoints/        the last two epochs, and best.keras
RUN/logs/               TensorBoard
RUN/metrics.json        history, best epoch, final evaluations
RUN/samples.png         samples from P, where the data are images
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path

import keras

from rws_keras import HelmholtzMachine
from rws_keras.errors import UserError
from rws_keras.training import recipe as recipes
from rws_keras.training.recipe import Recipe

_PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "numpy")


class Run:
    """A run directory.

    Args:
        path: The directory.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.logs = self.path / "logs"
        self.samples = self.path / "samples.png"
        self.best = self.checkpoints / "best.keras"

    @classmethod
    def create(cls, path: str | os.PathLike, recipe: Recipe) -> Run:
        """Makes the directory of a new run.

        Raises:
            ValueError: If the directory holds a run already.
        """
        run = cls(path)
        if run.exists():
            raise UserError(
                f"{run.path} holds a run already. Continue it with --resume, or choose another "
                "directory with --run-dir."
            )
        run.checkpoints.mkdir(parents=True, exist_ok=True)
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
                f"{run.path} is not a run directory (it has no recipe.json). "
                "`rws-keras runs` shows the runs."
            )
        return run

    def exists(self) -> bool:
        """Whether the directory holds a run."""
        return (self.path / "recipe.json").exists()

    @property
    def recipe(self) -> Recipe:
        """The recipe as run."""
        return recipes.load(self.path / "recipe.json")[1]

    @property
    def metrics(self) -> dict:
        """The content of metrics.json, empty before the first epoch has ended."""
        path = self.path / "metrics.json"
        return read_json(path) if path.exists() else {}

    def update_metrics(self, **entries) -> None:
        """Replaces entries of metrics.json."""
        write_json(self.path / "metrics.json", {**self.metrics, **entries})

    def best_machine(self) -> HelmholtzMachine:
        """The machine of the epoch with the best validation likelihood.

        Raises:
            ValueError: If there is none, or its file is damaged.
        """
        if not self.best.exists():
            raise UserError(f"{self.path} has no trained machine yet: not one epoch has ended.")
        return load_machine(self.best, "Train again, or restore the file.")


def load_machine(path: Path, advice: str) -> HelmholtzMachine:
    """Loads a `.keras` file.

    Raises:
        ValueError: If the file is damaged; the message ends with the advice.
    """
    try:
        return keras.saving.load_model(path)
    except Exception as error:  # zipfile, h5py, json and Keras each have errors of their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise UserError(f"The checkpoint {path} is damaged ({reason}). {advice}") from error


def provenance(seed: int, program: str = "rws-keras") -> dict:
    """Where a result comes from: command, seed, date, versions and machine."""
    return {
        "command": shlex.join([*program.split(), *sys.argv[1:]]),
        "seed": seed,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
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


def read_json(path: Path) -> dict:
    """Reads JSON.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


def write_json(path: Path, content: dict) -> None:
    """Writes JSON under a temporary name and renames it: never half a file."""
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
