"""A data set: three binary arrays and what is known about them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rws_keras.datasets.schema import Schema
from rws_keras.errors import UserError


class BinaryData(NamedTuple):
    """A binary data set.

    Attributes:
        name: Name of the data set.
        train: uint8 array `[N, D]` of zeros and ones; if values are missing, float32 with NaN in
            their place.
        validation: Likewise.
        test: Likewise.
        image_shape: `(height, width)` if the rows are images, else `None`.
        entropy: Exact entropy of the distribution in nats where it is known, else `None`:
            the least mean negative log-likelihood that any model can reach.
        schema: The columns of a table and their units; `None` for other data.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    image_shape: tuple[int, int] | None = None
    entropy: float | None = None
    schema: Schema | None = None

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The training, the validation and the test data."""
        return self.train, self.validation, self.test

    @property
    def has_gaps(self) -> bool:
        """Whether values are missing."""
        return any(np.isnan(part).any() for part in self.parts)


class DatasetNotFoundError(UserError):
    """A data set that is not on this machine and could not be downloaded."""
