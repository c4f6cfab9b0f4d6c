"""The program: all commands, the options before them, and how it ends."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

import rws_keras
from rws_keras.cli import data, errors, evaluation, scoring, serving, training, zoo
from rws_keras.cli.output import error_console, say

_TRACEBACK = "--traceback"

app = typer.Typer(
    name="rws-keras",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Rich help cuts the names of options off on narrow terminals.
    rich_markup_mode=None,
)
for group in (training, evaluation, scoring, serving, data):
    app.add_typer(group.app)
app.add_typer(zoo.app, name="zoo")


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"rws-keras {rws_keras.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    show_traceback: Annotated[
        bool, typer.Option(_TRACEBACK, help="Show the traceback of every error.")
    ] = False,
) -> None:
    """Trains Helmholtz machines with Reweighted Wake-Sleep, evaluates and serves them."""


def run(arguments: list[str]) -> None:
    """Runs a command, and shows a user error as one message.

    Args:
        arguments: The arguments of the command line. `--traceback` may be anywhere.
    """
    try:
        app([argument for argument in arguments if argument != _TRACEBACK])
    except Exception as error:
        if errors.is_interruption(error):
            raise KeyboardInterrupt from None
        message = errors.explain(error)
        if message is None:
            say(errors.FAULT, error_console(), style="red")
            raise
        if _TRACEBACK in arguments:
            traceback.print_exception(error)
        say(f"Error: {message}", error_console(), style="red")
        sys.exit(2)
