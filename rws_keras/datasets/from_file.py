"""Data of one's own: a table, an array or a folder of images, split into three."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from rws_keras.datasets.data import BinaryData
from rws_keras.datasets.schema import Schema
from rws_keras.datasets.tables import ENDINGS as TABLES
from rws_keras.datasets.tables import is_table, read_table
from rws_keras.errors import UserError
from rws_keras.files import expanded

ENDINGS = (*TABLES, ".npy", ".npz")
_IMAGES = "*.png"
_GREYEST = 255.0


def is_path(name: str) -> bool:
    """Whether the name of a data set is the path of a file, or of a folder, which has a slash."""
    return "/" in name or name.lower().endswith(ENDINGS)


def load_file(
    path: str | Path,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    choices: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    header: bool | None = None,
    threshold: float | None = None,
) -> BinaryData:
    """Loads data of one's own and splits them at random.

    Args:
        path: A table (`.csv`, `.tsv`, `.txt`, these with `.gz`, `.parquet`; see `read_table`), an
            array `[N, D]` or images `[N, height, width]` (`.npy`, or `.npz` with one array), or a
            folder of PNG images of one size.
        validation: Share of the rows to validate with.
        test: Share of the rows to test with.
        seed: Integer, of the split.
        choices: Of a table, columns of numbers that stand for choices.
        leave_out: Of a table, columns to leave out, such as identifiers.
        header: Of a CSV file, whether its first line has the names of the columns; by default it is
            looked at.
        threshold: Of an array or images, the grey level from which on a pixel is on, in the units
            of the data. By default an array must be binary, and a PNG is on from half of white on.

    Returns:
        A `BinaryData`, with the `schema` of a table.

    Raises:
        UserError: If there is no such file, it does not hold what it should, an argument has no
            effect on it, or the shares leave one of the three parts without a row.

    Example:
    ```python
    data = rws_keras.datasets.load_file("survey.csv", validation=0.34, test=0.33)
    data.schema.units
    ```
    """
    path = expanded(path)
    if not path.exists():
        raise UserError(f"There is no file {path}.")
    image_shape, schema = None, None
    if is_table(path):
        if threshold is not None:
            raise UserError(f"`threshold` has no effect on the table {path}.")
        rows, schema = _table(path, choices, leave_out, header)
    else:
        given = {"choices": choices, "leave_out": leave_out, "header": header is not None}
        if useless := [name for name, value in given.items() if value]:
            raise UserError(f"`{useless[0]}` has no effect on {path}: it is no table.")
        grey = _images(path) if path.is_dir() else _array(path)
        image_shape = (grey.shape[1], grey.shape[2]) if grey.ndim == 3 else None
        if path.is_dir() and threshold is None:
            threshold = _GREYEST / 2
        rows = _binary(path, grey.reshape(len(grey), -1), threshold)
    parts = _split(path, len(rows), {"validation": validation, "test": test}, seed)
    train, held_out, final = (rows[part] for part in parts)
    return BinaryData(path.name, train, held_out, final, image_shape, schema=schema)


def _table(path, choices, leave_out, header):
    table = read_table(path, header)
    if absent := [name for name in leave_out if name not in table.columns]:
        raise UserError(f"{path} has no column {absent[0]!r} to leave out.")
    table = table.drop(columns=list(leave_out))
    if not len(table.columns):
        raise UserError(f"Nothing is left of {path} without {', '.join(leave_out)}.")
    try:
        schema = Schema.infer(table, choices)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    rows = schema.encode(table, str(path))
    missing = np.isnan(rows)
    if missing.any():
        row, unit = np.argwhere(missing)[0]
        raise UserError(
            f"{path}, row {row + 1}, unit {schema.units[unit]!r} is empty, and so are "
            f"{int(missing.any(axis=1).sum()) - 1:,} rows more. A machine does not take missing "
            "values: remove these rows, or fill them."
        )
    return rows.astype(np.uint8), schema


def _array(path: Path) -> np.ndarray:
    if path.suffix not in (".npy", ".npz"):
        raise UserError(f"{path}: expected a folder, or a file that ends in {', '.join(ENDINGS)}.")
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile):
            names = found.files
            if len(names) != 1:
                raise UserError(f"{path} must hold one array; it has {', '.join(names) or 'none'}.")
            found = found[names[0]]
    except UserError:
        raise
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}.") from error
    numeric = found.dtype.kind in "buif"
    if found.ndim not in (2, 3) or not found.size or not numeric:
        raise UserError(
            f"{path} must hold numbers [N, D] or [N, height, width]; got {found.dtype} "
            f"{list(found.shape)}."
        )
    return found


def _images(path: Path) -> np.ndarray:
    files = sorted(path.glob(_IMAGES))
    if not files:
        raise UserError(f"{path} has no images ({_IMAGES}).")
    images = []
    for file in files:
        try:
            images.append(tf.io.decode_png(file.read_bytes(), channels=1).numpy()[..., 0])
        except tf.errors.InvalidArgumentError as error:
            raise UserError(f"{file} cannot be read as a PNG image.") from error
        if images[-1].shape != images[0].shape:
            raise UserError(
                f"{file} has {_size(images[-1])} pixels, where {files[0]} has {_size(images[0])}; "
                "all must be of one size."
            )
    return np.stack(images)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"


def _binary(path: Path, grey: np.ndarray, threshold: float | None) -> np.ndarray:
    if threshold is not None:
        return (grey >= threshold).astype(np.uint8)
    binary = (grey == 0) | (grey == 1)
    if not binary.all():
        row, column = np.argwhere(~binary)[0]
        raise UserError(
            f"{path}, row {row + 1}, column {column + 1}: expected 0 or 1, got "
            f"{grey[row, column]}. Give a threshold for grey levels."
        )
    return grey.astype(np.uint8)


def _split(path: Path, rows: int, shares: dict[str, float], seed: int) -> list[np.ndarray]:
    """The rows of the training, the validation and the test data, each in their order."""
    sizes = {name: round(share * rows) for name, share in shares.items()}
    sizes = {"training": rows - sum(sizes.values()), **sizes}
    for name, size in sizes.items():
        if size < 1:
            raise UserError(
                f"{path} has {rows:,} rows, of which {max(size, 0)} would be {name} data; every "
                "part needs one at least. Change the shares, or give more data."
            )
    order = np.random.default_rng(seed).permutation(rows)
    return [np.sort(part) for part in np.split(order, np.cumsum(list(sizes.values()))[:-1])]
