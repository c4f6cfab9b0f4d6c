"""Starting TensorFlow without its notices."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


def start_tensorflow(with_keras: bool = True) -> None:
    """Imports TensorFlow and suppresses the notices of its native code.

    Before it reads its log level it reports absent GPUs and the like straight to file descriptor
    2; nobody can act on that. Later notices obey `TF_CPP_MIN_LOG_LEVEL`, and those of gRPC
    `GRPC_VERBOSITY`; errors are raised as well as logged. Whoever sets these variables sees what
    they ask for. Python's own errors come after the `finally`.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if "tensorflow" in sys.modules:
        return
    quiet = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3" and sys.stderr is not None
    if not with_keras:
        sys.modules["keras"] = None  # type: ignore[assignment]  # how Python marks an absent module
    try:
        with _stderr_closed() if quiet else contextlib.nullcontext():
            import tensorflow  # noqa: F401
    finally:
        if not with_keras:
            del sys.modules["keras"]


@contextlib.contextmanager
def _stderr_closed() -> Iterator[None]:
    sys.stderr.flush()
    screen, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        os.close(nowhere)
