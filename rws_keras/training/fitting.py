"""Running a recipe: train, select, evaluate, sample."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from rws_keras import HelmholtzMachine, datasets
from rws_keras.callbacks import (
    DivergenceError,
    ParticleSchedule,
    StopOnDivergence,
    TensorBoard,
    log_results,
    tile_images,
    write_png,
)
from rws_keras.datasets import BinaryData, Schema
from rws_keras.errors import UserError
from rws_keras.files import expanded, replace_file
from rws_keras.training import evaluation, evaluation_data
from rws_keras.training.checkpoint import Checkpoint, latest
from rws_keras.training.interruption import Interruption
from rws_keras.training.progress import ProgressBar
from rws_keras.training.recipe import Recipe
from rws_keras.training.run import FINAL_SPLITS, Run
from rws_keras.training.workers import share


def fit(run: Run, name: str, console: Console) -> HelmholtzMachine:
    """Trains a run to its end from its current state, and evaluates its best machine.

    Args:
        run: The run.
        name: What to call it on the screen.
        console: Rich console.

    Returns:
        The best machine.
    """
    train(run, name, console)
    return finish(run, name, console)


def train(
    run: Run,
    name: str,
    console: Console,
    strategy: tf.distribute.Strategy | None = None,
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
) -> None:
    """Trains a run to its end from its current state.

    Args:
        run: The run.
        name: What to call it on the screen.
        console: Rich console.
        strategy: The machines or devices that share the work; TensorFlow's default if `None`.
        callbacks: Callbacks to use instead of TensorBoard's.

    Raises:
        DivergenceError: If a metric is no longer finite. The run keeps its checkpoints and is
            marked as diverged. (It is a `ValueError`.)
        ValueError: If it diverged before: it would diverge again.
    """
    if diverged := run.metrics.get("diverged"):
        raise UserError(
            f"{run.path} diverged before, and would diverge again. {diverged['message']}"
        )
    recipe = run.recipe
    data = recipe.load_data()
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        machine, state = latest(run)
        if machine is None or state is None:
            machine = recipe.make_machine(data)
        else:
            # A crash may have come between the checkpoint and the metrics.
            run.update_metrics(**state)
    checkpoint = Checkpoint(run, recipe.patience, state)
    first_epoch = checkpoint.state["epoch"]
    stopped = recipe.patience and first_epoch - checkpoint.state["best_epoch"] >= recipe.patience
    if stopped or first_epoch >= recipe.epochs:
        return

    minibatches = datasets.minibatches(data.train, recipe.batch_size, recipe.seed, first_epoch)
    if strategy.num_replicas_in_sync > 1:
        minibatches = strategy.distribute_datasets_from_function(
            functools.partial(share, minibatches)
        )
    validation, counts = datasets.count_rows(data.validation[: recipe.evaluation.validation_rows])
    progress = ProgressBar(console, name, recipe.epochs, first_epoch)
    if callbacks is None:
        is_table = data.image_shape is None
        callbacks = [
            TensorBoard(
                run.logs,
                data.validation[:100],
                data.image_shape,
                hyperparameters=_flatten(recipe),
                run_name=_name_in_logs(run),
                seed=recipe.seed,
                reference=data.train if is_table else None,
                column_names=data.schema.units if is_table and data.schema else None,
            )
        ]
    if recipe.particle_schedule:
        callbacks = [ParticleSchedule(recipe.particle_schedule), *callbacks]
    try:
        with Interruption(console) as interruption, _writing_logs(run):
            machine.fit(
                minibatches,
                epochs=recipe.epochs,
                initial_epoch=first_epoch,
                steps_per_epoch=recipe.steps_per_epoch(len(data.train)),
                validation_data=validation if counts is None else (validation, None, counts),
                validation_batch_size=recipe.evaluation.batch_size,
                # The checkpoint comes last: the others have seen every epoch that it has saved.
                shuffle=False,
                callbacks=[interruption, StopOnDivergence(), progress, *callbacks, checkpoint],
                verbose=0,
            )
    except DivergenceError as error:
        error.args = (_mark_as_diverged(run, error),)
        raise
    finally:
        progress.close()


@contextlib.contextmanager
def _writing_logs(run: Run) -> Iterator[None]:
    """Says what to do about logs that cannot be written."""
    try:
        yield
    except tf.errors.OpError as error:
        if str(run.logs) not in error.message:
            raise
        # TensorFlow writes the logs, and has errors of its own for a full disk.
        reason = error.message.splitlines()[0].rpartition("; ")[2]
        raise UserError(
            f"{run.logs} cannot be written: {reason}. Free some space on this disk, or check the "
            "permissions; then continue with --resume."
        ) from error


def _name_in_logs(run: Run) -> str:
    """The name of a run in the HParams tab, which also tells runs of equal names apart."""
    started = run.about["started"].partition("+")[0].replace("T", " ")
    return f"{run.path.absolute().name} ({started})"


def _mark_as_diverged(run: Run, error: DivergenceError) -> str:
    """Writes down where the run diverged; returns the message."""
    kept = run.metrics.get("epoch", 0)
    message = (
        f"{error} In the recipe these are `learning_rate` and `options` of [optimizer], and the "
        "arguments of [objective]; train the changed recipe in another run directory. "
    ) + (
        f"The checkpoint of epoch {kept} and the best machine before are kept."
        if kept
        else "No epoch had finished, so there is no machine."
    )
    where = {"metric": error.metric, "epoch": error.epoch, "step": error.step}
    run.update_metrics(diverged={**where, "message": message})
    return message


def finish(run: Run, name: str, console: Console) -> HelmholtzMachine:
    """Evaluates the best machine of a trained run, calibrates it, draws from it and returns it.

    Args:
        run: The run.
        name: What to call it on the screen.
        console: Rich console.
    """
    recipe = run.recipe
    data = recipe.load_data()
    machine = run.best_machine()
    missing = [split for split in FINAL_SPLITS if not run.evaluated(split)]
    if missing:
        num_particles = recipe.evaluation.num_particles
        console.print(f"{name}: estimating likelihoods with K = {num_particles:,}", highlight=False)
        for split in missing:
            evaluate(run, machine, data, split, num_particles, console)
    if run.logs.exists():
        final = {
            entry["split"]: entry
            for entry in run.complete_evaluations
            if entry["num_particles"] == recipe.evaluation.num_particles
        }
        with _writing_logs(run):
            log_results(run.logs, final, step=run.metrics["best_epoch"])
    draw_samples(machine, run.samples, 100, recipe.seed, data.image_shape)
    if machine.calibration is None:
        machine.calibrate(data.validation, batch_size=recipe.evaluation.batch_size)
        with replace_file(run.best) as temporary:
            machine.save(temporary)
    return machine


def evaluate(
    run: Run,
    machine: HelmholtzMachine,
    data: BinaryData,
    split: str,
    num_particles: int,
    console: Console | None = None,
    first_rows: int | None = None,
) -> dict:
    """Estimates the likelihood of a split and adds the result to the run's metrics.

    An interrupted evaluation continues where it was, to the same result.

    Args:
        run: The run.
        machine: Its best machine.
        data: Its data.
        split: `"train"`, `"validation"` or `"test"`.
        num_particles: K.
        console: Rich console for the progress bar; standard output by default.
        first_rows: How many rows of the split to use, from its beginning; all by default.

    Returns:
        The result: `log_likelihood` and others in nats per datum, with K, the number of
        data and the standard error over the data.
    """
    console = console or Console()
    recipe = run.recipe
    x, counts = datasets.count_rows(evaluation_data.first_rows(getattr(data, split), first_rows))
    batch_size = recipe.evaluation.batch_size
    part = split if first_rows is None else f"{split}-{first_rows}"
    partial = run.path / f"evaluating-{part}-{num_particles}.json"
    with evaluation.progress(console, f"{split} data", len(x), batch_size) as report:
        result = evaluation.evaluate(
            machine, x, num_particles, batch_size, recipe.seed, partial, report, counts
        )
    entry: dict = {"split": split, "best_epoch": run.metrics["best_epoch"], **result}
    entry |= {key: int(result[key]) for key in ("num_particles", "num_data")}
    if first_rows is not None:
        entry["first_rows"] = first_rows
    others = [other for other in run.evaluations if _measures(other) != _measures(entry)]
    run.update_metrics(evaluations=[*others, entry])
    partial.unlink(missing_ok=True)
    return entry


def _measures(entry: dict) -> tuple:
    """What tells evaluations of a machine apart."""
    return entry["split"], entry["num_particles"], entry.get("first_rows")


def draw_samples(
    machine: HelmholtzMachine,
    path: Path,
    num_samples: int,
    seed: int,
    image_shape: tuple[int, int] | None = None,
) -> Path:
    """Writes samples from P: the visible means as a PNG, or the samples as CSV.

    The CSV of a machine that keeps a schema has the columns and values of the table.

    Args:
        machine: The machine.
        path: The file, which ends in `.png` or `.csv`.
        num_samples: How many.
        seed: Integer.
        image_shape: `(height, width)` if the rows are images.

    Returns:
        The file's path; its ending is `.csv` where rows are not images.

    Raises:
        ValueError: If the path has another ending, or cannot be written.
    """
    path = expanded(path)
    if path.suffix not in (".png", ".csv"):
        raise UserError(f"Samples are written to a .png or a .csv file, not to {path}.")
    samples = machine.sample(num_samples, seed=seed)
    if image_shape and path.suffix == ".png":
        enlarge = math.ceil(100 / max(image_shape) / 2)
        return write_png(path, tile_images(samples.mean, image_shape), enlarge)
    path = path.with_suffix(".csv")
    x = keras.ops.convert_to_numpy(samples.x)
    schema = Schema.of(machine)
    with replace_file(path) as temporary:
        if schema:
            schema.decode(x).to_csv(temporary, index=False)
        else:
            np.savetxt(temporary, x, fmt="%d", delimiter=",")
    return path


def _flatten(recipe: Recipe) -> dict:
    """The recipe as the flat names and simple values that TensorBoard's HParams takes."""
    flat = {}

    def visit(value, name):
        if isinstance(value, dict):
            for key, part in value.items():
                visit(part, f"{name}.{key}" if name else key)
        elif value is not None:
            flat[name] = value if isinstance(value, bool | int | float) else str(value)

    visit(recipe.model_dump(exclude={"description"}), "")
    return flat
