"""A zoo of one preset behind a real HTTP server, which fails in every way when told to."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import threading
import time
from pathlib import Path

from rws_keras.models import downloads

ZOO = Path(__file__).parents[1] / "zoo"
NAME = "digits-sbn-64-32"


class Server(http.server.ThreadingHTTPServer):
    """Serves a copy of the zoo; `faults` says of a file what goes wrong, request by request."""

    request_queue_size = 128

    def __init__(self, root):
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.faults = {}
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_):
        """A client that goes away is no matter."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends files, or fails to."""

    def do_GET(self):
        path = self.server.root / self.path.lstrip("/")
        self.server.requests.append(path.name)
        queue = self.server.faults.get(path.name, [])
        fault = queue.pop(0) if queue else None
        if isinstance(fault, int) or not path.is_file():
            self.send_error(fault or 404)
            return
        content = path.read_bytes()
        self.send_response(200)
        if fault != "no length":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        if fault == "corrupt":
            content = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        elif fault in ("truncate", "no length"):
            content = content[:half]
        elif fault == "hang":
            self.wfile.write(content[:half])
            self.wfile.flush()
            time.sleep(4.0)
            return
        elif fault == "slow":
            for start in range(0, len(content), len(content) // 8 + 1):
                self.wfile.write(content[start : start + len(content) // 8 + 1])
                self.wfile.flush()
                time.sleep(0.15)
            return
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving_a_zoo(directory, monkeypatch):
    """Serves a zoo of one preset, which is the user's for the block; the cache is empty."""
    monkeypatch.setenv("KERAS_HOME", str(directory / "home"))
    monkeypatch.setattr(downloads, "_PAUSES", (0.05, 0.05))
    root = directory / "zoo"
    shutil.copytree(ZOO / NAME, root / NAME)
    index = json.loads((ZOO / "index.json").read_text())
    index["presets"] = {NAME: index["presets"][NAME]}
    (root / "index.json").write_text(json.dumps(index))
    server = Server(root)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("RWS_KERAS_ZOO", server.url)
    yield server
    server.shutdown()
    server.server_close()
