"""Scores of files: by a machine, or by a server."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from rws_keras import HelmholtzMachine
from rws_keras.arrays import BINARY
from rws_keras.datasets import Rows, Schema
from rws_keras.errors import UserError
from rws_keras.models.scorer import Scorer
from rws_keras.serving.client import NOT_MODELLED, Client, RowsError
from rws_keras.serving.score_file import ScoreFile
from rws_keras.training.evaluation import digest

_ESTIMATES = ("log_likelihood", "standard_error", "effective_sample_size")


class Scores(NamedTuple):
    """How rows are scored.

    Attributes:
        columns: What is computed of each row.
        score: Function of rows `[N, units]` to an array `[N]` for each of the columns.
        key: What the scores depend on, as JSON can hold it.
    """

    columns: tuple[str, ...]
    score: Callable[[np.ndarray], dict[str, np.ndarray]]
    key: dict


def by_machine(
    machine: HelmholtzMachine,
    num_particles: int,
    seed: int,
    schema: Schema | None = None,
    explain: int = 0,
) -> Scores:
    """Scores that are computed here.

    A row's score does not depend on the other rows, nor on the batch that it is in.

    Args:
        machine: The machine.
        num_particles: K.
        seed: Integer, seeds the particles.
        schema: Names the columns of rows that come from a table.
        explain: How many columns of each row to name that are oddest given the others.

    Raises:
        UserError: If K is not one that `Scorer` takes.
    """
    if explain and machine.p_layers[0].support is not BINARY:
        raise UserError("Only columns of binary data can be explained; leave --explain out.")
    scorer = Scorer(machine, num_particles=num_particles, seed=seed)
    function = scorer.signatures()["serving_default"]

    def score(x: np.ndarray) -> dict[str, np.ndarray]:
        found = {name: value.numpy() for name, value in function(x=tf.constant(x)).items()}
        found["num_particles"] = np.full(len(x), num_particles)
        if explain:
            log_probs = machine.conditional_log_probs(x, num_particles, seed).numpy()
            found["oddest"] = np.array([_oddest(row, names, explain) for row in log_probs])
        return found

    columns = [*_ESTIMATES]
    if machine.calibration is not None and machine.calibration.num_particles == num_particles:
        columns.append("tail_probability")
    columns += ["num_particles", *(["oddest"] if explain else [])]
    choices = machine.p_layers[0].choices or [1] * machine.visible_units
    if schema and schema.groups == list(choices):
        names = [column.name for column in schema.columns]
    elif schema and len(choices) == len(schema.units):
        names = schema.units
    else:
        names = [f"column {number}" for number in range(1, len(choices) + 1)]
    weights = [np.asarray(variable) for variable in scorer.weights]
    key = {"model": digest(weights), "num_particles": num_particles, "seed": seed}
    key["explain"] = explain
    if machine.calibration is not None:
        key["calibration"] = digest([np.array(json.dumps(machine.calibration.get_config()))])
    return Scores(tuple(columns), score, key)


def _oddest(log_probs: np.ndarray, names: list[str], count: int) -> str:
    """The columns of a row that are least probable given the others, with their probabilities."""
    known = np.flatnonzero(~np.isnan(log_probs))
    order = known[np.argsort(log_probs[known], kind="stable")][:count]
    return "; ".join(f"{names[column]} ({np.exp(log_probs[column]):.2g})" for column in order)


def by_server(client: Client, signature: str) -> Scores:
    """Scores that a server computes; K is that of its signature.

    Raises:
        ClientError: If the server does not answer, or the signature does not score rows.
    """
    outputs = client.output_names(signature)
    if not set(_ESTIMATES) <= set(outputs):
        raise UserError(
            f"The signature {signature} of {client.model} gives {', '.join(outputs)}, not scores; "
            "expected serving_default, score_fast or score_accurate."
        )
    columns = [*_ESTIMATES, *(["tail_probability"] if "tail_probability" in outputs else [])]
    # The same version to the end, so that what is continued later is of one version too.
    client.version = client.served_version()
    key = {
        "url": client.url,
        "model": client.model,
        "version": client.version,
        "signature": signature,
    }
    return Scores(tuple(columns), lambda x: client.predict(signature, x=x), key)


class Summary(NamedTuple):
    """What `score_files` returns.

    Attributes:
        num_rows: How many rows have a score.
        num_before: How many of them had it from an earlier start.
        log_likelihood: Their mean, nats.
    """

    num_rows: int
    num_before: int
    log_likelihood: float


def score_files(
    scores: Scores,
    files: dict[str, Rows],
    to: ScoreFile,
    id_column: str | None = None,
    batch_size: int = 256,
    report: Callable[[float], None] = lambda done: None,
) -> Summary:
    """Scores the rows of files, in their order, into one CSV.

    Its columns are `file` (of several files), `row` (counted from 1 in each file), the column that
    identifies the rows, and the scores. What is scored is kept at once: after an interruption the
    same call goes on behind it, to the same file.

    Args:
        scores: How they are scored.
        files: The rows of each file.
        to: Where the scores are written.
        id_column: Name of the column that identifies the rows, if they have one.
        batch_size: Rows that are scored together.
        report: Is called with the number of batches that are done.

    Raises:
        UserError: If the column has the name of another one, an interrupted start was of something
            else, or the rows cannot be scored.
    """
    names = ["file"] if len(files) > 1 else []
    columns = [*names, "row", *([id_column] if id_column else []), *scores.columns]
    if id_column and columns.count(id_column) > 1:
        raise UserError(
            f"The scores have a column {id_column!r} of their own; give the column that "
            "identifies the rows another name."
        )
    labels = [
        [*([name] if names else []), str(row + 1), *([rows.ids[row]] if rows.ids else [])]
        for name, rows in files.items()
        for row in range(len(rows.x))
    ]
    x = np.concatenate([rows.x for rows in files.values()])
    inputs = [[name, digest([rows.x, np.array(rows.ids or [])])] for name, rows in files.items()]
    done = to.begin({**scores.key, "columns": columns, "files": inputs}, columns, labels)
    before = len(done)
    likelihoods = [float(row[columns.index("log_likelihood")]) for row in done]
    for start in range(before, len(x), batch_size):
        part = slice(start, start + batch_size)
        try:
            found = scores.score(x[part])
        except RowsError as error:
            where = [" row ".join(labels[start + row][: 1 + len(names)]) for row in error.rows[:5]]
            raise UserError(
                f"The model does not take {len(error.rows)} of these rows: "
                f"{'' if names else 'row '}{', '.join(where)}. {NOT_MODELLED}"
            ) from error
        except UserError as error:
            if start == 0:
                raise
            raise UserError(
                f"{error} The scores of {start:,} rows are kept; the same command goes on there."
            ) from error
        cells = zip(*(found[name] for name in scores.columns), strict=True)
        to.append(
            [[*label, *map(str, values)] for label, values in zip(labels[part], cells, strict=True)]
        )
        likelihoods += found["log_likelihood"].tolist()
        report(math.ceil(min(start + batch_size, len(x)) / batch_size))
    to.finish()
    return Summary(len(x), before, float(np.mean(likelihoods)))
