"""Units that are independent of each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rws_keras.baselines.rows import Rows


class IndependentUnits:
    """Each unit is on with its own frequency, whatever the others are.

    The frequencies are those of the data with one pseudo-count each way, so that a unit that never
    changes does not make a row impossible.

    Args:
        x: Rows `[N, D]` of zeros, ones and, where a value is missing, NaN.
        sample_weight: Weights of the rows `[N]`; by default 1.

    Attributes:
        mean: Probability `[D]` that a unit is on.

    Raises:
        UserError: If a value or a weight is something else.

    Example:
    ```python
    data = rws_keras.datasets.load("digits")
    baseline = rws_keras.baselines.IndependentUnits(data.train)
    baseline.log_likelihood(data.test).mean()    # nats per datum
    ```
    """

    def __init__(self, x: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None):
        rows, weight = Rows.weighted(x, sample_weight)
        on, off = weight @ rows.on + 1.0, weight @ rows.off + 1.0
        self.mean: np.ndarray = on / (on + off)

    def log_likelihood(self, x: npt.ArrayLike) -> np.ndarray:
        """`log p(x)` of the observed values, `[N]`, in nats."""
        rows = Rows.of(x, len(self.mean))
        return rows.on @ np.log(self.mean) + rows.off @ np.log1p(-self.mean)

    def conditional(self, x: npt.ArrayLike) -> np.ndarray:
        """Probability `[N, D]` of a one where a value is missing, given the others; else `x`."""
        rows = Rows.of(x, len(self.mean))
        return np.where(rows.observed, rows.on, self.mean)
