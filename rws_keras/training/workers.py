"""One run on several machines: who the workers are, and which rows each of them trains on.

Every worker does the same: it trains the same machine on its rows of each minibatch, TensorFlow
adds up the gradients, and all machines stay equal. The first, the chief, keeps the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from rws_keras.errors import UserError


def configure(workers: str | None, worker: int | None) -> None:
    """Tells TensorFlow about the workers, with the variable `TF_CONFIG` that cluster managers set.

    Args:
        workers: Addresses `HOST:PORT` of all workers, separated by commas, or `None` to keep
            `TF_CONFIG` as it is.
        worker: Index of this worker, from 0.

    Raises:
        ValueError: If an address has no port, or the index is out of range.
    """
    if workers is None:
        if worker is not None:
            raise UserError("--worker needs --workers, the addresses of all workers.")
        return
    addresses = workers.split(",")
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise UserError(f"--workers: expected HOST:PORT,HOST:PORT,…, got {address!r}.")
    if worker is None or not 0 <= worker < len(addresses):
        raise UserError(
            f"--worker must say which of the {len(addresses)} workers this is, 0 to "
            f"{len(addresses) - 1}; got {worker}."
        )
    task = {"type": "worker", "index": worker}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})


def index() -> int:
    """Index of this worker; 0 is the chief, or the only one."""
    task = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {})
    return int(task.get("index", 0))


def strategy() -> tf.distribute.Strategy:
    """The strategy of a run: over the workers of `TF_CONFIG`, else TensorFlow's default.

    It must be called before TensorFlow does anything else.
    """
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


@contextlib.contextmanager
def own_directory(path: Path, resume: bool) -> Iterator[Path]:
    """Where this worker writes: the run's directory for the chief, a temporary one for others.

    Args:
        path: The run's directory.
        resume: Whether the run goes on; the others then start from a copy of the chief's
            checkpoints, for which they need to see its directory.
    """
    if index() == 0:
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        own = Path(scratch) / path.name
        if resume and path.exists():
            shutil.copytree(path, own)
        yield own


def share(dataset: tf.data.Dataset, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """The rows of each minibatch that fall to the replicas of one input pipeline.

    Together the replicas see the minibatches that a single machine would see.

    Args:
        dataset: Minibatches, the same on every worker.
        context: What the strategy says about the pipeline.

    Returns:
        A dataset with a part of each minibatch for each of the pipeline's replicas, in turn.
    """
    replicas = context.num_replicas_in_sync
    local = replicas // context.num_input_pipelines
    first = context.input_pipeline_id * local

    def parts(batch):
        def part(replica):
            rows = tf.shape(batch, tf.int64)[0]
            return batch[rows * replica // replicas : rows * (replica + 1) // replicas]

        return tf.data.Dataset.range(first, first + local).map(part)

    return dataset.flat_map(parts)
