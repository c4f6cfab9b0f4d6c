"""Starting TensorFlow without its notices."""

from __future__ import annotations

import os
import sys


def start_tensorflow() -> None:
    """Imports TensorFlow and suppresses the notices of its native code.

    Before it reads its log level it reports absent GPUs and the like straight to file descriptor
    2; nobody can act on that. Later notices obey `TF_CPP_MIN_LOG_LEVEL`, and those of gRPC
    `GRPC_VERBOSITY`; errors are raised as well as logged. Whoever sets these variables sees what
    they ask for. Python's own errors come after the `finally`.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if "tensorflow" in sys.modules:
        return
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "3" or sys.stderr is None:
        return
    sys.stderr.flush()
    screen, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        os.close(nowhere)
