"""Helmholtz machines trained with Reweighted Wake-Sleep, on Keras and TFP."""

import importlib
import os
import sys
from typing import TYPE_CHECKING

from rws_keras.version import __version__ as __version__

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

__all__ = [
    "HelmholtzMachine",
    "LikelihoodEstimate",
    "Particles",
    "PresetError",
    "Samples",
    "baselines",
    "callbacks",
    "datasets",
    "layers",
    "objectives",
    "presets",
]


def _is_command() -> bool:
    """Whether this import starts the program `rws-keras`, or `python -m rws_keras`.

    While `python -m` looks for its module, the program's name is `-m`; the module's own name
    stands before the arguments.
    """
    program = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    if program == "-m":
        return sys.orig_argv[-len(sys.argv)].endswith("rws_keras")
    return program in ("rws-keras", "rws-keras.exe", "rws-keras-script.py")


# A script that imports the library gets all of it at once: `keras.saving.load_model` finds only
# classes that have been imported. The program imports it when a command first needs it, so that
# `rws-keras --help` does not wait for TensorFlow.
if TYPE_CHECKING or not _is_command():
    from rws_keras import baselines, callbacks, datasets, layers, objectives
    from rws_keras.models import (
        HelmholtzMachine,
        LikelihoodEstimate,
        Particles,
        PresetError,
        Samples,
        presets,
    )
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        packages = ("baselines", "callbacks", "datasets", "layers", "models", "objectives")
        modules = {
            package: importlib.import_module(f"{__name__}.{package}") for package in packages
        }
        return modules[name] if name in modules else getattr(modules["models"], name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
