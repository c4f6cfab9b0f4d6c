"""Limits of an HTTP connection that uvicorn does not have: size of headers, idle time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_BYTES = 2**16
_TOO_LARGE = b'{"error": "The headers of the request are larger than 64 KiB."}'
_ANSWER = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(_TOO_LARGE), _TOO_LARGE)
)


class HttpConnection(HttpToolsProtocol):
    """An HTTP connection.

    Args:
        idle_seconds: It is closed when a request's headers are not complete after this time.
        refused: Called with the code of a request that is no HTTP, or whose headers are too large.
        **options: Of uvicorn.
    """

    def __init__(self, *, idle_seconds: float, refused: Callable[[str], None], **options):
        super().__init__(**options)
        self._idle_seconds = idle_seconds
        self._refused = refused
        self._unparsed = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), HEADER_BYTES):
            piece = data[start : start + HEADER_BYTES]
            self._unparsed += len(piece)
            super().data_received(piece)
            if self.transport.is_closing():
                return
            # Line breaks between requests end uvicorn's timer and begin nothing.
            if self._timer is None and (self.cycle is None or self.cycle.response_complete):
                self._start_timer()
            # Neither the end of headers nor a body: headers, or what may follow a chunked body.
            if self._unparsed >= HEADER_BYTES:
                if self.cycle is None or self.cycle.response_complete:
                    self.transport.write(_ANSWER)
                self._refused("OUT_OF_RANGE")
                self.transport.close()
                return

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(msg)
        self._refused("INVALID_ARGUMENT")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:
            self._start_timer()

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # An answer before the body is there, such as 413: the rest may take as long, not forever.
        if self.cycle.more_body and self._timer is None:
            self._start_timer()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def _close(self) -> None:
        self.transport.close()
        # Closing waits for clients to read what was sent; some never do.
        self.loop.call_later(self._idle_seconds, self.transport.abort)

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self._idle_seconds, self._close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
