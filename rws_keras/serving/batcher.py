"""Batches of the rows of different requests."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from rws_keras.serving.metrics import Metrics
from rws_keras.serving.servable import Signature

Arrays = dict[str, np.ndarray]
# Batches have as many rows as take about this long: a request waits for one or two of them, however
# large the requests before it are.
BATCH_SECONDS = 0.04


@dataclasses.dataclass(eq=False)
class Job:
    """A request, whose rows may be in several batches."""

    signature: Signature
    inputs: Arrays
    rows: int
    result: asyncio.Future[Arrays]
    taken: int = 0
    parts: list[tuple[slice, Arrays]] = dataclasses.field(default_factory=list)

    def add(self, rows: slice, outputs: Arrays | Exception) -> None:
        """Takes the outputs of some of its rows, in any order."""
        if self.result.done():
            return
        if isinstance(outputs, Exception):
            self.result.set_exception(outputs)
            return
        self.parts.append((rows, outputs))
        if sum(rows.stop - rows.start for rows, _ in self.parts) < self.rows:
            return
        parts = [part for _, part in sorted(self.parts, key=lambda part: part[0].start)]
        self.result.set_result(parts[0] if len(parts) == 1 else _joined(parts))


class Batcher:
    """Gathers requests on the event loop and computes them in threads, by one call a batch.

    Nothing waits for other requests to come: a batch is what has come while others were computed.
    A request of more rows than fit goes back to the end of the queue with those that are left.

    Args:
        max_batch_size: The most rows of a batch.
        threads: How many batches are computed at a time.
        metrics: Count the batches.
    """

    def __init__(self, max_batch_size: int, threads: int, metrics: Metrics):
        self._max_batch_size = max_batch_size
        self._metrics = metrics
        self._free = threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="compute")
        self._queue: deque[Job] = deque()
        self._loop = asyncio.get_running_loop()

    def compute(self, signature: Signature, inputs: Arrays) -> asyncio.Future[Arrays]:
        """Runs a signature.

        Args:
            signature: What to run.
            inputs: An array for each input, all of the same number of rows.

        Returns:
            An array for each output, in the future. When it is cancelled, rows that are not being
            computed yet are dropped.
        """
        result: asyncio.Future[Arrays] = self._loop.create_future()
        rows = len(next(iter(inputs.values())))
        self._queue.append(Job(signature, inputs, rows, result))
        # Soon, not at once: behind all requests that have come by now.
        self._loop.call_soon(self._start_batches)
        return result

    def _start_batches(self) -> None:
        while self._free and (batch := self._next_batch()):
            self._free -= 1
            self._metrics.batches.inc()
            self._threads.submit(self._run, batch)

    def _next_batch(self) -> list[tuple[Job, slice]]:
        batch: list[tuple[Job, slice]] = []
        kept, begun, room = [], [], 0
        for job in self._queue:
            if job.result.done():
                continue  # its client has gone, or its deadline has passed
            if not batch:
                signature, room = job.signature, self._batch_size(job.signature)
            if job.signature is not signature or not room:
                kept.append(job)
                continue
            rows = slice(job.taken, min(job.taken + room, job.rows))
            batch.append((job, rows))
            job.taken = rows.stop
            room -= rows.stop - rows.start
            if job.taken < job.rows:
                begun.append(job)
        self._queue = deque(kept + begun)
        return batch

    def _batch_size(self, signature: Signature) -> int:
        rows = BATCH_SECONDS / max(signature.row_seconds, 1e-9)
        return int(max(1, min(self._max_batch_size, rows)))

    def _run(self, batch: list[tuple[Job, slice]]) -> None:
        results = _results(batch)
        self._loop.call_soon_threadsafe(self._finish, batch, results)

    def _finish(self, batch: list[tuple[Job, slice]], results: list[Any]) -> None:
        self._free += 1
        self._start_batches()
        for (job, rows), outputs in zip(batch, results, strict=True):
            job.add(rows, outputs)

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _results(batch: list[tuple[Job, slice]]) -> list[Arrays | Exception]:
    """The outputs of each job in the batch, or why there are none."""
    parts = [{name: array[rows] for name, array in job.inputs.items()} for job, rows in batch]
    try:
        outputs = batch[0][0].signature(_joined(parts))
        if len(batch) == 1 and batch[0][1] == slice(0, batch[0][0].rows):
            return [outputs]
        return _split(outputs, [rows for _, rows in batch])
    except Exception as error:
        if len(batch) == 1:
            return [error]
        # The fault may be in one request alone.
        return [_results([each])[0] for each in batch]


def _joined(parts: list[Arrays]) -> Arrays:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _split(outputs: Arrays, rows: list[slice]) -> list[Arrays | Exception]:
    ends = np.cumsum([each.stop - each.start for each in rows])
    if any(array.shape[:1] != (ends[-1],) for array in outputs.values()):
        raise ValueError("Not every output has a row for each row of the inputs.")
    parts = zip(*(np.split(array, ends[:-1]) for array in outputs.values()), strict=True)
    return [dict(zip(outputs, part, strict=True)) for part in parts]
