"""The demonstration: digits, and three baselines on the same split."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rws_keras import datasets
from rws_keras.baselines import IndependentUnits
from rws_keras.errors import UserError
from rws_keras.training import fitting, recipe
from rws_keras.training.reporting import baseline_likelihood
from rws_keras.training.run import Run

# Name of the recipe, and what the table calls it. All have the same layers, number of
# updates, optimizer and seed.
MACHINES = {
    "digits": "Reweighted Wake-Sleep, K = 5",
    "digits-k1": "Reweighted Wake-Sleep, K = 1",
    "digits-wake-sleep": "classic wake-sleep",
}


def run(directory: Path, console: Console) -> None:
    """Trains the machines of the demonstration and prints their test likelihoods.

    Args:
        directory: Where the run directories go; those of an earlier demonstration are
            replaced.
        console: Rich console.

    Raises:
        ValueError: If something that is not a run is in the way.
    """
    results = []
    for name, title in MACHINES.items():
        made = _replace(Run(directory / name), name)
        fitting.fit(made, title, console)
        results += [(title, entry) for entry in made.metrics["evaluations"]]
    table = Table("model", "test (nats)", "standard error", "K", "data")
    for title, entry in results:
        if entry["split"] == "test":
            table.add_row(
                title,
                f"{entry['log_likelihood']:.2f}",
                f"{entry['log_likelihood_se']:.2f}",
                f"{entry['num_particles']:,}",
                str(entry["num_data"]),
            )
    data = datasets.load("digits")
    yardstick = baseline_likelihood(IndependentUnits(data.train), data)
    table.add_row(
        "independent pixels",
        f"{yardstick['log_likelihood']:.2f}",
        f"{yardstick['log_likelihood_se']:.2f}",
        "exact",
        str(len(data.test)),
    )
    console.print(table)
    first = Run(directory / next(iter(MACHINES)))
    console.print(f"Samples: {first.samples}", highlight=False)
    console.print(f"TensorBoard: tensorboard --logdir {directory}", highlight=False)


def _replace(run: Run, name: str) -> Run:
    """A new run in the place of an earlier one."""
    if run.exists():
        shutil.rmtree(run.path)
    elif run.path.exists() and any(run.path.iterdir()):
        raise UserError(
            f"{run.path} exists and is not a run. Choose another directory with --run-dir."
        )
    return Run.create(run.path, recipe.load(name)[1])
