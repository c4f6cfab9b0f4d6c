"""The program `rws-keras` as an installation would place it, for tests that run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# The least that a recipe says.
RECIPE = '{"dataset": "digits", "epochs": 1, "model": {"latents": [5]}}'


def install(directory: Path) -> Path:
    """Writes the program into a directory, and returns its path."""
    directory.mkdir(exist_ok=True)
    path = directory / "rws-keras"
    path.write_text(f"#!{sys.executable}\nfrom rws_keras.cli import main\n\nmain()\n")
    path.chmod(0o755)
    return path


def environment(**variables: str) -> dict[str, str]:
    """The variables of a user who has set none of TensorFlow's."""
    unset = ("TF_CPP_MIN_LOG_LEVEL", "GRPC_VERBOSITY", "COLUMNS", "XLA_FLAGS")
    given = {name: value for name, value in os.environ.items() if name not in unset}
    return {**given, "PYTHONPATH": str(ROOT), **variables}


def run(*arguments: object, **options) -> subprocess.CompletedProcess:
    """Runs `python -m rws_keras` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "rws_keras", *map(str, arguments)],
        **{"env": environment(), "capture_output": True, "text": True, "timeout": 300, **options},
    )
