"""The commands that evaluate machines and draw samples from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rws_keras.cli.errors import continued_by, writing_to
from rws_keras.cli.options import NUM_PARTICLES, Model, Seed
from rws_keras.cli.output import console, say, show
from rws_keras.cli.start import start_tensorflow
from rws_keras.errors import UserError
from rws_keras.files import expanded

if TYPE_CHECKING:
    from rws_keras import HelmholtzMachine
    from rws_keras.training.evaluation_data import EvaluationData
    from rws_keras.training.run import Run

app = typer.Typer()
# Default with --accuracy.
_MOST_PARTICLES = 100_000
_BATCH_SIZE = 100
_SEED = 0


@app.command()
def evaluate(
    model: Model,
    num_particles: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Number of particles per row, K; with --accuracy the maximum. [default: "
            f"{NUM_PARTICLES}, with --accuracy {_MOST_PARTICLES:,}]",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A data set, or a file, of which all rows are used. [default: the data set of the "
            "run or the preset]",
        ),
    ] = None,
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        typer.Option(help="Part of the data set. [default: test]"),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Use this many rows, from the beginning, for instance to see on a few whether "
            "more particles would change the result. [default: all]",
        ),
    ] = None,
    accuracy: Annotated[
        float | None,
        typer.Option(
            help="Draw particles until the standard error of each row is at most this many nats. "
            "This biases the result: rows that look certain too early stop too early, so the "
            "log-likelihood is too low on average."
        ),
    ] = None,
) -> None:
    """Estimates the likelihood of data under a run, a preset or a .keras file.

    For a run's own data, evaluates its best machine and stores the result in the run.
    """
    start_tensorflow()
    from rws_keras.training import evaluation_data, fitting, sources

    source = sources.find(model)
    machine = source.machine()
    if source.run is not None and data is None and accuracy is None:
        with writing_to(source.path), continued_by("the same command"):
            own = source.run.recipe.load_data()
            particles = num_particles or NUM_PARTICLES
            fitting.evaluate(source.run, machine, own, split or "test", particles, console(), rows)
        show_evaluations(source.run)
        return
    evaluation_rows = evaluation_data.choose(source, machine, data, split, rows)
    if evaluation_rows.unused:
        say(f"The machine does not use the columns {', '.join(evaluation_rows.unused)}.")
    if accuracy is None:
        _evaluate(machine, evaluation_rows, num_particles or NUM_PARTICLES)
    else:
        _evaluate_to_accuracy(machine, evaluation_rows, accuracy, num_particles or _MOST_PARTICLES)


def _evaluate(machine: HelmholtzMachine, data: EvaluationData, num_particles: int) -> None:
    from rws_keras.training.evaluation import evaluate

    with _bar(data) as report:
        result = evaluate(
            machine,
            data.x,
            num_particles,
            _BATCH_SIZE,
            _SEED,
            report=report,
            sample_weight=data.counts,
        )
    _show_likelihoods([{"split": data.title, **result}])


def _bar(data: EvaluationData) -> AbstractContextManager[Callable[[float], None]]:
    from rws_keras.training.progress import evaluation_bar

    return evaluation_bar(console(), data.title, math.ceil(len(data.x) / _BATCH_SIZE))


def _evaluate_to_accuracy(
    machine: HelmholtzMachine, data: EvaluationData, accuracy: float, most: int
) -> None:
    from rws_keras.training.accuracy import evaluate_to_accuracy

    with _bar(data) as report:
        result = evaluate_to_accuracy(
            machine, data.x, accuracy, most, _BATCH_SIZE, _SEED, data.counts, report
        )
    row = [
        data.title,
        f"{result.log_likelihood:.2f}",
        f"{result.log_likelihood_se:.2f}",
        f"{result.median_particles:,.0f}",
        f"{result.most_particles:,}",
        f"{result.num_data:,}",
    ]
    columns = ["data", "log-likelihood (nats)", "standard error", "K (median)", "K (max)", "rows"]
    show(columns, [row])
    if result.num_short:
        say(
            f"{result.num_short:,} of {result.num_data:,} rows did not reach a standard error of "
            f"{accuracy:g} nats with {most:,} particles; allow more with --num-particles."
        )
    else:
        say(f"All rows reached a standard error of {accuracy:g} nats.")


@app.command()
def sample(
    model: Model,
    num_samples: Annotated[int, typer.Option(min=1, help="Number of samples.")] = 100,
    seed: Seed = 0,
    to: Annotated[
        Path | None,
        typer.Option(
            parser=expanded,
            help="A .png or .csv file. [default: RUN/samples or NAME.samples, .png or .csv]",
        ),
    ] = None,
) -> None:
    """Draws samples from a run, a preset or a .keras file.

    Writes a PNG if the data are known to be images, else a CSV.
    """
    start_tensorflow()
    from rws_keras.training import fitting, sources

    source = sources.find(model)
    machine, image_shape = source.machine(), source.image_shape
    if to is not None and to.suffix == ".png" and image_shape is None:
        raise UserError(
            f"The rows of {source.path} are not known to be images: give a .csv file with --to."
        )
    path = to or (source.run.samples if source.run else Path(f"{source.name}.samples.png"))
    with writing_to(path):
        path = fitting.draw_samples(machine, path, num_samples, seed, image_shape)
    say(f"Wrote {num_samples} samples to {path}.")


def show_evaluations(run: Run) -> None:
    """Prints the likelihoods of a run, and where it is."""
    _show_likelihoods(run.evaluations)
    say(f"Run: {run.path}")
    say(f"TensorBoard: tensorboard --logdir {run.logs}")


def _show_likelihoods(evaluations: list[dict]) -> None:
    rows = [
        [
            entry["split"],
            f"{entry['log_likelihood']:.2f}",
            f"{entry['log_likelihood_se']:.2f}",
            f"{entry['num_particles']:,.0f}",
            f"{entry['num_data']:,.0f}",
            f"{entry['elbo']:.2f}",
        ]
        for entry in evaluations
    ]
    show(["data", "log-likelihood (nats)", "standard error", "K", "rows", "ELBO"], rows)
