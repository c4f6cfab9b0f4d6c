"""The page as an ASGI application under a path of the server."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import AsyncIterator, Callable

import fastapi
import gradio as gr

from rws_keras.serving.page import drawings
from rws_keras.serving.page.app import make_page
from rws_keras.serving.page.models import Served

PATH = "/page"
_MOST_BYTES = 16 * 2**20
_CSS = drawings.CSS + "footer { display: none !important; }"


@contextlib.asynccontextmanager
async def page_application(served: Served, api_key: str | None) -> AsyncIterator[Callable]:
    """The application that answers what is under `PATH`.

    Args:
        served: The server's models.
        api_key: If given, the page asks for it.
    """
    application = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        application,
        make_page(served),
        PATH,
        auth=None
        if api_key is None
        else lambda _, password: hmac.compare_digest(password.encode(), api_key.encode()),
        auth_message="Any user name; the password is the server's API key.",
        footer_links=[],
        max_file_size=_MOST_BYTES,
        enable_monitoring=False,
        ssr_mode=False,
        theme=gr.themes.Default(),
        css=_CSS,
    )
    async with application.router.lifespan_context(application):
        yield application
