"""Answering requests: what REST and gRPC have in common."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2

from rws_keras.serving.errors import ServingError, invalid, too_large, too_many
from rws_keras.serving.metrics import Metrics
from rws_keras.serving.repository import Repository
from rws_keras.serving.servable import DEFAULT_SIGNATURE


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server takes on at most.

    Attributes:
        body_bytes: The size of a request.
        rows: The rows of a request.
        concurrency: Requests at a time; one more is refused at once, not queued.
    """

    body_bytes: int = 16 * 2**20
    rows: int = 4096
    concurrency: int = 128


@dataclasses.dataclass(frozen=True)
class Target:
    """Which model a request means, and what of it."""

    model: str
    version: int | None = None
    label: str | None = None
    signature: str = DEFAULT_SIGNATURE


@dataclasses.dataclass(frozen=True)
class Answer:
    """The outputs, and the version they come from."""

    outputs: dict[str, np.ndarray]
    version: int


class Predictor:
    """Checks requests, runs them and counts them.

    Args:
        repository: The models.
        limits: The limits.
        metrics: The metrics.
    """

    def __init__(self, repository: Repository, limits: Limits, metrics: Metrics):
        self.repository = repository
        self.limits = limits
        self.metrics = metrics
        self._places = threading.Semaphore(limits.concurrency)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place among the requests that are worked on.

        Raises:
            ServingError: If all are taken.
        """
        if not self._places.acquire(blocking=False):
            self.metrics.refused.inc()
            raise too_many(
                f"{self.limits.concurrency} requests are being worked on; try again later."
            )
        try:
            with self.metrics.in_flight.track_inprogress():
                yield
        finally:
            self._places.release()

    def predict(
        self,
        target: Target,
        read: Callable[[meta_graph_pb2.SignatureDef], dict[str, np.ndarray]],
        protocol: str,
    ) -> Answer:
        """Answers a request.

        Args:
            target: What it is for.
            read: Gives the inputs as arrays, when told the signature, their names and shapes
                checked (`check_names`, `check_shape`).
            protocol: `"rest"` or `"grpc"`, for the metrics.

        Raises:
            ServingError: If the request is wrong, or nothing that it asks for is served.
        """
        start, code = time.perf_counter(), "OK"
        try:
            with self.repository.use(target.model, target.version, target.label) as (
                number,
                servable,
            ):
                definition = servable.signature_def(target.signature)
                inputs = read(definition)
                rows = {name: len(array) for name, array in inputs.items()}
                if len(set(rows.values())) > 1:
                    raise invalid(f"The inputs have different numbers of rows: {rows}.")
                outputs = servable.predict(target.signature, inputs)
            self.metrics.rows.labels(target.model).inc(next(iter(rows.values())))
            return Answer(outputs, number)
        except ServingError as error:
            code = error.code.name
            raise
        except Exception:
            code = grpc.StatusCode.INTERNAL.name
            raise
        finally:
            # A name that is not served is the client's invention: no label of its own.
            known = target.model if target.model in self.repository.names() else "unknown"
            self.metrics.requests.labels(protocol, known, code).inc()
            self.metrics.seconds.labels(protocol, known).observe(time.perf_counter() - start)


def check_names(definition: meta_graph_pb2.SignatureDef, given) -> None:
    """Compares the names of the inputs with the signature's.

    Raises:
        ServingError: If one is missing or unknown.
    """
    if set(given) != set(definition.inputs):
        expected, found = (
            ", ".join(sorted(names)) or "none" for names in (definition.inputs, given)
        )
        raise invalid(f"Expected the inputs: {expected}; got: {found}.")


def check_shape(name: str, info: meta_graph_pb2.TensorInfo, shape, most_rows: int) -> None:
    """Compares an input's shape with the signature's.

    Raises:
        ServingError: If it is another one, or has no row, or too many.
    """
    expected = [dim.size for dim in info.tensor_shape.dim]
    if len(shape) != len(expected) or any(
        want not in (-1, got) for want, got in zip(expected, shape, strict=True)
    ):
        wanted = ", ".join(["N", *map(str, expected[1:])])
        raise invalid(f"The input `{name}` must have the shape [{wanted}], got {list(shape)}.")
    if shape[0] < 1:
        raise invalid(f"The input `{name}` has no rows; at least one is needed.")
    if shape[0] > most_rows:
        raise too_large(
            f"The input `{name}` has {shape[0]:,} rows, at most {most_rows:,} are allowed in a "
            "request; send several."
        )
