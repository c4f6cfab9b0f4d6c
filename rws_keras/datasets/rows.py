"""Rows of units from files: tables by a schema, arrays and images as zeros and ones."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from rws_keras.datasets.schema import Schema, as_text, listed
from rws_keras.datasets.tables import ENDINGS as TABLES
from rws_keras.datasets.tables import is_table, read_table
from rws_keras.errors import UserError
from rws_keras.files import expanded

if TYPE_CHECKING:
    import pandas as pd

ARRAYS = (".npy", ".npz")
_IMAGE = ".png"
_GREYEST = 255.0


class Rows(NamedTuple):
    """What `read_rows` returns.

    Attributes:
        x: float32 array `[N, units]`.
        ids: The cells of the column that identifies the rows, `[N]`, if one was given.
        unused: Names of the columns that are neither units nor identifiers.
        names: Names of the units, for a table.
    """

    x: np.ndarray
    ids: list[str] | None = None
    unused: tuple[str, ...] = ()
    names: list[str] | None = None


def read_rows(
    path: str | Path,
    units: int | None = None,
    schema: Schema | None = None,
    id_column: str | None = None,
    header: bool | None = None,
    threshold: float | None = None,
    binary: bool = True,
    missing: bool = False,
) -> Rows:
    """Reads the rows of a file in the form that a machine expects.

    Args:
        path: A table (see `read_table`), an array `[N, D]` or `[N, height, width]` (`.npy`, or
            `.npz` with one array), a `.png`, which is one row, or a folder of PNG images, one row
            each, sorted by name.
        units: How many units a row must have.
        schema: How the columns of a table become units; without it the columns are the units.
        id_column: For a table, the column that identifies the rows.
        header: For a CSV file, whether its first line has the names of the columns; detected by
            default.
        threshold: For an array or images, the grey level at or above which a pixel is on. By
            default an array must be binary, and the threshold of a PNG is half of white.
        binary: Whether the values of arrays, and of tables without a schema, must be 0 or 1;
            otherwise any finite numbers are accepted.
        missing: Whether values may be missing: empty cells, or NaN in arrays.

    Returns:
        The `Rows`, in the order of the file.

    Raises:
        UserError: If there is no such file, its content is invalid, or an argument has no effect on
            it; the message names file, row and column.

    Example:
    ```python
    schema = rws_keras.datasets.Schema.infer(rws_keras.datasets.read_table("survey.csv"))
    rows = rws_keras.datasets.read_rows("survey.csv", schema=schema, id_column="smokes")
    rows.x, rows.ids                                                # [N, units], N texts
    ```
    """
    path = expanded(path)
    check_options(path, {"id_column": id_column, "header": header}, {"threshold": threshold})
    if is_table(path):
        rows = _table_rows(path, read_table(path, header), schema, id_column, binary)
    elif binary or threshold is not None or _is_image(path):
        rows = Rows(read_binary(path, threshold)[0].astype(np.float32))
    else:
        rows = Rows(_real(path, _array(path)))
    if not missing:
        _check_complete(path, rows.x, rows.names)
    if units is not None and rows.x.shape[1] != units:
        advice = " If a column identifies the rows, name it." if is_table(path) else ""
        raise UserError(
            f"{path} has {rows.x.shape[1]} values in a row, but the machine has {units} visible "
            f"units.{advice}"
        )
    return rows


def check_options(path: Path, of_tables: dict, of_pixels: dict) -> None:
    """Checks that a file exists and that the given options have an effect on it.

    Raises:
        UserError: Else.
    """
    if not path.exists():
        raise UserError(f"There is no file {path}.")
    useless = of_pixels if is_table(path) else of_tables
    reason = "it is a table" if is_table(path) else "it is not a table"
    for name, value in useless.items():
        if value is not None and value != ():
            raise UserError(f"`{name}` has no effect on {path}: {reason}.")


def _table_rows(
    path: Path,
    table: pd.DataFrame,
    schema: Schema | None,
    id_column: str | None,
    binary: bool,
) -> Rows:
    ids = None
    if id_column is not None:
        if id_column not in table.columns:
            raise UserError(
                f"{path} has no column {id_column!r}; its columns are {listed(table.columns)}."
            )
        ids = as_text(table[id_column]).fillna("").tolist()
    if schema is None:
        units = [name for name in table.columns if name != id_column]
        return Rows(_numbers(path, table[units], binary), ids, names=[str(name) for name in units])
    known = {*(column.name for column in schema.columns), id_column}
    x = schema.encode(table, str(path))
    unused = tuple(str(name) for name in table.columns if name not in known)
    return Rows(x, ids, unused, schema.units)


def _numbers(path: Path, table: pd.DataFrame, binary: bool) -> np.ndarray:
    import pandas as pd

    text = table.apply(as_text)
    x = text.apply(pd.to_numeric, errors="coerce").to_numpy(np.float32).reshape(table.shape)
    names = [str(name) for name in table.columns]
    wrong = ~(text.isna().to_numpy() | (np.isin(x, (0.0, 1.0)) if binary else np.isfinite(x)))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise UserError(
            f"{path}, row {row + 1}, column {names[column]!r}: expected "
            f"{'0 or 1' if binary else 'a finite number'}, got {text.iloc[row, column]!r}. There "
            "is no schema that describes the columns."
        )
    return x


def _check_complete(path: Path, x: np.ndarray, names: list[str] | None) -> None:
    """Checks that no value is missing.

    Raises:
        UserError: Else.
    """
    missing = np.isnan(x)
    if missing.any():
        row, unit = np.argwhere(missing)[0]
        name = repr(names[unit]) if names else unit + 1
        raise UserError(
            f"{path}, row {row + 1}: the value of unit {name} is missing (rows with missing "
            f"values: {int(missing.any(axis=1).sum()):,}). This machine was trained on complete "
            "data: leave these rows out, or train a machine on data with missing values."
        )


def compact(x: np.ndarray) -> np.ndarray:
    """Binary rows as bytes, or where values are missing as float32, which has NaN."""
    return x.astype(np.float32 if np.isnan(x).any() else np.uint8)


def read_binary(path: Path, threshold: float | None) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Rows `[N, D]` of an array or of images, see `compact`; height and width of images."""
    grey = _images(path) if _is_image(path) else _array(path)
    if _is_image(path) and threshold is None:
        threshold = _GREYEST / 2
    image_shape = (grey.shape[1], grey.shape[2]) if grey.ndim == 3 else None
    return _binary(path, grey.reshape(len(grey), -1), threshold), image_shape


def _is_image(path: Path) -> bool:
    return path.is_dir() or path.suffix == _IMAGE


def _real(path: Path, values: np.ndarray) -> np.ndarray:
    x = values.reshape(len(values), -1).astype(np.float32)
    if np.isinf(x).any():
        row, column = np.argwhere(np.isinf(x))[0]
        raise UserError(
            f"{path}, row {row + 1}, column {column + 1}: expected a finite number, got "
            f"{x[row, column]}."
        )
    return x


def _array(path: Path) -> np.ndarray:
    if path.suffix not in ARRAYS:
        endings = ", ".join((*TABLES, *ARRAYS, _IMAGE))
        raise UserError(f"{path}: expected a folder, or a file that ends in {endings}.")
    try:
        array = np.load(path, allow_pickle=False)
        if isinstance(array, np.lib.npyio.NpzFile):
            names = array.files
            if len(names) != 1:
                raise UserError(f"{path} must hold one array; it has {', '.join(names) or 'none'}.")
            array = array[names[0]]
    except UserError:
        raise
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}.") from error
    numeric = array.dtype.kind in "buif"
    if array.ndim not in (2, 3) or not array.size or not numeric:
        raise UserError(
            f"{path} must hold numbers [N, D] or [N, height, width]; got {array.dtype} "
            f"{list(array.shape)}."
        )
    return array


def _images(path: Path) -> np.ndarray:
    files = sorted(path.glob(f"*{_IMAGE}")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} has no images (*{_IMAGE}).")
    images = []
    for file in files:
        try:
            images.append(tf.io.decode_png(file.read_bytes(), channels=1).numpy()[..., 0])
        except tf.errors.InvalidArgumentError as error:
            raise UserError(f"{file} cannot be read as a PNG image.") from error
        if images[-1].shape != images[0].shape:
            raise UserError(
                f"{file} has {_size(images[-1])} pixels, but {files[0]} has {_size(images[0])}; "
                "all must have the same size."
            )
    return np.stack(images)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"


def _binary(path: Path, grey: np.ndarray, threshold: float | None) -> np.ndarray:
    missing = np.isnan(grey)
    if threshold is not None:
        return compact(np.where(missing, np.nan, grey >= threshold))
    binary = (grey == 0) | (grey == 1) | missing
    if not binary.all():
        row, column = np.argwhere(~binary)[0]
        raise UserError(
            f"{path}, row {row + 1}, column {column + 1}: expected 0 or 1, got "
            f"{grey[row, column]}. Give a threshold for grey levels."
        )
    return compact(grey)
