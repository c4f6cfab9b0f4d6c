"""The embedded server: REST and gRPC in one process."""

from __future__ import annotations

import functools
import signal
import socket
from collections.abc import Callable

import uvicorn
from tensorflow_serving.config import model_server_config_pb2

from rws_keras.errors import UserError
from rws_keras.serving import rest, rpc
from rws_keras.serving.metrics import Metrics
from rws_keras.serving.predictor import Limits, Predictor
from rws_keras.serving.repository import Repository
from rws_keras.serving.servable import Servable

# Requests that are being answered get so long when the server is told to end.
GRACE_SECONDS = 30


def serve(
    config: Callable[[], model_server_config_pb2.ModelServerConfig],
    host: str = "127.0.0.1",
    rest_port: int = 8501,
    grpc_port: int = 8500,
    limits: Limits | None = None,
    max_batch_size: int = 64,
    batch_threads: int = 2,
    poll_seconds: float = 2.0,
    api_key: str | None = None,
    started: Callable[[int, int, dict[str, list[int]]], None] = lambda *_: None,
) -> None:
    """Serves models until the process is told to end (SIGTERM, Ctrl-C).

    Args:
        config: Says which models to serve, at each look at the disk.
        host: Where to listen.
        rest_port: Port of the REST API; 0 for any free one.
        grpc_port: Port of gRPC; 0 for any free one.
        limits: What is taken on at most.
        max_batch_size: The most rows that are computed together.
        batch_threads: How many batches are computed at a time.
        poll_seconds: Time between looks at the disk.
        api_key: If given, requests must carry it.
        started: Called with both ports, and the versions of each model that are loaded, once
            requests are answered.

    Raises:
        UserError: If a port cannot be used.
    """
    limits = limits or Limits()
    load = functools.partial(
        Servable,
        max_batch_size=max_batch_size,
        max_rows=limits.rows,
        batch_threads=batch_threads,
    )
    repository = Repository(config, load)
    repository.start(poll_seconds)
    predictor = Predictor(repository, limits, Metrics())
    grpc_server = rpc.make_server(predictor, api_key)
    try:
        grpc_port = grpc_server.add_insecure_port(f"{host}:{grpc_port}")
    except RuntimeError as error:
        raise _port_error("gRPC", host, grpc_port) from error
    grpc_server.start()
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, rest_port), family=family)
    except OSError as error:
        raise _port_error("REST", host, rest_port) from error
    rest_port = listener.getsockname()[1]
    server = _Server(
        uvicorn.Config(
            rest.make_app(predictor, api_key),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        ),
        started=lambda: started(rest_port, grpc_port, repository.serving()),
    )
    # Uvicorn ends at these signals, and then raises them again: the rest is to end in order too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        server.run([listener])
    finally:
        grpc_server.stop(GRACE_SECONDS).wait()
        repository.stop()


def _port_error(api: str, host: str, port: int) -> UserError:
    return UserError(
        f"Port {port} of {host} cannot be used for {api}: another program may have it, or {host} "
        "is not an address of this machine. Choose others."
    )


class _Server(uvicorn.Server):
    """Uvicorn that tells when it listens."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]):
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()
