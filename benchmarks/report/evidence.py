"""What the report rests on: committed results, and how sure they are."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

from rws_keras.files import read_json
from rws_keras.training import comparison as comparisons
from rws_keras.training.comparing import Results
from rws_keras.training.comparison import Comparison
from rws_keras.training.comparison_summary import Figure, Row, summarize

ROOT = Path(__file__).parents[2]
_CONFIDENCE = 0.95


class Gain(NamedTuple):
    """By how much one method is better than another.

    Attributes:
        nats: The difference of their test NLL, positive where the first is better.
        error: Its standard error over seeds; NaN where no method had several.
        freedom: Degrees of freedom of the error.
    """

    nats: float
    error: float
    freedom: int

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `equal` if 0 is within the confidence interval of 95 %."""
        if not self.freedom:
            return "equal"
        half = stats.t.ppf(0.5 + _CONFIDENCE / 2, self.freedom) * self.error
        return "better" if self.nats > half else "worse" if self.nats < -half else "equal"

    def __str__(self) -> str:
        return f"{self.nats:+.2f} ± {self.error:.2f}"


class Evidence:
    """The committed results."""

    def __init__(self) -> None:
        self.results = Results(ROOT / "training" / "results" / "comparisons")
        self.benchmarks: dict[str, Any] = read_json(ROOT / "benchmarks" / "results.json")
        self._rows: dict[str, list[Row]] = {}

    def comparison(self, name: str) -> Comparison:
        """A comparison of the project."""
        return comparisons.load(name)[1]

    def rows(self, name: str) -> list[Row]:
        """The rows of a comparison of which runs are done, or have diverged."""
        if name not in self._rows:
            self._rows[name] = summarize(self.comparison(name), name, self.results)
        return self._rows[name]

    def done(self, name: str, method: str | None = None) -> list[Row]:
        """The rows that have figures, of one method or of all."""
        return [r for r in self.rows(name) if r.updates and method in (None, r.method)]

    def find(self, name: str, method: str, value: Any) -> Row | None:
        """The row of a method at a value, or `None` if its runs are not done."""
        return next((row for row in self.done(name, method) if row.value == value), None)

    def spread(self, name: str) -> tuple[float, int]:
        """Standard deviation of a test log-likelihood over seeds, and its degrees of freedom.

        Pooled over the rows of a comparison that were run with several seeds; where it has none,
        over those of `estimators`.
        """
        found = [row.updates["log_likelihood"] for row in self.done(name)]
        several = [figure for figure in found if figure.spread is not None]
        freedom = sum(figure.seeds - 1 for figure in several)
        if not freedom:
            return self.spread("estimators") if name != "estimators" else (math.nan, 0)
        squares = sum((f.seeds - 1) * (f.spread or 0.0) ** 2 for f in several)
        return math.sqrt(squares / freedom), freedom

    def gain(self, name: str, better: Row, worse: Row, which: str = "updates") -> Gain:
        """What a row gains over another one, at equal `updates` or at `equal_time`."""
        first, second = (_log_likelihood(row, which) for row in (better, worse))
        spread, freedom = self.spread(name)
        error = spread * math.sqrt(1 / first.seeds + 1 / second.seeds)
        return Gain(first.mean - second.mean, error, freedom)

    def time_ratio(self, name: str, first: tuple[str, Any], second: tuple[str, Any]) -> float:
        """Time of a step of one method at a value over that of another."""
        times = {(row["method"], row["value"]): row["ratio"] for row in self.results.times(name)}
        return times[first] / times[second]

    def cost(self, row: Row) -> float:
        """Time of a row's updates over those of RWS with K = 5, by the times of `estimators`."""
        times = {
            r["value"]: r["ratio"] for r in self.results.times("estimators") if r["method"] == "RWS"
        }
        if not isinstance(row.value, dict):
            return times[row.value]
        starts = {int(start): value for start, value in row.value.items()}
        edges = [*sorted(starts), row.epochs[0]]
        ends = itertools.pairwise(edges)
        return sum(times[starts[a]] * (b - a) for a, b in ends) / row.epochs[0]


def nll(row: Row, which: str = "updates") -> float:
    """A row's test NLL in nats at equal `updates` or `equal_time`."""
    return -_log_likelihood(row, which).mean


def _log_likelihood(row: Row, which: str) -> Figure:
    return getattr(row, which)["log_likelihood"]
