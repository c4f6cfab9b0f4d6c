"""Columns of a table as units of a machine: one unit for yes/no, k units for k values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rws_keras.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from rws_keras.models.helmholtz_machine import HelmholtzMachine

# Pairs of values of which the first means off, in lower case. In other pairs it is the
# alphabetically first.
_OFF_AND_ON = (
    *(("0", "1"), ("no", "yes"), ("n", "y"), ("false", "true"), ("f", "t")),
    *(("off", "on"), ("absent", "present"), ("negative", "positive")),
)
# A column with more values is treated as text or an identifier.
_MOST_VALUES = 50
_SHOWN = 5


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: Its name.
        values: The values as text: off and on, or the k of a choice.
    """

    name: str
    values: tuple[str, ...]

    @property
    def units(self) -> list[str]:
        """Names of its units: its own, or `name=value` for each value of a choice."""
        if len(self.values) == 2:
            return [self.name]
        return [f"{self.name}={value}" for value in self.values]


class Schema:
    """How the columns of a table become units, and back.

    Args:
        columns: The columns, in the order of the units.

    Attributes:
        columns: The columns.
        units: Names of the units.
        groups: How many units each column has, in the order of the units.

    Example:
    ```python
    import pandas as pd

    table = pd.DataFrame({"smokes": ["no", "yes", None], "blood": ["A", "0", "AB"]})
    schema = rws_keras.datasets.Schema.infer(table)
    schema.units                     # ["smokes", "blood=0", "blood=A", "blood=AB"]
    schema.encode(table)             # [3, 4]: 0, 1 and, where a cell is empty, NaN
    ```
    """

    def __init__(self, columns: Iterable[Column]):
        self.columns = tuple(columns)
        self.units = [unit for column in self.columns for unit in column.units]
        self.groups = [len(column.units) for column in self.columns]

    @classmethod
    def infer(cls, table: pd.DataFrame, choices: Sequence[str] = ()) -> Schema:
        """The schema of a table.

        Args:
            table: Its columns contain text, numbers, booleans or categories; empty cells are
                missing values.
            choices: Names of numeric columns whose values are choices, such as answers from 1 to 5.

        Raises:
            UserError: If a column is empty, always the same, numeric, or has more than 50 values,
                or if `choices` names one that does not exist.
        """
        if absent := [name for name in choices if name not in table.columns]:
            raise UserError(
                f"There is no column {absent[0]!r}; the columns are {listed(table.columns)}."
            )
        return cls(
            _column(str(name), as_text(table[name]), name in choices) for name in table.columns
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Schema:
        """The schema from what `get_config` returned."""
        return cls(Column(each["name"], tuple(each["values"])) for each in config["columns"])

    @classmethod
    def of(cls, machine: HelmholtzMachine) -> Schema | None:
        """The schema that a machine stores, or `None`.

        Raises:
            UserError: If what it stores is not a schema of its visible units.

        Example:
        ```python
        schema = rws_keras.datasets.Schema.of(machine)
        ```
        """
        config = machine.schema
        if config is None:
            return None
        try:
            schema = cls.from_config(config)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"The machine's `schema` is not what Schema.get_config() returns: {config!r:.100}."
            ) from error
        if len(schema.units) != machine.visible_units:
            raise UserError(
                f"The machine's `schema` has {len(schema.units)} units, but the machine has "
                f"{machine.visible_units} visible units."
            )
        return schema

    def get_config(self) -> dict[str, Any]:
        """Names and values of the columns, in a form for JSON."""
        return {"columns": [{"name": c.name, "values": list(c.values)} for c in self.columns]}

    def encode(self, table: pd.DataFrame, where: str = "The table") -> np.ndarray:
        """The units of a table's rows.

        Args:
            table: It has all of the schema's columns, in any order.
            where: What errors call the table, such as the path of its file.

        Returns:
            float32 array `[N, units]` of zeros, ones and NaN for what is missing.

        Raises:
            UserError: If a column does not exist, or a cell has a value that is not in the schema;
                the message names row and column.
        """
        if absent := [c.name for c in self.columns if c.name not in table.columns]:
            raise UserError(
                f"{where} has no column {absent[0]!r}; its columns are {listed(table.columns)}."
            )
        return np.concatenate([_encoded(c, table[c.name], where) for c in self.columns], axis=1)

    def decode(self, x: np.ndarray) -> pd.DataFrame:
        """The table of units `[N, units]`; NaN becomes a missing value.

        Raises:
            UserError: If the width is wrong, or a choice does not have exactly one value.
        """
        import pandas as pd

        x = np.asarray(x, np.float32)
        if x.ndim != 2 or x.shape[1] != len(self.units):
            raise UserError(f"Expected units [N, {len(self.units)}], got {list(x.shape)}.")
        parts = np.split(x, np.cumsum(self.groups)[:-1], axis=1)
        table = {c.name: _decoded(c, part) for c, part in zip(self.columns, parts, strict=True)}
        return pd.DataFrame(table, dtype=object)


def as_text(column: pd.Series) -> pd.Series:
    """The cells of a column as text; what is missing stays missing.

    Booleans are `false` and `true`, and numbers that are whole have no point: 1.0 is `1`.
    """
    present = column.dropna()
    return present.map(_text).reindex(column.index)


def _text(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _column(name: str, cells: pd.Series, is_choice: bool) -> Column:
    values = sorted(cells.dropna().unique())
    if not values:
        raise UserError(f"Column {name!r} is empty; leave it out.")
    lower = tuple(value.lower() for value in values)
    for pair in _OFF_AND_ON:
        # A column of a known pair need not have both: pixels at the edge are always off.
        if set(lower) <= set(pair) and len(lower) <= 2:
            original = dict(zip(lower, values, strict=True))
            return Column(name, tuple(original.get(value, value) for value in pair))
    if len(values) == 1:
        raise UserError(f"Column {name!r} is always {values[0]!r}; leave it out.")
    if len(values) == 2:
        return Column(name, (values[0], values[1]))
    if not is_choice and all(map(is_number, values)):
        raise UserError(
            f"Column {name!r} has numbers ({listed(values)}). Bin them first, for instance with "
            "pandas.cut; or, if they are categories, declare the column as a choice."
        )
    if len(values) > _MOST_VALUES:
        raise UserError(
            f"Column {name!r} has {len(values):,} values ({listed(values)}), more than "
            f"{_MOST_VALUES}. If it identifies the rows, name it as the identifier; else leave it "
            "out or group the values."
        )
    ordered = sorted(values, key=float) if all(map(is_number, values)) else values
    return Column(name, tuple(ordered))


def is_number(text: str) -> bool:
    """Whether text stands for a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _encoded(column: Column, cells: pd.Series, where: str) -> np.ndarray:
    text = as_text(cells)
    missing = text.isna().to_numpy()
    unknown = ~(missing | text.isin(column.values).to_numpy())
    if unknown.any():
        row = int(np.argmax(unknown))
        raise UserError(
            f"{where}, row {row + 1}, column {column.name!r}: {text.iloc[row]!r} is not one of "
            f"its values, {listed(column.values)}."
        )
    shown = column.values[1:] if len(column.values) == 2 else column.values
    units = np.stack([text.eq(value).to_numpy(np.float32) for value in shown], axis=1)
    units[missing] = np.nan
    return units


def _decoded(column: Column, units: np.ndarray) -> np.ndarray:
    missing = np.isnan(units).any(axis=1)
    known = np.where(np.isnan(units), 0.0, units)
    if len(column.values) == 2:
        index = known[:, 0].astype(int)
        valid = np.isin(known[:, 0], (0.0, 1.0))
    else:
        index = known.argmax(axis=1)
        valid = (np.isin(known, (0.0, 1.0)).all(axis=1)) & (known.sum(axis=1) == 1.0)
    if not (valid | missing).all():
        row = int(np.argmin(valid | missing))
        raise UserError(
            f"Row {row + 1}: the units of column {column.name!r} are {units[row].tolist()}; "
            f"expected {'0 or 1' if len(column.values) == 2 else 'a single 1 among zeros'}."
        )
    cells = np.array(column.values, object)[index]
    cells[missing] = None
    return cells


def listed(values: Iterable[Any]) -> str:
    """The first values, for a message."""
    shown = [str(value) for value in values]
    more = ", …" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
