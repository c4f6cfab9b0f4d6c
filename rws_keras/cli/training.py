"""The commands of `python -m training`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from rws_keras import datasets
from rws_keras.cli.start import application
from rws_keras.errors import UserError
from rws_keras.training import demo as demonstration
from rws_keras.training import fitting, recipe, reporting, workers
from rws_keras.training.run import Run

app = application("Trains Helmholtz machines by recipes, evaluates them and draws from them.")
console = Console()

RunDirectory = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the draw.")]


@app.command()
def fit(
    name: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe's name, or a TOML or JSON file.")
    ],
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs instead of the recipe's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed instead of the recipe's.")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Run directory; runs/RECIPE-SEED by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier run.")] = False,
    addresses: Annotated[
        str | None,
        typer.Option("--workers", help="All workers of the run, HOST:PORT,HOST:PORT,…"),
    ] = None,
    worker: Annotated[
        int | None, typer.Option("--worker", help="Which of them this is, from 0.")
    ] = None,
) -> None:
    """Trains by a recipe, and evaluates the machine that was best on the validation data."""
    workers.configure(addresses, worker)
    strategy = workers.strategy()
    name, chosen = recipe.load(name)
    chosen = chosen.changed(epochs=epochs, seed=seed)
    path = run_dir or Path("runs") / f"{name}-{chosen.seed}"
    with workers.own_directory(path, resume) as own:
        if resume:
            run = Run.open(own)
            if run.recipe != chosen:
                raise UserError(
                    f"{path} was started with another recipe, number of epochs or seed; to "
                    "resume it give the same again."
                )
        else:
            run = Run.create(own, chosen)
        try:
            fitting.train(run, name, console, strategy)
            if workers.index() > 0:
                return
            fitting.finish(run, name, console)
        except KeyboardInterrupt:
            console.print(f"Stopped. Go on with the same command and --resume; the run is {path}.")
            raise typer.Exit(130) from None
        _show_evaluations(run)


@app.command()
def evaluate(
    run: RunDirectory,
    num_particles: Annotated[int, typer.Option(min=1, help="K, particles a datum.")] = 1000,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
) -> None:
    """Estimates the likelihood of a split under a run's best machine."""
    if split not in ("train", "validation", "test"):
        raise UserError(f"Unknown split {split!r}; expected train, validation or test.")
    opened = Run.open(run)
    data = datasets.load(opened.recipe.dataset)
    fitting.evaluate(opened, opened.best_machine(), data, split, num_particles)
    _show_evaluations(opened)


@app.command()
def sample(
    run: RunDirectory,
    num_samples: Annotated[int, typer.Option(min=1, help="How many samples.")] = 100,
    seed: Seed = 0,
    to: Annotated[Path | None, typer.Option(help="File; RUN/samples.png by default.")] = None,
) -> None:
    """Draws from a run's best machine: a PNG where the data are images, else a CSV."""
    opened = Run.open(run)
    data = datasets.load(opened.recipe.dataset)
    path = fitting.draw_samples(
        opened.best_machine(), data, to or opened.samples, num_samples, seed
    )
    console.print(f"Wrote {num_samples} samples to {path}.")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished runs.")],
    to: Annotated[Path, typer.Option(help="Directory of the results.")] = reporting.RESULTS,
) -> None:
    """Writes what finished runs measured, and their samples, as small files to keep."""
    for run in runs:
        path = reporting.report(Run.open(run), to)
        console.print(f"Wrote {path}.", highlight=False)


@app.command("list")
def list_() -> None:
    """Lists the recipes, and the runs under runs/."""
    table = Table(Column("recipe", no_wrap=True), "data", "latents", "description")
    for name in recipe.names():
        _, entry = recipe.load(name)
        table.add_row(
            name, entry.dataset, "-".join(map(str, entry.model.latents)), entry.description
        )
    console.print(table)
    runs = [Run(path.parent) for path in sorted(Path("runs").rglob("recipe.json"))]
    if runs:
        table = Table(Column("run", no_wrap=True), "epochs", "best", "validation (nats)")
        for run in runs:
            metrics = run.metrics
            best = metrics.get("best_epoch", 0)
            value = metrics["history"][best - 1]["val_log_likelihood"] if best else None
            table.add_row(
                str(run.path),
                f"{metrics.get('epoch', 0)}/{run.recipe.epochs}",
                str(best),
                "" if value is None else f"{value:.2f}",
            )
        console.print(table)


@app.command()
def demo(
    run_dir: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/demo"),
) -> None:
    """Trains on the digits that need no network, beside three yardsticks."""
    demonstration.run(run_dir, console)


def _show_evaluations(run: Run) -> None:
    table = Table("split", "log-likelihood (nats)", "standard error", "K", "data", "ELBO")
    for entry in run.metrics["evaluations"]:
        table.add_row(
            entry["split"],
            f"{entry['log_likelihood']:.2f}",
            f"{entry['log_likelihood_se']:.2f}",
            f"{entry['num_particles']:,}",
            f"{entry['num_data']:,}",
            f"{entry['elbo']:.2f}",
        )
    console.print(table)
    console.print(f"Run: {run.path}   TensorBoard: tensorboard --logdir {run.logs}")
