"""The plots of the report, as SVG and PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.report.evidence import Evidence
from rws_keras.training.comparison_plots import (
    by_method,
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
        comparison = evidence.comparison(name)
        # REINFORCE is so far above all others that nothing could be read beside it.
        rows = [row for row in evidence.rows(name) if row.updates and row.method != "REINFORCE"]
        if not rows:
            continue
        plot_values(comparison, rows, directory / f"{name}-values")
        if comparison.reference:
            tuned = [
                next((row for row in own if row.value == comparison.tune_at), own[0])
                for own in by_method(rows).values()
            ]
            plot_curves(comparison, tuned, _UPDATES, directory / f"{name}-curves")
    _switches(evidence, directory / "switches")
    for stack in "pq":
        _gradients(evidence, stack, "snr", "signal-to-noise ratio", directory)
        _gradients(evidence, stack, "variance", "variance (sum over weights)", directory)
    _exact(evidence, directory / "exact-likelihood", ("bias", "variance"), "of log p̂ (nats)")
    for stack in "pq":
        keys = (f"{stack}_gradient_bias", f"{stack}_gradient_variance")
        title = f"of the gradient of {stack.upper()}"
        _exact(evidence, directory / f"exact-gradient-{stack}", keys, title)


def _switches(evidence: Evidence, path: Path) -> None:
    names = ("switches-mnist", "switches-plants", "switches-mushrooms")
    found = {name: [row for row in evidence.rows(name) if row.updates] for name in names}
    if not all(found.values()):
        return
    with drawing(path, len(names)) as axes:
        for axis, (name, rows) in zip(axes, found.items(), strict=True):
            y = [-row.updates["log_likelihood"].mean for row in rows]
            errors = [row.updates["log_likelihood"].spread or 0.0 for row in rows]
            places = range(len(rows))
            axis.errorbar(places, y, errors, fmt="o", color="black", capsize=4)
            axis.set_xticks(places, [row.method for row in rows], rotation=15)
            axis.set(title=name.split("-")[1], xlim=(-0.5, len(rows) - 0.5))
        axes[0].set_ylabel("test NLL (nats)")


def _gradients(evidence: Evidence, stack: str, key: str, title: str, directory: Path) -> None:
    rows = evidence.benchmarks["gradient_noise"]["rows"]
    epochs = sorted({row["epoch"] for row in rows})
    estimators = list(dict.fromkeys(row["estimator"] for row in rows))
    with drawing(directory / f"gradient-{key}-{stack}", len(epochs), sharey=True) as axes:
        for axis, epoch in zip(axes, epochs, strict=True):
            for estimator, style in zip(estimators, styles(), strict=False):
                own = [r for r in rows if (r["estimator"], r["epoch"]) == (estimator, epoch)]
                k = [row["num_particles"] for row in own]
                y = [row[stack][key] for row in own]
                errors = [row[stack]["snr_se"] for row in own] if key == "snr" else None
                axis.errorbar(k, y, errors, label=estimator, capsize=2, **style)
            when = "at the start" if not epoch else f"after {epoch} epoch{'s' * (epoch > 1)}"
            axis.set(title=f"{when}", xlabel="particles K", xscale="log", yscale="log")
        axes[0].set_ylabel(f"{title}, {stack.upper()}")
        axes[-1].legend()


def _exact(evidence: Evidence, path: Path, keys: tuple[str, str], title: str) -> None:
    stages = evidence.benchmarks["exact_estimates"]["stages"]
    with drawing(path, 2) as axes:
        for axis, key in zip(axes, keys, strict=True):
            for stage, style in zip(stages, styles(), strict=False):
                k = np.array([row["num_particles"] for row in stage["rows"]])
                y = np.abs([row[key] for row in stage["rows"]])
                axis.plot(k, y, label=f"Q after {stage['updates_of_q']:,} updates", **style)
                # Theory's slope, through the last point.
                axis.plot(k, y[-1] * k[-1] / k, color="0.6", linewidth=0.8, zorder=0)
            what = "bias" if "bias" in key else "variance"
            axis.set(xlabel="particles K", ylabel=f"{what} {title}", xscale="log", yscale="log")
            values = [abs(row[key]) for stage in stages for row in stage["rows"]]
            axis.set_ylim(min(values) / 3, max(values) * 3)
        axes[0].legend(title="thin lines: 1 / K", loc="lower left")
