"""Answering requests: what REST and gRPC have in common."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import numpy as np

from rws_keras.serving.batcher import Batcher
from rws_keras.serving.errors import Code, ServingError, invalid, too_large
from rws_keras.serving.metrics import Metrics
from rws_keras.serving.repository import Repository
from rws_keras.serving.servable import DEFAULT_SIGNATURE, Signature

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


@dataclasses.dataclass(frozen=True)
class Target:
    """Which model a request means, and what of it."""

    model: str
    version: int | None = None
    label: str | None = None
    signature: str = ""


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

    def signature(self, target: Target) -> tuple[int, Signature]:
        """The number of the version that a request means, and its signature.

        Raises:
            ServingError: If it is not served.
        """
        number, servable = self.repository.servable(target.model, target.version, target.label)
        return number, servable.signature(target.signature or DEFAULT_SIGNATURE)

    def most_values(self, target: Target) -> int:
        """How many numbers a request for a model can have."""
        try:
            _, servable = self.repository.servable(target.model, target.version, target.label)
        except ServingError:
            return 0
        return self.limits.rows * servable.row_values

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

    def refuse_method(self, target: Target, method: str) -> NoReturn:
        """Answers `classify` and `regress`: the models of this server are for `predict`.

        Raises:
            ServingError: Always; `NOT_FOUND` if the model is unknown.
        """
        _, servable = self.repository.servable(target.model, target.version, target.label)
        name = target.signature or DEFAULT_SIGNATURE
        if name not in servable.signature_defs:
            raise invalid(f"No signature was found with the name: {name}.")
        was = servable.signature_defs[name].method_name
        raise invalid(
            f"Expected a signature with the method_name tensorflow/serving/{method}, but that of "
            f"'{name}' is {was}: use predict."
        )

    def check_names(self, signature: Signature, given) -> None:
        """Compares the names of the inputs with the signature's.

        Raises:
            ServingError: If one is missing or unknown.
        """
        if set(given) != set(signature.inputs):
            expected, found = (
                ", ".join(sorted(names)) or "none" for names in (signature.inputs, given)
            )
            raise invalid(f"Expected the inputs: {expected}; got: {found}.")

    def check_shape(self, signature: Signature, name: str, shape) -> None:
        """Compares an input's shape with the signature's.

        Raises:
            ServingError: If it is another one, or has too many rows.
        """
        _, expected = signature.inputs[name]
        if len(shape) != len(expected) or any(
            want not in (-1, got) for want, got in zip(expected, shape, strict=True)
        ):
            wanted = ", ".join(["N", *map(str, expected[1:])])
            raise invalid(f"The input `{name}` must have the shape [{wanted}], got {list(shape)}.")
        if shape[0] > self.limits.rows:
            raise too_large(
                f"The input `{name}` has {shape[0]:,} rows, at most {self.limits.rows:,} are "
                "allowed in a request; send several."
            )

    def close(self) -> None:
        """Ends the threads."""
        self._batcher.close()
        self._conversions.shutdown(wait=False, cancel_futures=True)
