"""Evaluations that can be interrupted, and continued to the same result."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console

from rws_keras import HelmholtzMachine
from rws_keras.files import read_json, write_json
from rws_keras.training.interruption import Interruption
from rws_keras.training.progress import evaluation_bar

# Rows (particles times data) between two reports, a fraction of a second's work: so long an
# interruption waits.
_ROWS = 50_000

# Seconds between two writes of what has been done.
_INTERVAL = 1.0


def evaluate(
    machine: HelmholtzMachine,
    x: np.ndarray,
    num_particles: int,
    batch_size: int,
    seed: int,
    partial: Path | None = None,
    report: Callable[[float], None] = lambda done: None,
    sample_weight: np.ndarray | None = None,
) -> dict[str, float]:
    """The result of `machine.evaluate` for the same arguments, computed in steps that are saved.

    After each batch the sums over the data so far are kept, and written to a file from time to
    time. If the file exists and belongs to the same evaluation (machine, data, K, batch size and
    seed), the evaluation continues from there.

    Args:
        machine: The machine.
        x: Binary data `[N, visible]`.
        num_particles: K.
        batch_size: Data in a batch.
        seed: Integer, seeds the particles.
        partial: The file, which the caller removes once the result is safe. By default none is
            written.
        report: Is called with the number of batches that are done.
        sample_weight: Weights of the rows `[N]`, such as the counts of `datasets.count_rows`.
    """
    key = {
        "machine": digest(machine.get_weights()),
        "data": digest([x] if sample_weight is None else [x, sample_weight]),
        "num_particles": num_particles,
        "batch_size": batch_size,
        "seed": seed,
    }
    metrics = machine.statistics.fresh()
    done, sums = _read(partial, key) if partial else (0, [])
    if done:
        for variable, value in zip(metrics.variables, sums, strict=True):
            variable.assign(value)
    report(done)
    # One object, so that an interruption never sees the sums of one batch with another's number.
    state = done, sums
    written = time.monotonic()
    try:
        for batch in range(done, math.ceil(len(x) / batch_size)):
            part = slice(batch * batch_size, (batch + 1) * batch_size)
            rows = tf.constant(x[part], tf.float32)
            parts = machine.estimate_in_parts(
                rows, num_particles, tf.constant([seed, batch]), max(_ROWS // len(rows), 1)
            )
            for drawn, so_far in parts:
                if drawn < num_particles:
                    report(batch + drawn / num_particles)
                statistics = so_far
            weight = None if sample_weight is None else tf.constant(sample_weight[part], tf.float32)
            metrics.update_state(statistics, num_particles, weight)
            state = batch + 1, [variable.numpy().tolist() for variable in metrics.variables]
            report(batch + 1)
            if partial and time.monotonic() - written > _INTERVAL:
                _write(partial, key, state)
                written = time.monotonic()
    except KeyboardInterrupt:
        if partial:
            _write(partial, key, state)
        raise
    return {name: float(value) for name, value in sorted(metrics.result().items())}


@contextlib.contextmanager
def progress(
    console: Console, title: str, num_data: int, batch_size: int
) -> Iterator[Callable[[float], None]]:
    """A bar for `evaluate`; Ctrl-C stops it after the current particles.

    Args:
        console: Rich console.
        title: What is evaluated.
        num_data: Rows.
        batch_size: Rows in a batch.

    Yields:
        The `report` of `evaluate`.
    """
    with (
        Interruption(console, "the current particles"),
        evaluation_bar(console, title, math.ceil(num_data / batch_size)) as report,
    ):
        yield report


def _read(partial: Path, key: dict) -> tuple[int, list]:
    if partial.exists():
        content = read_json(partial)
        if content.get("key") == key:
            return content["batches"], content["sums"]
    return 0, []


def _write(partial: Path, key: dict, state: tuple[int, list]) -> None:
    batches, sums = state
    write_json(partial, {"key": key, "batches": batches, "sums": sums})


def digest(arrays: list[np.ndarray]) -> str:
    """SHA-256 of arrays, to tell whether they are the same."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
