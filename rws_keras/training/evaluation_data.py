"""The rows that a machine is evaluated on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rws_keras import HelmholtzMachine, datasets
from rws_keras.arrays import BINARY
from rws_keras.datasets import BinaryData, Schema
from rws_keras.errors import UserError
from rws_keras.training.sources import Source

_SPLIT = "test"


class EvaluationData(NamedTuple):
    """Rows to evaluate on.

    Attributes:
        title: What they are called: a split, or a file.
        x: Array `[M, visible]`; repeated binary rows are included once.
        counts: How often each row counts, `[M]`; once if `None`.
        unused: Columns of the file that the machine does not use.
    """

    title: str
    x: np.ndarray
    counts: np.ndarray | None = None
    unused: tuple[str, ...] = ()


def choose(
    source: Source,
    machine: HelmholtzMachine,
    data: str | None = None,
    split: str | None = None,
    count: int | None = None,
) -> EvaluationData:
    """Chooses what a machine is evaluated on.

    Args:
        source: Where the machine comes from.
        machine: The machine.
        data: The name of a data set, or the path of a file, all of whose rows are used; see
            `datasets.read_rows`. By default the data set that the run or the preset was trained on.
        split: `"train"`, `"validation"` or `"test"`, of a data set; the last by default.
        count: How many rows to use, from the beginning; all by default.

    Raises:
        UserError: If the data cannot be loaded, do not fit the machine or have fewer rows, it is
            not known what the machine was trained on, or `split` is given of a file.
    """
    if data is not None and datasets.is_path(data):
        if split is not None:
            raise UserError(
                f"`split` has no effect on the file {data}, of which all rows are used."
            )
        binary = machine.p_layers[0].support is BINARY
        units, schema = machine.visible_units, Schema.of(machine)
        missing = machine.missing is not None
        rows = datasets.read_rows(data, units, schema, binary=binary, missing=missing)
        x = first_rows(rows.x, count)
        if not binary:
            return EvaluationData(data, x, unused=rows.unused)
        return EvaluationData(data, *datasets.count_rows(x), rows.unused)
    split = split or _SPLIT
    loaded = _own_data(source) if data is None else datasets.load(data)
    x = first_rows(getattr(loaded, split), count)
    machine.checked_rows(x)
    title = split if data is None else f"{data}, {split}"
    return EvaluationData(title, *datasets.count_rows(x))


def first_rows(x: np.ndarray, count: int | None) -> np.ndarray:
    """The first `count` rows, or all if it is `None`.

    Raises:
        UserError: If there are fewer.
    """
    if count is not None and count > len(x):
        raise UserError(f"There are only {len(x):,} rows, {count:,} were asked for.")
    return x[:count]


def _own_data(source: Source) -> BinaryData:
    if source.run is not None:
        return source.run.recipe.load_data()
    dataset = (source.metadata or {}).get("dataset")
    if dataset in datasets.NAMES:
        return datasets.load(dataset)
    reason = (
        f"was trained on {dataset}, which is not a data set of the library"
        if dataset
        else "does not say what it was trained on"
    )
    raise UserError(f"{source.path} {reason}. Name the data to evaluate on with --data.")
