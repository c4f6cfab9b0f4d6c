"""The commands that train machines, and those about runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rws_keras.cli.errors import continued_by, writing_to
from rws_keras.cli.evaluation import show_evaluations
from rws_keras.cli.options import Threshold
from rws_keras.cli.output import console, error_console, say, show
from rws_keras.cli.start import start_tensorflow
from rws_keras.errors import UserError
from rws_keras.files import expanded

if TYPE_CHECKING:
    from rws_keras.datasets import BinaryData
    from rws_keras.training.run import Run

app = typer.Typer()
_RESULTS = Path("training") / "results"
_COMPARED = _RESULTS / "comparisons"


@app.command()
def fit(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|DATA",
            help="A recipe's name, or a TOML or JSON file; or data: a .csv, .tsv, .parquet, .npy "
            "or .npz file, or a FOLDER/ of PNG images.",
        ),
    ],
    leave_out: Annotated[
        list[str] | None, typer.Option(help="A column to leave out; may be repeated.")
    ] = None,
    choice: Annotated[
        list[str] | None,
        typer.Option(help="A numeric column whose values are categories; may be repeated."),
    ] = None,
    threshold: Threshold = None,
    validation_data: Annotated[
        Path | None,
        typer.Option(
            parser=expanded, metavar="FILE", help="Validation data. [default: a tenth of DATA]"
        ),
    ] = None,
    test_data: Annotated[
        Path | None,
        typer.Option(parser=expanded, metavar="FILE", help="Test data. [default: a tenth of DATA]"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Number of epochs; overrides the recipe's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed; overrides the recipe's.")] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(parser=expanded, help="Run directory. [default: runs/RECIPE-SEED]"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an earlier run.")] = False,
    addresses: Annotated[
        str | None,
        typer.Option(
            "--workers", metavar="HOST:PORT,…", help="Addresses of all workers of the run."
        ),
    ] = None,
    worker: Annotated[
        int | None, typer.Option("--worker", help="Index of this worker, from 0.")
    ] = None,
) -> None:
    """Trains a machine from a recipe, or on your own data.

    Keeps the machine that was best on the validation data and estimates its likelihood.
    """
    start_tensorflow()
    from rws_keras import datasets
    from rws_keras.training import fitting, recipe, workers
    from rws_keras.training.run import Run

    workers.configure(addresses, worker)
    strategy = workers.strategy()
    options = {
        "leave_out": leave_out,
        "choices": choice,
        "threshold": threshold,
        "validation_data": validation_data and str(validation_data),
        "test_data": test_data and str(test_data),
    }
    options = {key: value for key, value in options.items() if value is not None}
    if datasets.is_path(name) and not name.endswith((".toml", ".json")):
        name, run_recipe = recipe.for_data(name, **options)
    elif options:
        raise UserError(
            "--leave-out, --choice, --threshold, --validation-data and --test-data apply only to a "
            "data file; with a recipe, set them in its [data] section."
        )
    else:
        name, run_recipe = recipe.load(name)
    run_recipe = run_recipe.changed(epochs=epochs, seed=seed)
    path = run_dir or Path("runs") / f"{name}-{run_recipe.seed}"
    with writing_to(path), workers.own_directory(path, resume) as own:
        if resume:
            run = Run.open(own)
            if run.recipe != run_recipe:
                raise UserError(
                    f"{path} was started with another recipe, number of epochs or seed; to resume "
                    "it, use the same ones."
                )
        else:
            run = Run.create(own, run_recipe)
        screen = console()
        if datasets.is_path(run_recipe.dataset):
            _show_missing(run_recipe.load_data())
        with continued_by(f"the same command and --resume; the run is {path}"):
            fitting.train(run, name, screen, strategy)
            if workers.index() > 0:
                return
            fitting.finish(run, name, screen)
        show_evaluations(run)
        if datasets.is_path(run_recipe.dataset):
            _show_baselines(run)


def _show_missing(data: BinaryData) -> None:
    """Reports how many values are missing, if any."""
    import numpy as np

    cells = np.concatenate([np.isnan(part) for part in data.parts])
    if data.schema:  # of a choice all units are missing, or none
        first = np.cumsum([0, *data.schema.groups[:-1]])
        cells = cells[:, first]
    if cells.any():
        say(
            f"{cells.sum():,} of {cells.size:,} values ({cells.mean():.1%}) are missing, in "
            f"{cells.any(axis=1).sum():,} of {len(cells):,} rows. Likelihoods are those of the "
            "observed values."
        )


@app.command()
def runs(
    directory: Annotated[
        Path, typer.Argument(parser=expanded, metavar="DIRECTORY", help="Where the runs are.")
    ] = Path("runs"),
) -> None:
    """Lists the runs."""
    start_tensorflow()
    from rws_keras.training.run import find

    found = find(directory)
    for path, reason in found.skipped.items():
        say(f"Skipped {path}. {reason}", error_console())
    if not found.runs:
        say(f"There are no runs in {directory}. `rws-keras fit RECIPE` makes one.")
        return
    columns = ["run", "status", "epochs", "best epoch", "validation (nats)"]
    show(columns, [_describe(run) for run in found.runs])


def _describe(run: Run) -> list[str]:
    metrics, best = run.metrics, run.best_validation
    return [
        str(run.path),
        run.status,
        f"{metrics.get('epoch', 0)}/{run.recipe.epochs}",
        str(metrics.get("best_epoch") or ""),
        "" if best is None else f"{best:.2f}",
    ]


@app.command()
def recipes() -> None:
    """Lists the recipes that come with rws_keras."""
    start_tensorflow()
    from rws_keras.training import recipe

    rows = []
    for name in recipe.names():
        _, entry = recipe.load(name)
        latents = "-".join(map(str, entry.model.latents))
        rows.append([name, entry.dataset, latents, entry.description])
    show(["recipe", "data", "latents", "description"], rows, folded="description")


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(parser=expanded, metavar="RUN", help="Finished runs.")
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            parser=expanded,
            help=f"Directory of the results. [default: {_RESULTS}, where there is one]",
        ),
    ] = None,
) -> None:
    """Writes the results of finished runs as small files.

    Writes the measurements as JSON, and the samples.
    """
    if to is None and not _RESULTS.is_dir():
        raise UserError(f"There is no directory {_RESULTS} here: choose one with --to.")
    start_tensorflow()
    from rws_keras.training import reporting
    from rws_keras.training.run import Run

    to = to or _RESULTS
    with writing_to(to):
        for run in runs:
            say(f"Wrote {reporting.report(Run.open(run), to)}.")


@app.command()
def compare(
    name: Annotated[
        str,
        typer.Argument(
            metavar="COMPARISON", help="A comparison's name, or a TOML file. [default: digits]"
        ),
    ] = "digits",
    to: Annotated[
        Path | None,
        typer.Option(
            parser=expanded,
            help=f"Directory of the results. [default: {_COMPARED}, where there is one, else "
            "comparisons]",
        ),
    ] = None,
    run_dir: Annotated[
        Path, typer.Option(parser=expanded, help="Directory for unfinished runs.")
    ] = Path("runs/comparisons"),
    plots: Annotated[
        Path | None,
        typer.Option(parser=expanded, help="Directory of plots, SVG and PNG. [default: none]"),
    ] = None,
) -> None:
    """Compares methods under one protocol.

    Measures step times, chooses each method's learning rate on the validation data, trains and
    evaluates. Existing results are reused.
    """
    start_tensorflow()
    from rws_keras.training import comparing, comparison, comparison_plots, comparison_summary

    if plots is not None:  # rather now than after hours
        comparison_plots.load_matplotlib()
    name, plan = comparison.load(name)
    to = to or (_COMPARED if _COMPARED.is_dir() else Path("comparisons"))
    with writing_to(to), writing_to(run_dir), continued_by("the same command"):
        results = comparing.Results(to)
        comparing.Runner(plan, name, results, run_dir, console()).run()
    columns = ["method", plan.axis_title, "rate", "seeds", "test NLL", "negative ELBO", "ESS"]
    columns += ["active units"]
    columns += ["step", "NLL at equal time (epochs)"] if plan.reference else []
    show(columns, comparison_summary.cells(plan, name, results))
    if plots is not None:
        with writing_to(plots):
            for path in comparison_plots.plot(plan, name, results, plots):
                say(f"Wrote {path}.svg and .png.")


@app.command()
def demo(
    run_dir: Annotated[Path, typer.Option(parser=expanded, help="Where the runs go.")] = Path(
        "runs/demo"
    ),
) -> None:
    """Trains on digits; needs no network.

    Prints the test likelihood next to three baselines.
    """
    start_tensorflow()
    from rws_keras.training import demo as demonstration

    with writing_to(run_dir), continued_by("`rws-keras demo`, which starts again"):
        demonstration.run(run_dir, console())


def _show_baselines(run: Run) -> None:
    """Prints the test likelihoods of classical models, and suggests the next commands."""
    from rws_keras.baselines import ChowLiuTree, IndependentUnits
    from rws_keras.training import reporting

    data = run.recipe.load_data()
    rows = []
    for title, kind in (("independent units", IndependentUnits), ("Chow-Liu tree", ChowLiuTree)):
        likelihood = reporting.baseline_likelihood(kind(data.train), data)
        error = f"{likelihood['log_likelihood_se']:.2f}"
        rows.append([title, f"{likelihood['log_likelihood']:.2f}", error])
    show(["for comparison: test data", "log-likelihood (nats)", "standard error"], rows)
    say(f"Next: rws-keras sample {run.path}, or rws-keras export {run.path}")
