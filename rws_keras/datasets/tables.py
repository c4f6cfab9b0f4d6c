"""Tables from files: CSV, TSV and Parquet."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import TYPE_CHECKING

from rws_keras.datasets.schema import is_number
from rws_keras.errors import UserError
from rws_keras.files import expanded

if TYPE_CHECKING:
    import pandas as pd

_SEPARATORS = ",;\t|"
_TEXT = (".csv", ".tsv", ".txt")
ENDINGS = (*_TEXT, *(f"{ending}.gz" for ending in _TEXT), ".parquet")

# Cells that mean a missing value.
MISSING = ("", "NA", "N/A", "NaN", "nan", "null")


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its name."""
    return path.name.lower().endswith(ENDINGS)


def read_table(path: str | Path, header: bool | None = None) -> pd.DataFrame:
    """Reads a table.

    Args:
        path: A `.csv`, `.tsv` or `.txt` file in UTF-8, also with `.gz` behind, or a `.parquet`
            file. The separator of a `.csv` is that of its first line: comma, semicolon, tab or
            bar.
        header: Whether the first line has the names of the columns. By default it does if its
            cells are distinct, none is empty or a number, and one of them is not found below it.
            Without names the columns are called `column 1`, `column 2`, ….

    Returns:
        A data frame; its cells are text, or what the Parquet file has. Empty cells and `NA`,
        `N/A`, `NaN` and `null` are missing.

    Raises:
        UserError: If the file does not exist or cannot be read.

    Example:
    ```python
    table = rws_keras.datasets.read_table("survey.csv")
    ```
    """
    path = expanded(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    if not is_table(path):
        raise UserError(f"{path}: expected a file that ends in {', '.join(ENDINGS)}.")
    table = _read_parquet(path, header) if path.suffix == ".parquet" else _read_text(path, header)
    if not len(table):
        raise UserError(f"{path} has no rows.")
    return table


def _read_parquet(path: Path, header: bool | None) -> pd.DataFrame:
    import pandas as pd

    if header is not None:
        raise UserError(f"`header` has no effect on {path}: a Parquet file has column names.")
    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise UserError(
            "Parquet files need pyarrow. Install it with `pip install pyarrow`."
        ) from error
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}.") from error


def _read_text(path: Path, header: bool | None) -> pd.DataFrame:
    import pandas as pd

    lines = _lines(path)
    if not lines:
        raise UserError(f"{path} is empty.")
    width = len(lines[0][1])
    for number, cells in lines:
        if len(cells) != width:
            raise UserError(
                f"{path}, line {number}: {len(cells)} cells, but the first line has {width}."
            )
    rows = [[_cell(text) for text in cells] for _, cells in lines]
    names = [f"column {number}" for number in range(1, width + 1)]
    if _is_header(rows) if header is None else header:
        names = [name or default for name, default in zip(rows[0], names, strict=True)]
        rows = rows[1:]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise UserError(f"{path} has several columns {repeated[0]!r}; their names must differ.")
    return pd.DataFrame(rows, columns=names, dtype=object)


def _cell(text: str) -> str | None:
    text = text.strip()
    return None if text in MISSING else text


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The cells of each line that is not blank, with its number."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front.
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            separator = max(_SEPARATORS, key=first.count)
            if ".tsv" in path.suffixes:
                separator = "\t"
            reader = csv.reader(file, delimiter=separator)
            return [(reader.line_num, cells) for cells in reader if cells]
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not text in UTF-8 (byte {error.start:,}). Save it as UTF-8."
        ) from error
    except (OSError, EOFError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


def _is_header(rows: list[list[str | None]]) -> bool:
    first, below = rows[0], rows[1:]
    if not below or None in first or len(set(first)) < len(first):
        return False
    if any(is_number(str(cell)) for cell in first):
        return False
    return any(all(row[i] != cell for row in below) for i, cell in enumerate(first))
