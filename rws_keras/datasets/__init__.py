"""Binary data sets: `load("digits")` and others."""

from __future__ import annotations

from rws_keras.datasets.bars import load_bars
from rws_keras.datasets.data import BinaryData, DatasetNotFoundError
from rws_keras.datasets.digits import load_digits
from rws_keras.datasets.from_file import is_path, load_file
from rws_keras.datasets.preprocessing import (
    count_rows,
    minibatches,
    stochastic_binarization,
)
from rws_keras.datasets.rows import Rows, read_rows
from rws_keras.datasets.schema import Column, Schema
from rws_keras.datasets.tables import read_table
from rws_keras.datasets.tfds_sets import load_binarized_mnist, load_density_estimation
from rws_keras.errors import UserError
from rws_keras.suggestions import unknown

_DENSITY_ESTIMATION = (
    "nltcs",
    "plants",
    "baudio",
    "jester",
    "bnetflix",
    "accidents",
    "pumsb_star",
    "dna",
    "mushrooms",
    "nips",
)
NAMES = ("digits", "bars", "binarized_mnist", *_DENSITY_ESTIMATION)


def load(name: str) -> BinaryData:
    """Loads a data set by name.

    Args:
        name: `"digits"` (scikit-learn's 8x8 digits, no network needed), `"bars"`
            (synthetic), `"binarized_mnist"` (through TFDS) or the name of a
            density-estimation set: `"nltcs"`, `"plants"`, `"baudio"`, `"jester"`,
            `"bnetflix"`, `"accidents"`, `"pumsb_star"`, `"dna"`, `"mushrooms"`, `"nips"`.

    Returns:
        A `BinaryData` with the uint8 arrays `train`, `validation` and `test`.

    Raises:
        ValueError: If there is no such data set.
        DatasetNotFoundError: If the data set is not on this machine and cannot be
            downloaded; the message names the environment variable and the command that fix it. (It
            is a `ValueError`.)

    Example:
    ```python
    data = rws_keras.datasets.load("digits")
    machine.fit(data.train, batch_size=100, validation_data=data.validation)
    ```
    """
    if name == "digits":
        return load_digits()
    if name == "bars":
        return load_bars()
    if name == "binarized_mnist":
        return load_binarized_mnist()
    if name in _DENSITY_ESTIMATION:
        return load_density_estimation(name)
    raise UserError(unknown("data set", name, NAMES))


__all__ = [
    "NAMES",
    "BinaryData",
    "Column",
    "DatasetNotFoundError",
    "Rows",
    "Schema",
    "count_rows",
    "is_path",
    "load",
    "load_bars",
    "load_binarized_mnist",
    "load_density_estimation",
    "load_digits",
    "load_file",
    "minibatches",
    "read_rows",
    "read_table",
    "stochastic_binarization",
]
