"""What the report rests on: committed results, and how sure they are."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rws_keras.files import read_json
from rws_keras.training import comparison as comparisons
from rws_keras.training.comparing import Results
from rws_keras.training.comparison import Comparison
from rws_keras.training.comparison_summary import Row, summarize

ROOT = Path(__file__).parents[2]


class Evidence:
    """The committed results.

    Args:
        root: Directory of the project.
    """

    def __init__(self, root: Path = ROOT):
        self.results = Results(root / "training" / "results" / "comparisons")
        self.benchmarks: dict[str, Any] = read_json(root / "benchmarks" / "results.json")
        self._rows: dict[str, list[Row]] = {}

    def comparison(self, name: str) -> Comparison:
        """A comparison of the project."""
        return comparisons.load(name)[1]

    def rows(self, name: str) -> list[Row]:
        """The rows of a comparison whose runs are done."""
        if name not in self._rows:
            found = summarize(self.comparison(name), name, self.results)
            self._rows[name] = [row for row in found if row.updates or row.diverged]
        return self._rows[name]

    def find(self, name: str, method: str, value: Any) -> Row | None:
        """A row of a comparison, or `None` if its runs are not done."""
        rows = (row for row in self.rows(name) if (row.method, row.value) == (method, value))
        return next((row for row in rows if row.updates), None)

    @cached_property
    def seed_spread(self) -> float:
        """Standard deviation of a test log-likelihood over seeds, in nats.

        Pooled over the rows of `estimators` that were run with several.
        """
        rows = [row for row in self.rows("estimators") if row.seeds > 1]
        squares = [(row.seeds - 1) * _spread(row) ** 2 for row in rows]
        return math.sqrt(sum(squares) / sum(row.seeds - 1 for row in rows)) if rows else math.nan

    def nll(self, row: Row, which: str = "updates") -> float:
        """A row's test NLL in nats at equal `updates` or `equal_time`."""
        return -getattr(row, which)["log_likelihood"].mean

    def gain(self, better: Row, worse: Row, which: str = "updates") -> tuple[float, float]:
        """By how many nats a row is better than another, and the standard error over seeds.

        Of a row with one seed the standard deviation is that of `seed_spread`.
        """
        variance = sum(
            (_spread(row) if row.seeds > 1 else self.seed_spread) ** 2 / row.seeds
            for row in (better, worse)
        )
        return self.nll(worse, which) - self.nll(better, which), math.sqrt(variance)

    def time_ratio(self, name: str, first: tuple[str, Any], second: tuple[str, Any]) -> float:
        """Time of a step of one method at a value over that of another."""
        times = {(row["method"], row["value"]): row["ratio"] for row in self.results.times(name)}
        return times[first] / times[second]


def _spread(row: Row) -> float:
    found = row.updates["log_likelihood"].spread
    return float(np.nan if found is None else found)
