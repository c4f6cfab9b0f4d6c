"""A CSV of scores that grows by batches and appears under its name when it is whole."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from rws_keras.errors import UserError
from rws_keras.files import expanded, replace_file, writing

Cells = list[str]
# Values of that length are digests.
_SHOWN = 60


class ScoreFile:
    """A CSV of scores, and `NAME.partial` beside it as long as it is not whole.

    The first line of `NAME.partial` says in JSON what is scored, the rest is the CSV so far. Each
    batch is forced to the disk. What a crash left of a line is dropped by the next start.

    Args:
        path: The CSV.
        overwrite: Whether it may exist, and `NAME.partial` be of something else.

    Raises:
        UserError: If it exists and may not.
    """

    def __init__(self, path: str | os.PathLike, overwrite: bool = False):
        self.path = expanded(path)
        self.partial = self.path.with_name(f"{self.path.name}.partial")
        self._overwrite = overwrite
        self._check_free()

    def _check_free(self) -> None:
        if self.path.is_dir():
            raise UserError(f"{self.path} is a directory; name a file with --to.")
        if self.path.exists() and not self._overwrite:
            raise UserError(
                f"{self.path} exists already. Name another file with --to, or replace it with "
                "--overwrite."
            )

    def begin(self, key: dict, columns: Cells, labels: Sequence[Cells]) -> list[Cells]:
        """Begins to write, or goes on where an earlier start of the same scores ended.

        Args:
            key: What is scored, as JSON can hold it.
            columns: Names of all columns.
            labels: The first cells of each row, which identify it.

        Returns:
            The rows that are there already.

        Raises:
            UserError: If `NAME.partial` is of something else, or cannot be written.
        """
        done = self._read(key, len(columns), labels) if self.partial.exists() else []
        with replace_file(self.partial) as temporary, _opened(temporary, "w") as file:
            file.write(f"{json.dumps(key)}\n")
            _write(file, [columns, *done])
        return done

    def append(self, rows: list[Cells]) -> None:
        """Adds rows, which are on the disk afterwards."""
        with writing(self.partial), _opened(self.partial, "a") as file:
            _write(file, rows)
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Gives the CSV its name."""
        self._check_free()
        with (
            replace_file(self.path) as temporary,
            self.partial.open("rb") as source,
            temporary.open("wb") as target,
        ):
            source.readline()
            shutil.copyfileobj(source, target)
        self.partial.unlink()

    def _read(self, key: dict, width: int, labels: Sequence[Cells]) -> list[Cells]:
        with self.partial.open(encoding="utf-8", errors="replace", newline="") as file:
            head, _, text = file.read().partition("\n")
        try:
            found = json.loads(head)
            if not isinstance(found, dict):
                raise ValueError(f"it begins with {head:.40}")
        except ValueError as error:
            if self._overwrite:
                return []
            raise UserError(
                f"{self.partial} is not what an interrupted start left there; remove it, or give "
                "--overwrite."
            ) from error
        if found != json.loads(json.dumps(key)):
            if self._overwrite:
                return []
            raise UserError(
                f"{self.partial} has scores of an interrupted start with {_difference(found, key)}"
                ". To go on there give the same again; to start anew, --overwrite."
            )
        # What follows the last end of a line was not written to its end.
        lines = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
        next(lines)
        done = []
        for row, label in zip(lines, labels, strict=False):
            if len(row) != width or row[: len(label)] != label:
                break
            done.append(row)
        return done


def _difference(found: dict, key: dict) -> str:
    different = [name for name in key if found.get(name) != key[name]]
    told = [
        f"{name} = {found.get(name)} instead of {key[name]}"
        if isinstance(key[name], int | str) and len(str(key[name])) < _SHOWN
        else f"another value of {name}"
        for name in different
    ]
    return ", ".join(told) or "other options"


def _opened(path: Path, mode: str) -> IO[str]:
    return path.open(mode, encoding="utf-8", newline="")


def _write(file: IO[str], rows: list[Cells]) -> None:
    csv.writer(file, lineterminator="\n").writerows(rows)
