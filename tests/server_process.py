"""The embedded server in a process of its own."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import psutil
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def respect_permissions() -> None:
    """Has even root be refused what permissions refuse, from the next program on."""
    if os.geteuid() == 0:
        drop, override, read_search = 24, 1, 2  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, …_READ_SEARCH
        for capability in (override, read_search):
            ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0)


class ServerProcess:
    """Starts `rws-keras serve` with options, and waits until it is ready."""

    def __init__(self, *options, log: Path, environment: dict | None = None):
        self.rest_port, self.grpc_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.rest_port}"
        self.grpc_url = f"grpc://127.0.0.1:{self.grpc_port}"
        ports = ["--rest-port", self.rest_port, "--grpc-port", self.grpc_port]
        # Models are copied just before: those are served soon, unless the test says otherwise.
        poll = [] if "--poll-seconds" in options else ["--poll-seconds", 0.2]
        command = [sys.executable, "-m", "rws_keras", "serve", *ports, *poll, *options]
        self._log = log
        with log.open("a") as file:
            self.process = subprocess.Popen(
                list(map(str, command)),
                cwd=ROOT,
                stdout=file,
                stderr=file,
                env={**os.environ, **(environment or {})},
                preexec_fn=respect_permissions,
            )
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{self.grpc_port}", [("grpc.use_local_subchannel_pool", 1)]
        )
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.readiness = []  # what /readyz answered, until it was 200
        for _ in range(1200):
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                self.readiness.append(self.get("/readyz")[0])
                if self.readiness[-1] == 200:
                    return
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"The server does not get ready:\n{self.log}")

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str, **headers) -> tuple[int, dict | str]:
        return self._open(urllib.request.Request(self.url + path, headers=headers))

    def post(self, path: str, body: object, **headers) -> tuple[int, dict | str]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._open(urllib.request.Request(self.url + path, data, headers))

    def _open(self, request):
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status, text = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def memory(self) -> float:
        """Resident memory in MiB."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def stop(self) -> int:
        """Tells the server to end, as an init system does; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
