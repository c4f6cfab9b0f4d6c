"""Rows of zeros, ones and NaN, as the baselines take them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rws_keras.arrays import check_sample_weight
from rws_keras.errors import UserError


class Rows(NamedTuple):
    """Binary rows with gaps.

    Attributes:
        on: `[N, D]`, one where a value is one, else zero.
        off: `[N, D]`, one where it is zero, else zero. Both are zero where it is missing.
    """

    on: np.ndarray
    off: np.ndarray

    @classmethod
    def of(cls, x: npt.ArrayLike, units: int | None = None) -> Rows:
        """Checks rows.

        Args:
            x: `[N, D]` of zeros, ones and, where a value is missing, NaN.
            units: D, if it is known.

        Raises:
            UserError: If the shape or a value is another.
        """
        x = np.asarray(x, np.float32)
        if x.ndim != 2 or not len(x) or (units is not None and x.shape[1] != units):
            wanted = "[N, D]" if units is None else f"[N, {units}]"
            raise UserError(f"Expected rows {wanted} with N of at least 1, got {list(x.shape)}.")
        on, off = ((x == value).astype(np.float64) for value in (1, 0))
        if not np.all(on + off + np.isnan(x) == 1):
            raise UserError("Expected zeros, ones and, for missing values, NaN.")
        return cls(on, off)

    @classmethod
    def weighted(
        cls, x: npt.ArrayLike, sample_weight: npt.ArrayLike | None
    ) -> tuple[Rows, np.ndarray]:
        """Rows to fit a model to, and their weights `[N]`, which are 1 by default.

        Raises:
            UserError: If a row or a weight is not what it should be.
        """
        rows = cls.of(x)
        if sample_weight is None:
            return rows, np.ones(len(rows.on))
        return rows, check_sample_weight(sample_weight, len(rows.on)).numpy().astype(np.float64)

    @property
    def observed(self) -> np.ndarray:
        """`[N, D]`, whether a value is there."""
        return (self.on + self.off) > 0
