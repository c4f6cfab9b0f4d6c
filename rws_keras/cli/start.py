"""Starting a command: without TensorFlow's notices, and with errors as one message."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator

import typer


def application(help_text: str) -> typer.Typer:
    """An application without the extras that its users have no need of."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )


def start(commands: str) -> None:
    """Runs the Typer application `app` of a module, whose errors for users are `ValueError`s.

    Args:
        commands: The module; it is imported here, quietly.
    """
    with _quiet():
        import tensorflow as tf

        # Now, for the notices that it brings; but workers must first tell of each other.
        if "TF_CONFIG" not in os.environ and "--workers" not in " ".join(sys.argv):
            tf.config.list_logical_devices()
        module = importlib.import_module(commands)
    try:
        module.app()
    except ValueError as error:
        module.console.print(f"Error: {error}", style="red", markup=False, highlight=False)
        raise SystemExit(2) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what native libraries write to standard error off the screen.

    While it loads, TensorFlow reports the absence of GPUs and the like, past all log
    levels; nobody can act on that. Python's own errors come after the `finally`.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3") != "3":
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    screen = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        os.close(nowhere)
