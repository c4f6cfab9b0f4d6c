"""The tree of units that fits the data best."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csgraph

from rws_keras.baselines.rows import Rows

# A quarter of the two pseudo-counts that a unit alone gets: the pairs agree with the units.
_PSEUDO_COUNT = 0.5


class ChowLiuTree:
    """Each unit depends on one other; of all such trees that with the greatest likelihood.

    Its likelihood and its conditional probabilities are exact. Each pair of values has half a
    pseudo-count. Where values are missing a pair is counted in the rows that have both.

    Args:
        x: Rows `[N, D]` of zeros, ones and, where a value is missing, NaN.
        sample_weight: Weights of the rows `[N]`; by default 1.

    Attributes:
        parents: Integers `[D]`: on which unit each depends; -1 at the root, unit 0.

    Raises:
        UserError: If a value or a weight is something else.

    Example:
    ```python
    data = rws_keras.datasets.load("digits")
    tree = rws_keras.baselines.ChowLiuTree(data.train)
    tree.log_likelihood(data.test).mean()        # nats per datum
    ```

    Reference:
        - [Chow & Liu, 1968](https://doi.org/10.1109/TIT.1968.1054142)
    """

    def __init__(self, x: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None):
        rows, weight = Rows.weighted(x, sample_weight)
        values = (rows.off, rows.on)
        # Joint frequencies [2, 2, D, D] of the values of each two units.
        pairs = np.array([[(a * weight[:, None]).T @ b for b in values] for a in values])
        pairs += _PSEUDO_COUNT
        pairs /= pairs.sum(axis=(0, 1))
        self._order, self.parents = _tree(_mutual_information(pairs))
        root = np.array([weight @ value[:, 0] for value in values]) + 2.0 * _PSEUDO_COUNT
        self._root = np.log(root / root.sum())
        # log p(unit | parent), [D, parent's value, unit's value].
        units = np.arange(len(self.parents))
        joint = np.moveaxis(pairs[:, :, self.parents, units], -1, 0)
        self._given = np.log(joint / joint.sum(axis=2, keepdims=True))

    def log_likelihood(self, x: npt.ArrayLike) -> np.ndarray:
        """`log p(x)` of the observed values, `[N]`, in nats."""
        _, upward = self._collect(Rows.of(x, len(self.parents)))
        return np.logaddexp(*(self._root + upward[:, 0]).T)

    def conditional(self, x: npt.ArrayLike) -> np.ndarray:
        """Probability `[N, D]` of a one where a value is missing, given the others; else `x`."""
        rows = Rows.of(x, len(self.parents))
        messages, upward = self._collect(rows)
        beliefs = np.empty_like(upward)
        beliefs[:, 0] = self._root + upward[:, 0]
        for unit in self._order[1:]:
            # What the parent knows without this unit.
            others = beliefs[:, self.parents[unit]] - messages[:, unit]
            given = np.logaddexp(*(others[:, :, None] + self._given[unit]).transpose(1, 0, 2))
            beliefs[:, unit] = given + upward[:, unit]
        on = np.exp(beliefs[..., 1] - np.logaddexp(beliefs[..., 0], beliefs[..., 1]))
        return np.where(rows.observed, rows.on, on)

    def _collect(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Messages to the parents, and what the units below and at each one say of its value.

        Both are logarithms `[N, D, 2]`.
        """
        shape = (*rows.on.shape, 2)
        messages, upward = np.zeros(shape), np.zeros(shape)
        upward[..., 0][rows.on > 0] = upward[..., 1][rows.off > 0] = -np.inf
        for unit in self._order[:0:-1]:
            of_pairs = self._given[unit] + upward[:, unit, None]
            messages[:, unit] = np.logaddexp(of_pairs[..., 0], of_pairs[..., 1])
            upward[:, self.parents[unit]] += messages[:, unit]
        return messages, upward


def _mutual_information(pairs: np.ndarray) -> np.ndarray:
    """Mutual information `[D, D]` in nats, of joint frequencies `[2, 2, D, D]`."""
    independent = pairs.sum(axis=1, keepdims=True) * pairs.sum(axis=0, keepdims=True)
    return np.sum(pairs * np.log(pairs / independent), axis=(0, 1))


def _tree(information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The units of the maximum spanning tree, parents first, and the parent of each."""
    # No weight may be zero, which would mean that there is no edge.
    weights = information.max() - information + 1.0
    np.fill_diagonal(weights, 0.0)
    tree = csgraph.minimum_spanning_tree(weights)
    order, parents = csgraph.breadth_first_order(tree, 0, directed=False)
    return order, np.where(parents < 0, -1, parents)
