"""`python -m benchmarks [SECTION…]`: measures, prints tables, writes `results.json`."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import (
    against_peers,
    anomalies,
    exact_estimates,
    families,
    fit_overhead,
    gradient_noise,
    imputation_coverage,
    likelihood,
    limits,
    missing_values,
    particles,
    resampling,
    sampling,
    scoring,
    serving,
    tables,
    time_to_likelihood,
    train_step,
)
from rws_keras.files import read_json, write_json
from rws_keras.training.run import provenance

RESULTS = Path(__file__).with_name("results.json")
SECTIONS = {
    "train_step": train_step.measure,
    "peers": against_peers.measure,
    "limits": limits.measure,
    "likelihood": likelihood.measure,
    "sampling": sampling.measure,
    "scoring": scoring.measure,
    "fit": fit_overhead.measure,
    "resampling": resampling.measure,
    "time_to_likelihood": time_to_likelihood.measure,
    "serving": serving.measure,
    "exact_estimates": exact_estimates.measure,
    "gradient_noise": gradient_noise.measure,
    "missing_values": missing_values.measure,
    "imputation_coverage": imputation_coverage.measure,
    "anomalies": anomalies.measure,
    "families": families.measure,
    "particles": particles.measure,
}
# Timings differ from machine to machine, more than from run to run: of these sections the times of
# earlier runs stay beside the newest.
_KEPT = {"peers": "times"}


def run(
    sections: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(SECTIONS)}; all by default.")
    ] = None,
    to: Annotated[Path, typer.Option(help="The file of the results.")] = RESULTS,
) -> None:
    """Measures sections and puts them in the file of the results; others in it stay."""
    console = Console()
    chosen = sections or list(SECTIONS)
    if unknown := [name for name in chosen if name not in SECTIONS]:
        console.print(f"Error: unknown section {unknown[0]}; expected {', '.join(SECTIONS)}.")
        raise typer.Exit(2)
    for name in chosen:
        console.print(f"{name} …", highlight=False)
        try:
            found = SECTIONS[name](lambda text: console.print(f"  {text}", highlight=False))
        except ValueError as error:
            console.print(f"Error: {error}", style="red", markup=False, highlight=False)
            raise typer.Exit(2) from None
        # How it was measured goes with each section: they may come from several runs.
        found["run"] = provenance(seed=0, program="python -m benchmarks")
        results = read_json(to) if to.exists() else {}
        if name in _KEPT and name in results:
            found["earlier"] = earlier(results[name], _KEPT[name])
        write_json(to, {**results, name: found})
        for table in tables.tables({name: found}):
            console.print(table)


def earlier(found: dict, what: str) -> list[dict]:
    """The earlier runs that a section has, and its own."""
    return [*found.get("earlier", []), {what: found[what], "run": found["run"]}]


if __name__ == "__main__":
    typer.run(run)
