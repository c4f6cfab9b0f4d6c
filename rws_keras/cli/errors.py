"""Which errors the user can fix, and what to say about them and about Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

import rws_keras
from rws_keras.cli.output import say
from rws_keras.errors import UserError
from rws_keras.files import ADVICE

FAULT = (
    "This is a bug in rws_keras. Please report it with the command, the traceback below and the "
    "output of `rws-keras --version`."
)


def explain(error: Exception) -> str | None:
    """What to tell the user about an error, or `None` if it is a bug in the library.

    Besides `UserError` these are errors of the file system, as Python and as TensorFlow raise
    them, unless they concern a file of the library itself.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return _explain_os_error(error)
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and isinstance(error, tensorflow.errors.OpError):
        for code, advice in ADVICE.items():
            if os.strerror(code) in str(error.message):
                return f"{error.message}. {advice}"
    return None


def _explain_os_error(error: OSError) -> str | None:
    advice = ADVICE.get(error.errno or 0)
    if advice is None:
        return None
    if error.filename is None:
        return f"{error.strerror or error}. {advice}"
    # Where a file is copied or renamed, the second is the one that is written.
    path = os.fsdecode(error.filename2 or error.filename)
    if Path(path).absolute().is_relative_to(Path(rws_keras.__file__).parent):
        return None
    return f"{path}: {error.strerror}. {advice}"


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Adds the path that a command writes to to errors without one, such as for a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def continued_by(how: str) -> Iterator[None]:
    """Says after a Ctrl-C how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"Stopped. Continue with {how}.")
        raise typer.Exit(130) from None


def is_interruption(error: BaseException | None) -> bool:
    """Whether an error began as a Ctrl-C.

    An extension module that is interrupted while it is imported raises an ImportError instead.
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
