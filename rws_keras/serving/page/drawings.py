"""Pictures, histograms and tables as HTML, which needs no network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

_BINS = 40


def pictures(images: Iterable[np.ndarray], titles: Sequence[str] = ()) -> str:
    """Pictures of grey levels `[height, width]` in [0, 1], side by side."""
    figures = []
    for index, image in enumerate(images):
        title = html.escape(titles[index]) if titles else ""
        figures.append(
            f'<figure><img src="{_png(image)}" alt="{title or "picture"}">'
            f"<figcaption>{title}</figcaption></figure>"
        )
    return f'<div class="rws-pictures">{"".join(figures)}</div>'


def _png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray((255 * np.clip(image, 0, 1)).round().astype(np.uint8)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def histogram(values: np.ndarray, shares: np.ndarray, marked: float) -> str:
    """A histogram of log-likelihoods, with a line where one of another row is.

    Args:
        values: In ascending order, `[n]`.
        shares: How many rows each stands for, as a share of all, `[n]`.
        marked: The other one.
    """
    # The lowest half per cent would make it too wide.
    lowest = values[np.searchsorted(np.cumsum(shares), 0.005)]
    low, high = min(lowest, marked), max(values[-1], marked)
    margin = 0.03 * max(high - low, 1e-6)
    low, high = low - margin, high + margin
    counts, _ = np.histogram(values, _BINS, (low, high), weights=shares)
    width = 400 / _BINS
    bars = "".join(
        f'<rect x="{index * width:.1f}" y="{100 - 95 * count / counts.max():.1f}" '
        f'width="{width - 1:.1f}" height="{95 * count / counts.max():.1f}"/>'
        for index, count in enumerate(counts)
        if count
    )
    at = 400 * (marked - low) / (high - low)
    return (
        '<svg class="rws-histogram" viewBox="0 -2 400 122" role="img" '
        f'aria-label="The row\'s log-likelihood, {marked:.2f} nats, among those of other rows">'
        f"<g>{bars}</g>"
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="100"/>'
        f'<text x="2" y="116">{low:.0f}</text>'
        f'<text x="398" y="116" text-anchor="end">{high:.0f} nats</text></svg>'
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; a cell is text, or a pair of text and the probability with which it was imputed."""
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="rws-table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Any) -> str:
    if not isinstance(cell, tuple):
        return f"<td>{html.escape(str(cell))}</td>"
    text, probability = cell
    return (
        f'<td class="imputed" style="--probability: {probability:.2f}" '
        f'title="imputed, probability {probability:.0%}">{html.escape(str(text))} '
        f"<small>{probability:.0%}</small></td>"
    )


CSS = """
.rws-pictures { display: flex; flex-wrap: wrap; gap: 10px; }
.rws-pictures figure { margin: 0; text-align: center; }
.rws-pictures img { width: 96px; image-rendering: pixelated; border: 1px solid #888; }
.rws-pictures figcaption { font-size: 13px; }
.rws-histogram { width: min(100%, 420px); }
.rws-histogram g { fill: #8aa9cc; }
.rws-histogram line { stroke: #c0392b; stroke-width: 2.5; }
.rws-histogram text { font-size: 13px; fill: currentColor; }
.rws-table { overflow: auto; max-height: 70vh; }
.rws-table table { border-collapse: collapse; font-size: 14px; }
.rws-table th, .rws-table td { border: 1px solid #8886; padding: 3px 8px; white-space: nowrap; }
.rws-table th { position: sticky; top: 0; background: var(--background-fill-primary, white); }
.rws-table td.imputed { background: rgb(31 95 168 / calc(0.08 + 0.5 * var(--probability))); }
"""
