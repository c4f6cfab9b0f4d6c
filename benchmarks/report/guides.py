"""The generated tables of the guides, from the results of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.report.evidence import ROOT, Evidence
from benchmarks.report.page import table

GUIDES = ROOT / "docs" / "guides"


def pages(evidence: Evidence) -> dict[Path, dict[str, Callable[[], str]]]:
    """What gives each generated part of the guides."""
    found = evidence.benchmarks
    return {
        GUIDES / "missing-values.md": {
            "cells": lambda: cells(found["missing_values"]),
            "coverage": lambda: coverage(found["imputation_coverage"]),
        },
        GUIDES / "choosing.md": {"families": lambda: families(found["families"])},
        GUIDES / "thresholds.md": {"anomalies": lambda: anomalies(found["anomalies"])},
        ROOT / "docs" / "speed.md": {
            "step": lambda: step(found["limits"]),
            "scoring": lambda: scoring(found["scoring"]),
            "time_to_likelihood": lambda: time_to_likelihood(found["time_to_likelihood"]),
        },
    }


def step(found: dict) -> str:
    """The parts of a training step in milliseconds, a case in each column."""
    cases = found["cases"]
    rows = [
        *([part, *(f"{case['ms'][part]:.2f}" for case in cases)] for part in cases[0]["ms"]),
        ["the whole step", *(f"{case['step']['ms']:.2f}" for case in cases)],
        [
            "one sigmoid of all its activations",
            *(f"{case['ms_of_one_pass']:.2f}" for case in cases),
        ],
        [
            "share of the rate of its matrix products",
            *(f"{case['share_of_matrix_product_rate']['ratio']:.2f}" for case in cases),
        ],
    ]
    return table(["ms", *(case["case"] for case in cases)], rows)


def scoring(found: dict) -> str:
    """Rows scored per second, by preset."""
    rows = [
        [
            f"`{row['preset']}`",
            f"{row['ms']:.0f} ({row['ms_25']:.0f}-{row['ms_75']:.0f})",
            f"{row['rows_per_second']:,.0f}",
        ]
        for row in found["rows"]
    ]
    title = f"ms for {found['rows_scored']} rows, K = {found['num_particles']}"
    return table(["preset", title, "rows per second"], rows)


_LIBRARIES = {"rws_keras": "rws_keras", "torch_compile": "PyTorch, `torch.compile`", "pyro": "Pyro"}


def time_to_likelihood(found: dict) -> str:
    """Seconds to a validation NLL, and their ratio to ours with Muon."""
    ours: dict[float, dict] = {}
    rows = []
    for row in found["rows"]:
        # Without a run that reached the target: the one that came nearest.
        shown = row["best"] or min(row["runs"], key=lambda run: run["nll"])
        reference = ours.setdefault(row["target"], shown)  # The first of each target is ours.
        more = "" if row["best"] else "over "
        at_least = more if reference["reached"] else ""
        rows.append(
            [
                f"{row['target']:g}",
                _LIBRARIES[row["library"]],
                f"{row['optimizer'].capitalize()} {shown['rate']:g}",
                f"{shown['updates']:,}",
                f"{more}{shown['seconds']:.0f}",
                f"{at_least}{shown['seconds'] / reference['seconds']:.2f}",
                f"{shown['nll']:.2f}",
            ]
        )
    columns = ["target", "library", "optimizer", "updates", "seconds", "times ours", "NLL"]
    return table(columns, rows)


def cells(found: dict) -> str:
    """Log-probability and accuracy of removed cells."""
    columns = ["data", "removed", "method", "nats per cell", "accuracy", "nats per row"]
    rows = [
        [
            row["dataset"],
            row["pattern"],
            row["method"],
            f"{row['log_prob']['mean']:.4f} ({row['log_prob']['se']:.4f})",
            f"{row['accuracy']['mean']:.1%}",
            ""
            if row["joint"] is None
            else f"{row['joint']['mean']:.2f} ({row['joint']['se']:.2f})",
        ]
        for row in found["rows"]
    ]
    return table(columns, rows)


def coverage(found: dict) -> str:
    """How often intervals of multiple imputation contain the true value."""
    columns = [f"imputed by ({found['level']:.0%} intervals)", "coverage", "mean width"]
    rows = [
        [row["method"], f"{row['coverage']:.3f} ({row['coverage_se']:.3f})", f"{row['width']:.3f}"]
        for row in found["methods"]
    ]
    return table(columns, rows)


def families(found: dict) -> str:
    """Test log-likelihoods on tables, a model in each column; the AUROC of odd rows below."""
    models = list(dict.fromkeys(row["model"] for row in found["rows"]))
    by_set: dict[str, dict[str, dict]] = {}
    for row in found["rows"]:
        by_set.setdefault(row["dataset"], {})[row["model"]] = row

    def part(title: str, key: str, digits: int) -> str:
        lines = []
        for name, rows in by_set.items():
            best = max(row[key] for row in rows.values())
            figures = {model: f"{row[key]:.{digits}f}" for model, row in rows.items()}
            bold = {
                model: f"**{figure}**" if rows[model][key] == best else figure
                for model, figure in figures.items()
            }
            lines.append([name, *(bold.get(model, "") for model in models)])
        return table([title, *models], lines)

    return "\n\n".join(
        [
            part("test log-likelihood, nats", "log_likelihood", 2),
            part("AUROC of odd rows", "auroc", 3),
        ]
    )


def anomalies(found: dict) -> str:
    """How well likelihood detects odd rows."""
    columns = ["machine", "odd rows", "normal, nats", "odd, nats", "AUROC", "two-sided"]
    columns += ["false alarms", "alarms", "two-sided alarms"]
    rows = [
        [
            row["model"] if row["model"].startswith("trained") else f"`{row['model']}`",
            row["odd"],
            f"{row['usual']:.2f}",
            f"{row['odd_mean']:.2f}",
            f"{row['auroc']:.3f}",
            f"{row['auroc_two_sided']:.3f}",
            *(f"{row[key]:.1%}" for key in ("false_alarms", "alarms", "alarms_two_sided")),
        ]
        for row in found["rows"]
    ]
    return table(columns, rows)
