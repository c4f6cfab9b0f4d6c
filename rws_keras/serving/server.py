"""The embedded server: REST and gRPC in one process."""

from __future__ import annotations

import contextlib
import functools
import signal
import socket
from collections.abc import Callable

import grpc
import uvicorn
from tensorflow_serving.config import model_server_config_pb2

from rws_keras.errors import UserError, reason
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

    Both ports are taken before any model is loaded, and no other program can take them too.
    Requests that come while the first models are being loaded wait.

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
    _check_ports(rest_port, grpc_port)
    limits = limits or Limits()
    load = functools.partial(
        Servable,
        max_batch_size=max_batch_size,
        max_rows=limits.rows,
        batch_threads=batch_threads,
    )
    repository = Repository(config, load)
    predictor = Predictor(repository, limits, Metrics())
    with contextlib.ExitStack() as at_end:
        at_end.callback(repository.stop)
        listener = at_end.enter_context(_listen(host, rest_port, "REST"))
        grpc_server = rpc.make_server(predictor, api_key)
        grpc_port = _bind(grpc_server, host, grpc_port)
        at_end.callback(lambda: grpc_server.stop(GRACE_SECONDS).wait())
        try:
            repository.start(poll_seconds)
        finally:
            grpc_server.start()  # in any case: only a server that has run gives its port back
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
        # Uvicorn ends at these signals, and then raises them again: the rest is to end in order
        # too.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        server.run([listener])


def _check_ports(rest_port: int, grpc_port: int) -> None:
    for api, port in (("REST", rest_port), ("gRPC", grpc_port)):
        if not 0 <= port < 2**16:
            raise UserError(
                f"The port for {api} must be from 0 (any free one) to 65535, got {port}."
            )
    if rest_port == grpc_port != 0:
        raise UserError(f"REST and gRPC need a port each, got {rest_port} for both.")


def _listen(host: str, port: int, api: str) -> socket.socket:
    """Takes a port; `::` stands for all addresses, those of IPv4 included."""
    ipv6 = ":" in host
    try:
        return socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ipv6 else socket.AF_INET,
            dualstack_ipv6=ipv6 and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        why = (error.strerror or reason(error)).partition(" (")[0]  # without Python's addition
        raise _refusal(api, host, port, why) from error


def _bind(server: grpc.Server, host: str, port: int) -> int:
    """Takes a port for gRPC, and returns it.

    Of a host that has several addresses, such as `localhost` or `::`, gRPC is content with those
    which it can get, and the others stay another program's. So all are tried first, and names are
    resolved as for REST.
    """
    with _listen(host, port, "gRPC") as trial:
        address, port = trial.getsockname()[:2]
    where = f"[{address}]" if ":" in address else address
    try:
        return server.add_insecure_port(f"{where}:{port}")
    except RuntimeError as error:
        raise _refusal("gRPC", host, port, "Another program has just taken it") from error


def _refusal(api: str, host: str, port: int, why: str) -> UserError:
    return UserError(
        f"Port {port} of {host} cannot be used for {api}: {why}. Choose another port or host."
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
