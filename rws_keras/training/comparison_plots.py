"""Plots of comparisons, readable in black and white."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rws_keras.errors import UserError
from rws_keras.files import make_directory, replace_file
from rws_keras.training.comparing import Results
from rws_keras.training.comparison import Comparison, label
from rws_keras.training.comparison_summary import Row, summarize

# Drawn in this order, so that no two lines of a plot need colour to be told apart.
_MARKERS = "os^Dv*XP"
_LINES = ("-", "--", "-.", ":")
_SETTINGS: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.fontsize": 8,
    "lines.linewidth": 1.2,
    "lines.markersize": 5,
    # The same plot is the same file.
    "svg.hashsalt": "rws_keras",
}


@contextlib.contextmanager
def drawing(path: Path, panels: int = 1, **options: Any) -> Iterator[Any]:
    """Panels to draw on, which are then written as `PATH.svg` and `PATH.png`.

    Args:
        path: The files, without their endings.
        panels: How many panels to have side by side.
        **options: Of `matplotlib.pyplot.subplots`.

    Yields:
        The matplotlib axes, a list.

    Raises:
        UserError: If matplotlib is not installed.
    """
    matplotlib = load_matplotlib()
    matplotlib.use("agg")
    from matplotlib import pyplot

    with matplotlib.rc_context(_SETTINGS):
        size = (4.6 * panels, 3.6)
        figure, axes = pyplot.subplots(1, panels, squeeze=False, figsize=size, **options)
        try:
            yield list(axes[0])
            make_directory(path.parent)
            for ending, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
                with replace_file(path.with_suffix(ending)) as temporary:
                    figure.savefig(temporary, metadata=metadata)
        finally:
            pyplot.close(figure)


def styles() -> Iterator[dict[str, Any]]:
    """Lines that differ in marker, dash and shade."""
    for index, marker in enumerate(itertools.cycle(_MARKERS)):
        shade = (0.0, 0.35, 0.55)[index % 3]
        yield {
            "color": (shade, shade, shade),
            "marker": marker,
            "linestyle": _LINES[index % len(_LINES)],
            "markerfacecolor": "white" if index % 2 else (shade, shade, shade),
        }


def by_method(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each method."""
    methods: dict[str, list[Row]] = {}
    for row in rows:
        methods.setdefault(row.method, []).append(row)
    return methods


def load_matplotlib() -> Any:
    """Matplotlib, which is not among the requirements of the library itself.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(
            "Plots need matplotlib. Install it with `pip install 'rws-keras[plots]'`."
        ) from error
    return matplotlib


def plot(comparison: Comparison, name: str, results: Results, directory: Path) -> list[Path]:
    """Writes `NAME-values` and `NAME-curves`, each as SVG and PNG.

    The curves are for the value at which the learning rates are chosen.

    Args:
        comparison: The comparison.
        name: Its name.
        results: Its results.
        directory: Where the plots go.

    Returns:
        The paths, without their endings.
    """
    rows = [row for row in summarize(comparison, name, results) if row.updates]
    recipe = comparison.arms_of(comparison.methods[0], comparison.rates[0])[0].recipe
    updates = recipe.steps_per_epoch(len(recipe.load_data().train))
    values, curves = directory / f"{name}-values", directory / f"{name}-curves"
    plot_values(comparison, rows, values)
    plot_curves(comparison, rows, updates, curves)
    return [values, curves]


def plot_values(comparison: Comparison, rows: list[Row], path: Path) -> None:
    """Test NLL against the values of the axis: at equal updates, and at equal time if measured.

    Error bars are standard deviations over the seeds, where there are several.
    """
    panels = [("at equal updates", "updates")]
    if comparison.reference:
        panels.append(("at equal time", "equal_time"))
    with drawing(path, len(panels), sharey=True) as axes:
        numeric = all(isinstance(row.value, int | float) for row in rows)
        places = {label(row.value): place for place, row in enumerate(_distinct(rows))}
        for axis, (title, which) in zip(axes, panels, strict=True):
            for (method, own), style in zip(by_method(rows).items(), styles(), strict=False):
                shown = [row for row in own if getattr(row, which)]
                x = [row.value if numeric else places[label(row.value)] for row in shown]
                figures = [getattr(row, which)["log_likelihood"] for row in shown]
                errors = [figure.spread or 0.0 for figure in figures]
                y = [-figure.mean for figure in figures]
                axis.errorbar(x, y, errors, label=method, capsize=2, **style)
            axis.set(title=title, xlabel=comparison.axis_title)
            if numeric:
                axis.set_xscale("log")
                ticks = sorted({row.value for row in rows})
                axis.set_xticks(ticks, [str(tick) for tick in ticks])
                axis.minorticks_off()
            else:
                axis.set_xticks(list(places.values()), list(places), rotation=20)
        axes[0].set_ylabel("test NLL (nats)")
        axes[0].legend()


def plot_curves(comparison: Comparison, rows: list[Row], updates: int, path: Path) -> None:
    """Validation NLL against updates, and against time where it was measured.

    Args:
        comparison: The comparison.
        rows: Its rows. For each method, the one that chose its learning rate is shown.
        updates: Updates per epoch.
        path: The files, without their endings.
    """
    timed = comparison.reference is not None
    with drawing(path, 2 if timed else 1, sharey=True) as axes:
        lowest, highest = np.inf, -np.inf
        for own, style in zip(by_method(rows).values(), styles(), strict=False):
            row = next((row for row in own if row.value == comparison.tune_at), own[0])
            x = updates * np.arange(1, len(row.curve) + 1)
            title = f"{row.method}, {comparison.value_title(row.value)}"
            axes[0].plot(x, -row.curve, label=title, markevery=0.1, **style)
            if timed and row.time:
                axes[1].plot(x * row.time["ratio"], -row.curve, markevery=0.1, **style)
            lowest, highest = min(lowest, -row.curve[-1]), max(highest, -row.curve[-1])
        axes[0].set(xlabel="updates", ylabel="validation NLL (nats)")
        margin = 0.1 * (highest - lowest) + 1.0
        axes[0].set_ylim(lowest - margin, highest + 3 * margin)
        if timed and comparison.reference:
            reference = comparison.reference
            unit = f"{reference.method}, {comparison.value_title(reference.value)}"
            axes[1].set(xlabel=f"time, in updates of {unit}")
        axes[0].legend()


def _distinct(rows: list[Row]) -> list[Row]:
    return list({label(row.value): row for row in rows}.values())
