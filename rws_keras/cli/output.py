"""What commands print: messages that are never truncated, and tables that fit."""

from __future__ import annotations

import os
import sys

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

# If the output is not a terminal, every row of a table is one line.
_UNLIMITED = 1000
# A column that takes several lines is not narrower.
_FOLDED = 30


def console() -> Console:
    """The console for results; wide where the output goes to a file or a pipe."""
    limited = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if limited else _UNLIMITED, highlight=False)


def error_console() -> Console:
    """The console for errors."""
    return Console(stderr=True, highlight=False)


def say(text: str, to: Console | None = None, style: str | None = None) -> None:
    """Prints a message as it is; the terminal breaks lines that are too long."""
    (to or console()).print(Text(text, style=style or ""), soft_wrap=True)


def show(columns: list[str], rows: list[list[str]], folded: str | None = None) -> None:
    """Prints a table in which nothing is cut off.

    Where it is too wide for the terminal, each row becomes a paragraph instead.

    Args:
        columns: Titles of the columns; the first names the row.
        rows: The cells.
        folded: Title of the column whose cells may take several lines.
    """
    screen = console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title, *cells in zip(columns, *rows, strict=True):
        width = max(map(cell_len, (title, *cells)))
        least = min(width, _FOLDED) if title == folded else width
        table.add_column(title, no_wrap=title != folded, min_width=least)
    for row in rows:
        table.add_row(*map(Text, row))
    unlimited = screen.options.update(width=_UNLIMITED)
    if screen.measure(table, options=unlimited).minimum <= screen.width:
        screen.print(table)
        return
    for name, *cells in rows:
        say(name, screen, style="bold")
        told = [f"{title}: {cell}" for title, cell in zip(columns[1:], cells, strict=True) if cell]
        screen.print(Padding(Text("; ".join(told), overflow="fold"), (0, 0, 0, 2)))
