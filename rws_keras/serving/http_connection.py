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
        idle_seconds: It is closed when the server has waited so long for a request's headers, or
            for a client to read what was sent, of which it took nothing meanwhile.
        refused: Called with the code of a request that is no HTTP, or whose headers are too large.
        **options: Of uvicorn.
    """

    def __init__(self, *, idle_seconds: float, refused: Callable[[str], None], **options):
        super().__init__(**options)
        self._idle_seconds = idle_seconds
        self._refused = refused
        self._unparsed = 0
        self._unsent = 0
        self._idle_since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watchdog.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        left = self._idle_since + self._idle_seconds - self.loop.time()
        if left <= 0:
            unsent = self.transport.get_write_buffer_size()
            if unsent and unsent == self._unsent:
                self.transport.abort()  # closing would wait for its client
            elif self._answered():
                self.transport.close()
            self._unsent, left = unsent, self._idle_seconds
        self._watchdog = self.loop.call_later(left, self._watch)

    def _answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), HEADER_BYTES):
            piece = data[start : start + HEADER_BYTES]
            self._unparsed += len(piece)
            super().data_received(piece)
            if self.transport.is_closing():
                return
            # Neither the end of headers nor a body: headers, or what may follow a chunked body.
            if self._unparsed >= HEADER_BYTES:
                if self._answered():
                    self.transport.write(_ANSWER)
                self._refused("OUT_OF_RANGE")
                self.transport.close()
                return

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(msg)
        self._refused("INVALID_ARGUMENT")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._idle_since = self.loop.time()

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()
