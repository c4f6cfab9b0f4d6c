"""The results of a comparison: one row for each method and value."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rws_keras.training.comparing import Results, chosen_rate, equal_time_epochs
from rws_keras.training.comparison import Arm, Comparison, label


class Figure(NamedTuple):
    """A figure over seeds.

    Attributes:
        mean: The mean.
        spread: The standard deviation over the seeds; `None` of one seed.
        seeds: How many seeds.
    """

    mean: float
    spread: float | None
    seeds: int = 1

    def text(self, digits: int, sign: int = 1) -> str:
        """The mean times the sign, and the spread after ±, with this number of digits."""
        spread = "" if self.spread is None else f" ± {self.spread:.{digits}f}"
        return f"{sign * self.mean:.{digits}f}{spread}"


class Row(NamedTuple):
    """A method at a value of the axis.

    Attributes:
        method: The method.
        value: The value.
        rate: The learning rate that was chosen.
        seeds: How many seeds are done.
        time: The step's time, as `step_times` returns it; `None` without a reference.
        updates: The figures after equal updates, by name: `log_likelihood` and others.
        equal_time: The figures after equal time, likewise; empty without a reference.
        epochs: Epochs of the two.
        curve: Mean validation log-likelihood of each epoch, over the seeds.
        diverged: How many seeds have diverged.
    """

    method: str
    value: Any
    rate: float
    seeds: int
    time: dict | None
    updates: dict[str, Figure]
    equal_time: dict[str, Figure]
    epochs: tuple[int, int | None]
    curve: np.ndarray
    diverged: int


def summarize(comparison: Comparison, name: str, results: Results) -> list[Row]:
    """A row for each method and value of which a run is done, in the order of the methods."""
    rows = []
    for method in comparison.names:
        rate = chosen_rate(comparison, method, results)
        if rate is None:
            continue
        arms: dict[str, list[Arm]] = {}
        for arm in comparison.arms(method, rate):
            arms.setdefault(repr(arm.value), []).append(arm)
        made = [_row(comparison, name, group, results) for group in arms.values()]
        rows += sorted((row for row in made if row is not None), key=_order)
    return rows


def cells(comparison: Comparison, name: str, results: Results) -> list[list[str]]:
    """The summary as a table.

    Method, value, learning rate, seeds, test NLL and negative ELBO in nats, effective sample size
    and active units; with a reference the step's time over its, and the test NLL at equal time
    with the epochs that this takes.
    """
    return [_cells(comparison, row) for row in summarize(comparison, name, results)]


def _cells(comparison: Comparison, row: Row) -> list[str]:
    def shown(figures, key, digits, sign=1):
        if key not in figures:
            return "diverged" if row.diverged else ""
        return figures[key].text(digits, sign)

    cells = [
        row.method,
        label(row.value),
        f"{row.rate:g}",
        str(row.seeds),
        shown(row.updates, "log_likelihood", 2, -1),
        shown(row.updates, "elbo", 2, -1),
        shown(row.updates, "ess", 2),
        shown(row.updates, "active_units", 0),
    ]
    if comparison.reference and row.time:
        nll = shown(row.equal_time, "log_likelihood", 2, -1)
        cells += [f"{row.time['ratio']:.2f}", f"{nll} ({row.epochs[1]})"]
    return cells


def _order(row):
    """Numbers in their order; anything else stays where it is."""
    return row.value if isinstance(row.value, int | float) else 0


def _row(comparison, name, arms: list[Arm], results) -> Row | None:
    first = arms[0]
    at_time = equal_time_epochs(comparison, name, first, results)
    known = [results.read(arm.recipe) for arm in arms]
    diverged = sum("diverged" in each for each in known)
    done = [each for each in known if _at(each, first.recipe.epochs)]
    if not done and not diverged:
        return None
    times = [row for row in results.times(name) if (row["method"], row["value"]) == first[:2]]
    length = min((len(each["curve"]) for each in done), default=0)
    curves = [[point["log_likelihood"] for point in each["curve"][:length]] for each in done]
    return Row(
        first.method,
        first.value,
        first.rate,
        len(done),
        times[0] if times else None,
        _figures(done, first.recipe.epochs),
        _figures(done, at_time) if at_time else {},
        (first.recipe.epochs, at_time),
        np.mean(curves, axis=0) if curves else np.zeros(0),
        diverged,
    )


def _at(known: dict, epoch: int) -> dict | None:
    """A run's evaluation after an epoch."""
    return next((e for e in known.get("evaluations", []) if e["epoch"] == epoch), None)


def _figures(done: list[dict], epoch: int) -> dict[str, Figure]:
    entries = [entry for entry in (_at(each, epoch) for each in done) if entry]
    figures = {}
    for key in ("log_likelihood", "elbo", "ess", "correction") if entries else ():
        figures[key] = _over_seeds([entry[key] for entry in entries])
    if entries:
        layers = np.array([entry["active_units"] for entry in entries])
        figures["active_units"] = _over_seeds(layers.sum(axis=1).tolist())
        for number, of_layer in enumerate(layers.T, start=1):
            figures[f"active_units_{number}"] = _over_seeds(of_layer.tolist())
    return figures


def _over_seeds(values: list[float]) -> Figure:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Figure(float(np.mean(values)), spread, len(values))
