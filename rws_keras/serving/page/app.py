"""The page itself: its parts, and what its buttons do."""

from __future__ import annotations

import asyncio
import functools
import html
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from rws_keras.datasets import read_rows
from rws_keras.errors import UserError
from rws_keras.serving.page import drawings
from rws_keras.serving.page.models import Model
from rws_keras.serving.page.pixel_editor import picture, pixel_editor, pixels
from rws_keras.serving.page.served import ServedModels

# Rows of a table that are scored and shown.
_MOST_ROWS = 200
_SAMPLES = 60
# Models whose descriptions are kept.
_KEPT = 20


def make_page(served: ServedModels) -> gr.Blocks:
    """Makes the page.

    Args:
        served: The server's models.
    """
    page = _Page(served)
    with gr.Blocks(
        title="rws_keras models", analytics_enabled=False, delete_cache=(600, 3600)
    ) as blocks:
        gr.Markdown("# Models on this server")
        name = gr.Dropdown([], label="Model", elem_id="model")
        status = gr.Markdown(elem_id="status")
        with gr.Row(visible=False) as image_part:
            with gr.Column():
                editor = pixel_editor(elem_id="editor")
                with gr.Row():
                    score = gr.Button("Score", variant="primary", elem_id="score", min_width=120)
                    complete = gr.Button("Complete", elem_id="complete", min_width=120)
                with gr.Row():
                    clear = gr.Button("Clear", elem_id="clear", min_width=120)
                    draw = gr.Button("Sample", elem_id="draw", min_width=120)
                upload = gr.Image(
                    label="Upload an image",
                    sources=["upload"],
                    type="pil",
                    image_mode="L",
                    height=140,
                    elem_id="upload",
                )
            with gr.Column():
                result = gr.Markdown(elem_id="result")
                distribution = gr.HTML(elem_id="distribution")
                completions = gr.HTML(elem_id="completions")
        with gr.Column(visible=False) as table_part:
            file = gr.File(label="Upload a CSV file", file_types=[".csv", ".tsv"], elem_id="file")
            score_table = gr.Button("Score the rows", variant="primary", elem_id="score-table")
            table_result = gr.Markdown(elem_id="table-result")
            table = gr.HTML(elem_id="table")
        with gr.Tab("Samples"):
            more = gr.Button("Draw one more", elem_id="more")
            samples = gr.HTML(elem_id="samples")
            drawn = gr.State([])
        with gr.Tab("Receptive fields"):
            fields = gr.HTML(elem_id="fields")
        with gr.Tab("Card"):
            card = gr.Markdown(elem_id="card")

        shown = [
            *(status, image_part, table_part, editor, result, distribution, completions),
            *(table_result, table, samples, drawn, fields, card),
        ]
        blocks.load(page.names, None, name, show_progress="hidden")
        name.change(page.choose, name, shown, show_progress="hidden")
        score.click(page.score, [name, editor], [result, distribution, completions])
        complete.click(page.complete, [name, editor], [result, distribution, completions])
        clear.click(page.clear, name, [editor, result, distribution, completions])
        draw.click(page.draw, name, editor)
        upload.upload(page.upload, [name, upload], editor)
        score_table.click(page.score_table, [name, file], [table_result, table])
        more.click(page.draw_more, [name, drawn], [samples, drawn])
    return blocks


def _told(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Shows the message of a `UserError` on the page, and leaves the rest as it is."""

    @functools.wraps(method)
    async def answer(*arguments):
        try:
            return await method(*arguments)
        except UserError as error:
            raise gr.Error(html.escape(str(error)), duration=10) from error
        except TimeoutError as error:
            raise gr.Error("The server is too busy; try again later.", duration=10) from error

    return answer


class _Page:
    """What the parts of the page do; all are called on the server's event loop."""

    def __init__(self, served: ServedModels):
        self._served = served
        self._models: dict[Path, Model] = {}

    def _model(self, name: str | None) -> Model:
        directories = self._served.directories()
        if name not in directories:
            raise UserError(
                f"The model {name} no longer serves; reload the page."
                if name
                else "Choose a model first."
            )
        directory = directories[name]
        if directory not in self._models:
            self._models = {
                directory: Model.of(name, directory),
                **dict(list(self._models.items())[:_KEPT]),
            }
        return self._models[directory]

    @_told
    async def names(self):
        """The choice of models, with the first one chosen."""
        names = sorted(self._served.directories())
        if not names:
            raise UserError("No model serves yet. Reload the page in a moment.")
        return gr.Dropdown(names, value=names[0])

    @_told
    async def choose(self, name: str):
        """Shows another model."""
        try:
            model = self._model(name)
        except UserError as error:  # in place of another model, not beside it
            nothing = gr.Row(visible=False), gr.Column(visible=False), picture(np.zeros((1, 1)))
            return html.escape(str(error)), *nothing, *("", "", "", "", "", "", [], "", "")
        images = model.image_shape is not None
        where = f"Version {model.version}, {model.units} visible units, K = {model.num_particles}."
        return (
            where,
            gr.Row(visible=images),
            gr.Column(visible=not images),
            picture(np.zeros(model.image_shape or (1, 1))),
            *("", "", "", "", "", "", []),
            model.receptive_fields or "There are none for this family of layers.",
            model.card or "This model has no card.",
        )

    @_told
    async def score(self, name: str, value: dict):
        """The score of the picture; of one with missing pixels, of those that are known."""
        model, row = self._model(name), pixels(value)
        if np.isnan(row).any():
            found = await self._impute(model, row[None])
            told = f"of the {int((~np.isnan(row)).sum())} known pixels"
        else:
            found = await self._served.predict(name, "serving_default", {"x": row[None]})
            told = "of the picture"
        return *_score_parts(model, found, told, np.isnan(row).any()), ""

    @_told
    async def complete(self, name: str, value: dict):
        """Completions of the missing pixels, and their means."""
        model, row = self._model(name), pixels(value)
        if not np.isnan(row).any():
            raise UserError("No pixel is missing. Choose “Mark as missing” and erase a part first.")
        found = await self._impute(model, row[None])
        images = [found["mean"][0], *found["completions"][0]]
        titles = ["mean", *(f"completion {number}" for number in range(1, len(images)))]
        drawn = drawings.pictures([each.reshape(model.height_and_width) for each in images], titles)
        told = f"of the {int((~np.isnan(row)).sum())} known pixels"
        return *_score_parts(model, found, told, True), drawn

    async def _impute(self, model: Model, rows: np.ndarray) -> dict[str, np.ndarray]:
        known = ~np.isnan(rows)
        inputs = {"x": np.where(known, rows, 0.0), "mask": known}
        inputs = {key: array.astype(np.float32) for key, array in inputs.items()}
        return await self._served.predict(model.name, "impute", inputs)

    @_told
    async def clear(self, name: str):
        """An empty picture."""
        return picture(np.zeros(self._model(name).height_and_width)), "", "", ""

    @_told
    async def draw(self, name: str):
        """A sample as the picture."""
        model = self._model(name)
        return picture((await self._sample(model))["x"].reshape(model.height_and_width))

    async def _sample(self, model: Model) -> dict[str, np.ndarray]:
        seed = np.array([secrets.randbelow(2**31)], np.int64)
        found = await self._served.predict(model.name, "sample", {"seed": seed})
        return {key: array[0] for key, array in found.items()}

    @_told
    async def upload(self, name: str, image: Image.Image | None):
        """An image as the picture: in the model's size, on where it is brighter than half."""
        model = self._model(name)
        if image is None:
            raise UserError("The file cannot be read as an image.")
        height, width = model.height_and_width
        grey = np.asarray(image.resize((width, height), Image.Resampling.BOX), np.float32) / 255
        return picture((grey > 0.5).astype(np.float32))

    @_told
    async def score_table(self, name: str, path: str | None):
        """Scores and completed cells of a table's rows."""
        model = self._model(name)
        if path is None:
            raise UserError("Upload a CSV file first.")
        # In a thread: the server's other clients do not wait for it.
        rows = await asyncio.to_thread(
            read_rows, Path(path), model.units, model.schema, missing=True
        )
        x = rows.x[:_MOST_ROWS]
        found = await self._impute(model, x)
        scores = found["log_likelihood"]
        if (complete := ~np.isnan(x).any(axis=1)).any():
            whole = await self._served.predict(name, "serving_default", {"x": x[complete]})
            scores[complete] = whole["log_likelihood"]
        columns, cells = _cells(model, x, found["mean"], rows.names)
        lines = [
            [str(number), f"{score:.2f}", *row]
            for number, (score, row) in enumerate(zip(scores, cells, strict=True), start=1)
        ]
        told = f"{len(x):,} rows, mean log-likelihood {scores.mean():.2f} nats."
        if len(rows.x) > len(x):
            told = f"The first {told} The command `rws-keras score` scores files of any length."
        if imputed := sum(isinstance(cell, tuple) for row in cells for cell in row):
            told += f" {imputed:,} missing values are completed, in blue."
        return told, drawings.table(["row", "nats", *columns], lines)

    @_told
    async def draw_more(self, name: str, drawn: list):
        """One more sample before those that are shown."""
        model = self._model(name)
        drawn = [await self._sample(model), *drawn][:_SAMPLES]
        if model.image_shape is not None:
            return drawings.pictures(x["x"].reshape(model.image_shape) for x in drawn), drawn
        x = np.stack([each["x"] for each in drawn])
        columns, cells = _cells(model, x, x, None)
        return drawings.table(columns, cells), drawn


def _score_parts(model: Model, found: dict, told: str, part: bool) -> tuple[str, str]:
    """The score as text, and where it is among those of validation rows."""
    score, error = found["log_likelihood"][0], found["standard_error"][0]
    text = f"## {score:.2f} nats\n\nLog-likelihood {told}, standard error {error:.2f}."
    if part or model.usual is None or model.shares is None:
        return text, ""
    share = found["tail_probability"][0]
    text += f" {share:.1%} of the validation rows are as improbable or more."
    return text, drawings.histogram(model.usual, model.shares, float(score))


def _cells(model: Model, x: np.ndarray, mean: np.ndarray, names: list[str] | None):
    """Names of columns and, for each row, cells as `drawings.table` takes them."""
    if model.schema is None:
        columns = names or [str(number) for number in range(1, model.units + 1)]
        cells = [
            [
                (str(int(p > 0.5)), float(max(p, 1 - p))) if np.isnan(value) else f"{value:g}"
                for value, p in zip(row, p_row, strict=True)
            ]
            for row, p_row in zip(x, mean, strict=True)
        ]
        return columns, cells
    ends = np.cumsum(model.schema.groups)[:-1]
    cells = [
        [
            _cell(column.values, units, p)
            for column, units, p in zip(
                model.schema.columns, np.split(row, ends), np.split(p_row, ends), strict=True
            )
        ]
        for row, p_row in zip(x, mean, strict=True)
    ]
    return [column.name for column in model.schema.columns], cells


def _cell(values: tuple[str, ...], units: np.ndarray, p: np.ndarray) -> Any:
    """The value of a column, with its probability where it was missing."""
    shares = np.array([1 - p[0], p[0]]) if len(values) == 2 else p
    if np.isnan(units).any():
        best = int(shares.argmax())
        return values[best], float(shares[best])
    return values[int(units[0]) if len(values) == 2 else int(units.argmax())]
