"""The user's own data: a table, an array or a folder of images, split into three parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rws_keras.datasets.data import BinaryData
from rws_keras.datasets.rows import ARRAYS, check_options, compact, read_binary
from rws_keras.datasets.schema import Schema, listed
from rws_keras.datasets.tables import ENDINGS as TABLES
from rws_keras.datasets.tables import is_table, read_table
from rws_keras.errors import UserError
from rws_keras.files import expanded

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (*TABLES, *ARRAYS)
_SHARE = 0.1


def is_path(name: str) -> bool:
    """Whether a data set is given as the path of a file, or of a folder (with a slash)."""
    return "/" in name or name.lower().endswith(ENDINGS)


def load_file(
    path: str | Path,
    validation: float | None = None,
    test: float | None = None,
    seed: int | None = None,
    choices: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    header: bool | None = None,
    threshold: float | None = None,
    validation_data: str | Path | None = None,
    test_data: str | Path | None = None,
) -> BinaryData:
    """Loads your own data and splits them at random, or reads the parts from several files.

    Empty cells of a table, and NaN in an array, are missing values.

    Args:
        path: A table (`.csv`, `.tsv`, `.txt`, these with `.gz`, `.parquet`; see `read_table`), an
            array `[N, D]` or images `[N, height, width]` (`.npy`, or `.npz` with one array), or a
            folder of PNG images of one size.
        validation: Share of the rows to validate with; 0.1 by default.
        test: Share of the rows to test with; 0.1 by default.
        seed: Integer, of the split; 0 by default.
        choices: For a table, numeric columns whose values are choices (categories).
        leave_out: For a table, columns to leave out, such as identifiers.
        header: For a CSV file, whether its first line has the names of the columns; detected by
            default.
        threshold: For an array or images, the grey level at or above which a pixel is on, in the
            units of the data. By default an array must be binary, and the threshold of a PNG is
            half of white.
        validation_data: A separate file to validate with, instead of a share of `path`. It must be
            of the same kind, and a table must have the columns and values of `path`.
        test_data: Likewise, to test with.

    Returns:
        A `BinaryData`, with the `schema` of a table.

    Raises:
        UserError: If there is no such file, its content is invalid, the files do not match, an
            argument has no effect, or one of the three parts would have no rows.

    Example:
    ```python
    data = rws_keras.datasets.load_file("survey.csv", validation=0.34, test=0.33)
    data.schema.units
    ```
    """
    path = expanded(path)
    given = {"choices": tuple(choices), "leave_out": tuple(leave_out), "header": header}
    check_options(path, given, {"threshold": threshold})
    files = {"validation": validation_data, "test": test_data}
    shares = _shares({"validation": validation, "test": test}, files, seed)
    image_shape, schema = None, None
    if is_table(path):
        rows, schema = _table(path, choices, leave_out, header)
    else:
        rows, image_shape = read_binary(path, threshold)
    parts = _split(path, rows, shares, seed or 0)
    for name, file in files.items():
        if file is None:
            continue
        other = expanded(file)
        if not other.exists():
            raise UserError(f"There is no file {other}.")
        if is_table(other) != (schema is not None):
            kinds = ("is no table", "is one") if schema else ("is a table", "is none")
            raise UserError(f"{other} {kinds[0]}, but {path} {kinds[1]}.")
        if schema is not None:
            parts[name] = _same_table(other, path, schema, leave_out, header)
        else:
            parts[name] = _same_pixels(other, path, threshold, rows.shape[1], image_shape)
    train, held_out, final = (parts[name] for name in ("train", *files))
    return BinaryData(path.name, train, held_out, final, image_shape, schema=schema)


def _shares(
    shares: dict[str, float | None], files: dict[str, str | Path | None], seed: int | None
) -> dict[str, float]:
    """The shares of the parts that have no separate file."""
    for name, share in shares.items():
        if share is not None and files[name] is not None:
            raise UserError(f"`{name}` has no effect together with `{name}_data`; leave one out.")
    if seed is not None and None not in files.values():
        raise UserError("`seed` has no effect if all three parts have separate files.")
    with_defaults = {name: _SHARE if share is None else share for name, share in shares.items()}
    return {name: share for name, share in with_defaults.items() if files[name] is None}


def _table(path, choices, leave_out, header):
    table = read_table(path, header)
    if absent := [name for name in leave_out if name not in table.columns]:
        raise UserError(f"{path} has no column {absent[0]!r} to leave out.")
    table = table.drop(columns=list(leave_out))
    if not len(table.columns):
        raise UserError(f"{path} has no columns left without {', '.join(leave_out)}.")
    try:
        schema = Schema.infer(table, choices)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return _encoded(path, table, schema), schema


def _encoded(path: Path, table: pd.DataFrame, schema: Schema) -> np.ndarray:
    return compact(schema.encode(table, str(path)))


def _same_table(path, first, schema, leave_out, header):
    """The rows of another table of the same columns and values."""
    table = read_table(path, header)
    known = {*(column.name for column in schema.columns), *leave_out}
    if more := [name for name in table.columns if name not in known]:
        raise UserError(
            f"{path} has a column {more[0]!r}, which {first} does not have (its columns are "
            f"{listed(column.name for column in schema.columns)}). Leave it out."
        )
    return _encoded(path, table, schema)


def _same_pixels(path, first, threshold, units, image_shape):
    """The rows of another array of the same width, or of other images of the same size."""
    rows, shape = read_binary(path, threshold)
    if (rows.shape[1], shape) != (units, image_shape):
        sizes = [
            " x ".join(map(str, size)) if size else f"{width}"
            for size, width in ((shape, rows.shape[1]), (image_shape, units))
        ]
        raise UserError(f"{path} has {sizes[0]} values in a row, but {first} has {sizes[1]}.")
    return rows


def _split(
    path: Path, rows: np.ndarray, shares: dict[str, float], seed: int
) -> dict[str, np.ndarray]:
    """The training data and a part for each of the shares, each in the order of the file."""
    sizes = {name: round(share * len(rows)) for name, share in shares.items()}
    sizes = {"train": len(rows) - sum(sizes.values()), **sizes}
    for name, size in sizes.items():
        if size < 1:
            title = "training" if name == "train" else name
            raise UserError(
                f"{path} has {len(rows):,} rows, of which {max(size, 0)} would be {title} data; "
                "every part needs at least one. Change the shares, or give more data."
            )
    order = np.random.default_rng(seed).permutation(len(rows))
    parts = np.split(order, np.cumsum(list(sizes.values()))[:-1])
    return {name: rows[np.sort(part)] for name, part in zip(sizes, parts, strict=True)}
