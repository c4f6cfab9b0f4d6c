"""What TensorBoard says about a run as a whole: hyperparameters, recipe and result."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from rws_keras.callbacks.monitoring import Table
from rws_keras.errors import UserError

# The part of the logs that is about the run as a whole. What is logged there as a scalar is a
# metric of the HParams tab: it finds the metrics of a run below the directory that has its
# hyperparameters. The description of an experiment, which could name metrics and columns, is
# read from the first run of a log directory alone; without one the columns are those of all runs.
SUMMARY = "summary"

# Of a table's columns, and of their pairs, how many are named.
_MOST_COLUMNS = 20

_NEEDED = ("log_likelihood", "log_likelihood_se", "num_particles", "num_data")


def check_hyperparameters(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters as plain values.

    Args:
        hyperparameters: Names to numbers, strings or bools, also NumPy's.

    Raises:
        UserError: If one is something else.
    """
    plain = {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in hyperparameters.items()
    }
    for key, value in plain.items():
        if not isinstance(value, bool | int | float | str):
            raise UserError(
                f"The hyperparameter {key!r} must be a number, a string or a bool; got {value!r}."
            )
    return plain


def write_hyperparameters(hyperparameters: dict[str, Any], run_name: str | None) -> None:
    """Writes a row of the HParams tab to the current writer.

    Args:
        hyperparameters: Names to plain values.
        run_name: What the row is called. Rows with the same name are averaged; with `None`,
            TensorBoard uses the path of the logs.
    """
    from tensorboard.plugins.hparams import api as hparams

    # An empty name, not none: without one it would be a hash of the values, and two runs with the
    # same values one row.
    hparams.hparams(hyperparameters, trial_id=run_name or "")


def recipe_card(hyperparameters: dict[str, Any], machine: Any) -> str:
    """The hyperparameters and the layers of the machine as Markdown tables.

    Args:
        hyperparameters: Names to plain values.
        machine: A `HelmholtzMachine`.
    """
    recipe = [(name, f"`{value}`") for name, value in hyperparameters.items()]
    sizes = [
        (f"{stack}_{level}", type(layer).__name__, f"{layer.units:,}", f"{layer.count_params():,}")
        for stack, first, layers in (("p", 0, machine.p_layers), ("q", 1, machine.q_layers))
        for level, layer in enumerate(layers, start=first)
    ]
    parts = [_table(("setting", "value"), recipe)] if recipe else []
    return "\n\n".join([*parts, _table(("layer", "kind", "units", "parameters"), sizes)])


def result_card(results: Mapping[str, Mapping[str, float]]) -> str:
    """Results of evaluations as a Markdown table.

    Args:
        results: Results of `machine.evaluate(…, return_dict=True)` by split.
    """
    rows = [
        (
            split,
            f"{result['log_likelihood']:.2f}",
            f"{result['log_likelihood_se']:.2f}",
            f"{int(result['num_particles']):,}",
            f"{int(result['num_data']):,}",
        )
        for split, result in results.items()
    ]
    return _table(("split", "log-likelihood (nats)", "standard error", "K", "data"), rows)


def columns_card(data: Table, samples: Table, names: Sequence[str]) -> str:
    """What differs most between data and samples, by the names of the columns, as Markdown tables.

    Args:
        data: The data's means and correlations.
        samples: The samples'.
        names: Names `[D]` of the columns.
    """
    # A bar or a backtick in a name would end the cell.
    names = [name.replace("|", "\\|").replace("`", "'") for name in names]
    order = np.argsort(-np.abs(data.means - samples.means), kind="stable")[:_MOST_COLUMNS]
    means = [
        (f"`{names[column]}`", f"{data.means[column]:.3f}", f"{samples.means[column]:.3f}")
        for column in order
    ]
    parts = [_table(("column", "mean in the data", "in samples"), means)]
    first, second = np.triu_indices(len(data.columns), k=1)
    of_data, of_samples = data.correlations[first, second], samples.correlations[first, second]
    order = np.argsort(-np.abs(of_data - of_samples), kind="stable")[:_MOST_COLUMNS]
    correlations = [
        (
            f"`{names[data.columns[first[pair]]]}`",
            f"`{names[data.columns[second[pair]]]}`",
            f"{of_data[pair]:.3f}",
            f"{of_samples[pair]:.3f}",
        )
        for pair in order
    ]
    if correlations:
        titles = ("column", "and column", "correlation in the data", "in samples")
        parts.append(_table(titles, correlations))
    return "\n\n".join(parts)


def log_results(
    log_dir: str | os.PathLike, results: Mapping[str, Mapping[str, float]], step: int
) -> None:
    """Adds the result of a finished training to its TensorBoard logs.

    The log-likelihood of each split becomes a metric of the run in the HParams tab, and all of them
    appear on a card in the Text tab.

    Args:
        log_dir: Directory of the logs, as given to `TensorBoard`.
        results: What `machine.evaluate(…, return_dict=True)` returned, by the name of the split:
            `"validation"`, `"test"`.
        step: The epoch, counted from 1, after which the machine was evaluated.

    Raises:
        UserError: If there are no results, or a value is missing from one.

    Example:
    ```python
    result = machine.evaluate(x, num_particles=1000, return_dict=True, verbose=0)
    rws_keras.callbacks.log_results("logs", {"test": result}, step=20)
    ```
    """
    if not results:
        raise UserError("There are no results to log.")
    for split, result in results.items():
        if missing := [name for name in _NEEDED if name not in result]:
            raise UserError(
                f"The result of {split!r} has no {', '.join(missing)}. Give what "
                "machine.evaluate(…, return_dict=True) returns."
            )
    directory = os.path.join(os.path.expanduser(log_dir), SUMMARY)
    with tf.summary.create_file_writer(directory).as_default(step):
        for split, result in results.items():
            tf.summary.scalar(
                f"log_likelihood/{split}",
                result["log_likelihood"],
                description=f"Log-likelihood of the {split} data after the training in nats per "
                f"datum, higher is better, with K = {int(result['num_particles']):,} particles. "
                f"Standard error over the data: {result['log_likelihood_se']:.2f}.",
            )
        tf.summary.text("result", result_card(results), description="The result of the run.")


def _table(titles, rows):
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
