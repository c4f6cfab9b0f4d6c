"""The plots of the report, as SVG and PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report.claims import SETS
from benchmarks.report.evidence import Evidence
from rws_keras.training.comparison_plots import (
    drawing,
    plot_curves,
    plot_values,
    styles,
)

# Updates an epoch of the comparisons on binarized MNIST: 50,000 data in batches of 50.
_UPDATES = 1000


def draw(evidence: Evidence, directory: Path) -> None:
    """Writes all plots whose data are there."""
    for name in ("estimators", "one-layer", "depth"):
        _comparison(evidence, name, directory)
    _switches(evidence, directory / "switches")
    _particles(evidence, directory / "particles")
    for stack in "pq":
        for key, title in (("snr", "signal-to-noise ratio"), ("variance", "variance")):
            _gradients(evidence, stack, key, title, directory)
    _exact(evidence, directory / "exact-likelihood", ("bias", "variance"), "of log p̂ (nats)")
    for stack in "pq":
        keys = (f"{stack}_gradient_bias", f"{stack}_gradient_variance")
        title = f"of the gradient of {stack.upper()}"
        _exact(evidence, directory / f"exact-gradient-{stack}", keys, title)


def _comparison(evidence: Evidence, name: str, directory: Path) -> None:
    comparison = evidence.comparison(name)
    # REINFORCE is so far above all others that nothing could be read beside it.
    rows = [row for row in evidence.done(name) if row.method != "REINFORCE"]
    if len(rows) < 2:
        return
    plot_values(comparison, rows, directory / f"{name}-values")
    if comparison.reference:
        plot_curves(comparison, rows, _UPDATES, directory / f"{name}-curves")


def _switches(evidence: Evidence, path: Path) -> None:
    found = {name: evidence.done(name) for name in SETS}
    if not all(found.values()):
        return
    with drawing(path, len(SETS)) as axes:
        for axis, (name, rows) in zip(axes, found.items(), strict=True):
            y = [-row.updates["log_likelihood"].mean for row in rows]
            errors = [row.updates["log_likelihood"].spread or 0.0 for row in rows]
            places = range(len(rows))
            axis.errorbar(places, y, errors, fmt="o", color="black", capsize=4)
            axis.set_xticks(places, [row.method for row in rows], rotation=15)
            axis.set(title=SETS[name], xlim=(-0.5, len(rows) - 0.5))
        axes[0].set_ylabel("test NLL (nats)")


def _particles(evidence: Evidence, path: Path) -> None:
    """Negative log-likelihood over its value at the most particles, and effective sample size."""
    rows = evidence.benchmarks["particles"]["rows"]
    presets = list(dict.fromkeys(row["preset"] for row in rows))
    with drawing(path, 2) as (nll, ess):
        for preset, style in zip(presets, styles(), strict=False):
            own = [row for row in rows if row["preset"] == preset]
            k = [row["num_particles"] for row in own]
            best = own[-1]["log_likelihood"]
            nll.plot(k, [best - row["log_likelihood"] for row in own], label=preset, **style)
            ess.plot(k, [row["effective_sample_size"] for row in own], label=preset, **style)
        nll.set(ylabel=f"test NLL less that with K = {k[-1]:,} (nats)", yscale="symlog")
        ess.set(ylabel="effective sample size", yscale="log")
        for axis in (nll, ess):
            axis.set(xlabel="particles K", xscale="log")
        ess.legend(frameon=False)


def _gradients(evidence: Evidence, stack: str, key: str, title: str, directory: Path) -> None:
    rows = evidence.benchmarks["gradient_noise"]["rows"]
    epochs = sorted({row["epoch"] for row in rows})
    particles = sorted({row["num_particles"] for row in rows})
    with drawing(directory / f"gradient-{key}-{stack}", len(epochs), sharey=True) as axes:
        for axis, epoch in zip(axes, epochs, strict=True):
            lines = _lines([row for row in rows if row["epoch"] == epoch], stack)
            for (estimators, found), style in zip(lines.items(), styles(), strict=False):
                k = np.array(particles)
                if key == "snr":
                    _signal(axis, k, found, estimators, style)
                else:
                    axis.plot(k, [each["variance"] for each in found], label=estimators, **style)
            when = "at the start" if not epoch else f"after {epoch} epoch{'s' * (epoch > 1)}"
            axis.set(title=when, xlabel="particles K", xscale="log", yscale="log")
            axis.set_xticks(particles, [str(k) for k in particles])
            axis.minorticks_off()
        axes[0].set_ylabel(f"{title} of the gradient of {stack.upper()}")
        axes[-1].legend()


def _lines(rows: list[dict], stack: str) -> dict[str, list[dict[str, float]]]:
    """What was measured, by the estimators: those that have the same gradients are one line."""
    lines: dict[str, list[dict[str, float]]] = {}
    for estimator in dict.fromkeys(row["estimator"] for row in rows):
        own = [row[stack] for row in rows if row["estimator"] == estimator]
        same = next((names for names, found in lines.items() if found == own), None)
        if same:
            lines = {f"{n}, {estimator}" if n == same else n: f for n, f in lines.items()}
        else:
            lines[estimator] = own
    return lines


def _signal(axis: Any, k: np.ndarray, found: list[dict], label: str, style: dict) -> None:
    """Ratios with two standard errors; what is not seen in the draws is an upper limit."""
    square, error = (np.array([each[key] for each in found]) for key in _SQUARES)
    seen = square > 2.0 * error
    ratio = np.sqrt(np.where(seen, square, np.nan))
    low = ratio - np.sqrt(np.where(seen, square - 2.0 * error, np.nan))
    high = np.sqrt(np.maximum(square, 0.0) + 2.0 * error)
    axis.errorbar(k, ratio, [low, high - ratio], label=label, capsize=2, **style)
    limits = {"color": style["color"], "marker": "v", "linestyle": "none", "fillstyle": "none"}
    axis.plot(k[~seen], high[~seen], **limits)


_SQUARES = ("snr_squared", "snr_squared_se")


def _exact(evidence: Evidence, path: Path, keys: tuple[str, str], title: str) -> None:
    stages = evidence.benchmarks["exact_estimates"]["stages"]
    with drawing(path, 2) as axes:
        for axis, key in zip(axes, keys, strict=True):
            for stage, style in zip(stages, styles(), strict=False):
                k = np.array([row["num_particles"] for row in stage["rows"]])
                y = np.abs([row[key] for row in stage["rows"]])
                axis.plot(k, y, label=f"Q after {stage['updates_of_q']:,} updates", **style)
                theory = abs(stage["limits"][key]) / k
                axis.plot(k, theory, color="0.6", linewidth=0.8, zorder=0)
            what = "bias" if "bias" in key else "variance"
            axis.set(xlabel="particles K", ylabel=f"{what} {title}", xscale="log", yscale="log")
            values = [abs(row[key]) for stage in stages for row in stage["rows"]]
            axis.set_ylim(min(values) / 3, max(values) * 3)
        axes[0].legend(title="thin lines: the limit for large K", loc="lower left")
