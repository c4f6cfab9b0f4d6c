"""The page as a part of the server's application."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, MutableMapping

import fastapi
import gradio as gr

from rws_keras.serving.page import drawings
from rws_keras.serving.page.app import make_page
from rws_keras.serving.page.served import ServedModels
from rws_keras.serving.predictor import Limits, Predictor
from rws_keras.serving.rest import RestApi

PATH = "/page"
_CSS = drawings.CSS + "footer { display: none !important; }"


class WithPage:
    """The server's application with the page under `PATH`.

    Args:
        rest: Answers all other paths.
        page: Answers what is under `PATH`.
        limits: Of requests, those to the page among them.
    """

    def __init__(self, rest: RestApi, page: fastapi.FastAPI, limits: Limits):
        self._limits = limits
        self._rest = rest
        self._page = page
        self._open: set[asyncio.Future] = set()

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if not f"{scope['path']}/".startswith(f"{PATH}/"):
            await self._rest(scope, receive, send)
            return
        started = unfinished = False

        async def tracked(message: MutableMapping) -> None:
            nonlocal started, unfinished
            started = True
            if body.status and message["type"] == "http.response.start":
                message = {**message, "status": body.status}
            unfinished = message["type"] == "http.response.start" or message.get("more_body", False)
            await send(message)

        body = _Body(receive, self._limits)
        answer = asyncio.ensure_future(self._page(scope, body.receive, tracked))
        self._open.add(answer)
        try:
            await asyncio.wait([answer])
        finally:
            self._open.discard(answer)
            answer.cancel()
        if body.status and not started:
            await send({"type": "http.response.start", "status": body.status, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        elif not answer.cancelled():
            answer.result()
        elif unfinished:  # a stream of events that `close` has ended
            await send({"type": "http.response.body", "body": b""})

    def close(self) -> None:
        """Ends the streams of open pages, for which the server would wait when it stops."""
        for answer in self._open:
            answer.cancel()


class _Body:
    """A request's body, which may neither be too large nor take too long to arrive.

    Attributes:
        status: The HTTP status that says so, 0 as long as it is neither.
    """

    def __init__(self, receive: Callable, limits: Limits):
        self.status = 0
        self._receive = receive
        self._limits = limits
        self._size = 0
        self._complete = False
        self._end = time.monotonic() + limits.seconds

    async def receive(self) -> MutableMapping:
        """The next message; after what is too much, that the client is gone."""
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout(max(self._end - time.monotonic(), 0.0)):
                message = await self._receive()
        except TimeoutError:
            self.status = 408
            return {"type": "http.disconnect"}
        self._size += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._size > self._limits.body_bytes:
            self.status = 413
            return {"type": "http.disconnect"}
        return message


@contextlib.asynccontextmanager
async def with_page(
    rest: RestApi, predictor: Predictor, api_key: str | None
) -> AsyncIterator[WithPage]:
    """Starts the page, and ends it with the block.

    Args:
        rest: The server's own application.
        predictor: Answers what the page asks of the models.
        api_key: If given, the page asks its visitors for it.
    """
    application = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    page = make_page(ServedModels(predictor))
    # Gradio checks that the files which clients name are their uploads only once it believes that
    # the page was launched, which mounting does not tell it.
    page.has_launched = True
    page.queue(max_size=predictor.limits.concurrency)
    gr.mount_gradio_app(
        application,
        page,
        PATH,
        auth=None
        if api_key is None
        else lambda _, password: hmac.compare_digest(password.encode(), api_key.encode()),
        auth_message="Any user name; the password is the server's API key.",
        footer_links=[],
        max_file_size=predictor.limits.body_bytes,
        enable_monitoring=False,
        run_history=False,
        ssr_mode=False,
        theme=gr.themes.Default(),
        css=_CSS,
    )
    async with application.router.lifespan_context(application):
        yield WithPage(rest, application, predictor.limits)
