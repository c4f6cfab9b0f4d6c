"""Answering requests: what REST and gRPC have in common."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from rws_keras.serving.batcher import Batcher
from rws_keras.serving.errors import Code, ServingError, invalid
from rws_keras.serving.metrics import Metrics
from rws_keras.serving.repository import Repository
from rws_keras.serving.servable import Signature

# Up to this size a request or an answer is converted on the event loop, in about a millisecond.
SMALL_BYTES = 2**16
_CONVERSIONS = 2


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server accepts at most.

    Attributes:
        body_bytes: The size of a request.
        rows: The rows of a request.
        concurrency: Requests at a time; one more is refused at once, not queued.
        seconds: Time for a REST request to arrive, and then to be answered. gRPC clients set
            their own deadlines.
        idle_seconds: An HTTP connection without a request is closed after this time.
    """

    body_bytes: int = 16 * 2**20
    rows: int = 4096
    concurrency: int = 128
    seconds: float = 30.0
    idle_seconds: float = 60.0


class Predictor:
    """Checks requests and runs them.

    Args:
        repository: The models.
        batcher: Computes.
        limits: The limits.
        metrics: The metrics.
    """

    def __init__(self, repository: Repository, batcher: Batcher, limits: Limits, metrics: Metrics):
        self.repository = repository
        self.limits = limits
        self.metrics = metrics
        self._batcher = batcher
        self._in_flight = 0
        self._conversions = ThreadPoolExecutor(_CONVERSIONS, thread_name_prefix="convert")

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request among those that are worked on.

        Raises:
            ServingError: If there are too many.
        """
        if self._in_flight >= self.limits.concurrency:
            self.metrics.refused.inc()
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"{self._in_flight} requests are being worked on; try again later.",
            )
        self._in_flight += 1
        self.metrics.in_flight.set(self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1
            self.metrics.in_flight.set(self._in_flight)

    async def convert(self, size: int, function: Callable[..., Any], *arguments) -> Any:
        """Calls a function that converts so many bytes: large ones in a thread, a few at a time."""
        if size <= SMALL_BYTES:
            return function(*arguments)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._conversions, function, *arguments)

    def run(
        self, model: str, signature: Signature, inputs: dict[str, np.ndarray]
    ) -> asyncio.Future[dict[str, np.ndarray]]:
        """Runs a signature on inputs whose names and shapes were checked.

        Raises:
            ServingError: If they have different numbers of rows.
        """
        rows = {name: len(array) for name, array in inputs.items()}
        if len(set(rows.values())) > 1:
            raise invalid(f"The inputs have different numbers of rows: {rows}.")
        self.metrics.rows.labels(model).inc(next(iter(rows.values())))
        return self._batcher.compute(signature, inputs)

    def close(self) -> None:
        """Ends the threads."""
        self._batcher.close()
        self._conversions.shutdown(wait=False, cancel_futures=True)
