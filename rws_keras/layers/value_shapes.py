"""Whether layers may use operations whose shapes depend on values, which XLA cannot compile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class _State(threading.local):
    allowed = False


_state = _State()


@contextlib.contextmanager
def allow_value_shapes() -> Iterator[None]:
    """Allows such operations inside; only for what is never compiled by XLA."""
    before, _state.allowed = _state.allowed, True
    try:
        yield
    finally:
        _state.allowed = before


def value_shapes_allowed() -> bool:
    """Whether a layer may use such operations here."""
    return _state.allowed
