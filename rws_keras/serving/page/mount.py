"""The page as a part of the server's application."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator, Callable, MutableMapping

import fastapi
import gradio as gr

from rws_keras.serving.page import drawings
from rws_keras.serving.page.app import make_page
from rws_keras.serving.page.served import ServedModels
from rws_keras.serving.predictor import Predictor
from rws_keras.serving.rest import RestApi

PATH = "/page"
_CSS = drawings.CSS + "footer { display: none !important; }"


class WithPage:
    """The server's application with the page under `PATH`.

    Args:
        rest: Answers all other paths.
        page: Answers what is under `PATH`.
    """

    def __init__(self, rest: RestApi, page: fastapi.FastAPI):
        self._rest = rest
        self._page = page
        self._open: set[asyncio.Future] = set()

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if not f"{scope['path']}/".startswith(f"{PATH}/"):
            await self._rest(scope, receive, send)
            return
        unfinished = False

        async def tracked(message: MutableMapping) -> None:
            nonlocal unfinished
            unfinished = message["type"] == "http.response.start" or message.get("more_body", False)
            await send(message)

        answer = asyncio.ensure_future(self._page(scope, receive, tracked))
        self._open.add(answer)
        try:
            await asyncio.wait([answer])
        finally:
            self._open.discard(answer)
            answer.cancel()
        if not answer.cancelled():
            answer.result()
        elif unfinished:  # a stream of events that `close` has ended
            await send({"type": "http.response.body", "body": b""})

    def close(self) -> None:
        """Ends the streams of open pages, for which the server would wait when it stops."""
        for answer in self._open:
            answer.cancel()


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
    gr.mount_gradio_app(
        application,
        make_page(ServedModels(predictor)),
        PATH,
        auth=None
        if api_key is None
        else lambda _, password: hmac.compare_digest(password.encode(), api_key.encode()),
        auth_message="Any user name; the password is the server's API key.",
        footer_links=[],
        max_file_size=predictor.limits.body_bytes,
        enable_monitoring=False,
        ssr_mode=False,
        theme=gr.themes.Default(),
        css=_CSS,
    )
    async with application.router.lifespan_context(application):
        yield WithPage(rest, application)
