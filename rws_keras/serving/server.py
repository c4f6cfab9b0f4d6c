"""The embedded server: REST and gRPC in one process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
import uvicorn
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from rws_keras.errors import UserError, reason
from rws_keras.serving.batcher import Batcher
from rws_keras.serving.http_connection import HttpConnection
from rws_keras.serving.metrics import Metrics
from rws_keras.serving.predictor import Limits, Predictor
from rws_keras.serving.repository import Repository
from rws_keras.serving.rest import RestApi
from rws_keras.serving.rpc import GrpcApi

if TYPE_CHECKING:
    from rws_keras.serving.page.mount import WithPage

# Requests that are being answered get so long when the server is told to end.
GRACE_SECONDS = 30


def serve(
    config: Callable[[], ModelServerConfig],
    host: str = "127.0.0.1",
    rest_port: int = 8501,
    grpc_port: int = 8500,
    limits: Limits | None = None,
    max_batch_size: int = 64,
    batch_threads: int = 2,
    poll_seconds: float = 2.0,
    api_key: str | None = None,
    config_reload: bool = False,
    page: bool = False,
    started: Callable[[int, int, dict[str, list[int]]], None] = lambda *_: None,
) -> None:
    """Serves models until the process is told to end (SIGTERM, Ctrl-C).

    Both ports answer before any model is loaded, and no other program can have them too.

    Args:
        config: Says which models to serve, at each look at the disk.
        host: Where to listen.
        rest_port: Port of the REST API; 0 for any free one.
        grpc_port: Port of gRPC; 0 for any free one.
        limits: What is accepted at most.
        max_batch_size: The most rows that are computed together.
        batch_threads: How many batches are computed at a time.
        poll_seconds: Time between looks at the disk; a version that has changed within it is not
            loaded yet.
        api_key: If given, requests must carry it.
        config_reload: Whether gRPC clients may change which models are served.
        page: Whether to serve the page to look at the models; it needs Gradio.
        started: Called with both ports, and the versions of each model that are loaded, once what
            was there at first is loaded.

    Raises:
        UserError: If a port cannot be used, or the key is empty.
    """
    _check_ports(rest_port, grpc_port)
    if api_key == "":
        raise UserError("The API key is empty. Give one, or none at all to serve without a key.")
    if api_key is not None and not api_key.isascii():
        raise UserError("The API key must be ASCII: HTTP headers and gRPC metadata have no other.")
    if page:
        # Takes seconds, in which nothing could be answered if the ports were open.
        from rws_keras.serving.page.mount import with_page
    # Uvicorn ends at these signals, and then raises them again: the rest is to end in order too.
    # One that comes before uvicorn listens to them is remembered.
    told_to_end = threading.Event()
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            handlers[number] = signal.signal(number, lambda *_: told_to_end.set())
    repository = Repository(config, settle_seconds=poll_seconds)
    limits = limits or Limits()

    async def run() -> None:
        metrics = Metrics()
        batcher = Batcher(max_batch_size, batch_threads, metrics)
        predictor = Predictor(repository, batcher, limits, metrics)
        async with contextlib.AsyncExitStack() as at_end:
            at_end.callback(predictor.close)
            at_end.callback(repository.stop)
            listener = at_end.enter_context(_listen(host, rest_port, "REST"))
            grpc_api = GrpcApi(predictor, api_key, config_reload)
            grpc_server = grpc_api.server()
            ports = listener.getsockname()[1], _bind(grpc_server, host, grpc_port)
            await grpc_server.start()  # only a server that has run gives its port back
            try:
                config()
            except BaseException:
                await grpc_server.stop(None)
                raise
            loop = asyncio.get_running_loop()
            repository.start(
                poll_seconds,
                lambda: loop.call_soon_threadsafe(started, *ports, repository.serving()),
            )
            at_end.callback(asyncio.ensure_future(grpc_api.report_health()).cancel)
            rest = RestApi(predictor, api_key)
            application: RestApi | WithPage = rest
            if page:
                application = await at_end.enter_async_context(with_page(rest, predictor, api_key))
            server = _Server(settings(predictor, application), grpc_server)
            if told_to_end.is_set():
                await grpc_server.stop(None)
            else:
                await server.serve([listener])

    def settings(predictor: Predictor, application: RestApi | WithPage) -> uvicorn.Config:
        def refused(code: str) -> None:
            predictor.metrics.answered("rest", "none", code, 0.0)

        return uvicorn.Config(
            application,
            http=functools.partial(  # type: ignore[arg-type]
                HttpConnection, idle_seconds=limits.idle_seconds, refused=refused
            ),
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            server_header=False,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=limits.idle_seconds,  # type: ignore[arg-type]
            timeout_graceful_shutdown=GRACE_SECONDS,
        )

    # uvloop, where it is installed.
    loop_factory = uvicorn.Config("").get_loop_factory()
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(run())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


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


def _bind(server: grpc.aio.Server, host: str, port: int) -> int:
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
    """Uvicorn that ends together with a gRPC server."""

    def __init__(self, config: uvicorn.Config, grpc_server: grpc.aio.Server):
        super().__init__(config)
        self._grpc_server = grpc_server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if close := getattr(self.config.app, "close", None):
            close()
        await asyncio.gather(self._grpc_server.stop(GRACE_SECONDS), super().shutdown(sockets))
