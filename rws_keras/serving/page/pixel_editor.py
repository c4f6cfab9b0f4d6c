"""A picture of on and off pixels to draw in, some of which may be marked as missing."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np

# A character per pixel.
OFF, ON, MISSING = "0", "1", "?"

_TEMPLATE = """
<div class="tools" role="toolbar" aria-label="Tools">
  ${[["draw", "Draw"], ["erase", "Erase"], ["hide", "Mark as missing"]].map(([tool, title]) =>
    `<button type="button" data-tool="${tool}" aria-pressed="${value.tool === tool}">
       ${title}</button>`
  ).join("")}
</div>
<div class="picture" role="img" aria-label="Picture to draw in"
     style="grid-template-columns: repeat(${value.width}, 1fr);
            aspect-ratio: ${value.width} / ${value.height}">
  ${[...value.pixels].map((pixel, index) =>
    `<i data-index="${index}" data-pixel="${pixel}"></i>`
  ).join("")}
</div>
"""

_CSS = """
.tools { display: flex; flex-wrap: wrap; gap: 6px; margin-bottom: 8px; }
.tools button { padding: 6px 12px; border: 1px solid #888; border-radius: 6px; background: none;
  color: inherit; cursor: pointer; font-size: 15px; }
.tools button[aria-pressed="true"] { background: #1f5fa8; border-color: #1f5fa8; color: white; }
.picture { display: grid; width: min(100%, 420px); background: #555; gap: 1px; padding: 1px;
  touch-action: none; cursor: crosshair; user-select: none; }
.picture i { background: black; }
.picture i[data-pixel="1"] { background: white; }
.picture i[data-pixel="?"] {
  background: repeating-linear-gradient(45deg, #c66 0 3px, #633 3px 6px); }
"""

# The listeners are those of the root, which stays while the template inside it is drawn anew.
# While a stroke lasts only pixels change; the value changes, once, at its end.
_SCRIPT = """
const PIXEL = {draw: "1", erase: "0", hide: "?"};
let drawing = false;

function cells() { return element.querySelectorAll(".picture i"); }

function paint(event) {
  const cell = document.elementFromPoint(event.clientX, event.clientY);
  if (!cell || !cell.dataset.index || !element.contains(cell)) return;
  const {width, height, tool} = props.value;
  const index = Number(cell.dataset.index);
  const reach = Math.min(width, height) >= 20 ? 1 : 0;  // a pen of three pixels on large pictures
  const [row, column] = [Math.floor(index / width), index % width];
  const all = cells();
  for (let y = row - reach; y <= row + reach; y++)
    for (let x = column - reach; x <= column + reach; x++)
      if (y >= 0 && y < height && x >= 0 && x < width &&
          Math.abs(y - row) + Math.abs(x - column) <= reach)
        all[y * width + x].dataset.pixel = PIXEL[tool];
}

element.addEventListener("pointerdown", event => {
  if (!event.target.closest(".picture")) return;
  event.preventDefault();
  drawing = true;
  paint(event);
});
element.addEventListener("pointermove", event => { if (drawing) paint(event); });
window.addEventListener("pointerup", () => {
  if (!drawing) return;
  drawing = false;
  const pixels = [...cells()].map(cell => cell.dataset.pixel).join("");
  props.value = {...props.value, pixels};
  trigger("input");
});
element.addEventListener("click", event => {
  const button = event.target.closest("button[data-tool]");
  if (button) props.value = {...props.value, tool: button.dataset.tool};
});
"""


def pixel_editor(**options: Any) -> gr.HTML:
    """The component; its value is made by `picture` and read by `pixels`.

    It is no class of its own: Gradio writes a file beside the source of a class.
    """
    return gr.HTML(
        picture(np.zeros([8, 8])),
        html_template=_TEMPLATE,
        css_template=_CSS,
        js_on_load=_SCRIPT,
        apply_default_css=False,
        **options,
    )


def picture(pixels: np.ndarray, tool: str = "draw") -> dict[str, Any]:
    """The editor's value for pixels `[height, width]`: 0, 1, or NaN where one is missing."""
    height, width = pixels.shape
    characters = np.where(np.isnan(pixels), MISSING, np.where(pixels > 0.5, ON, OFF))
    return {"height": height, "width": width, "pixels": "".join(characters.flat), "tool": tool}


def pixels(value: dict[str, Any]) -> np.ndarray:
    """The pixels of the editor's value as a row `[height * width]`; NaN where one is missing."""
    known = {OFF: 0.0, ON: 1.0, MISSING: np.nan}
    return np.array([known[character] for character in value["pixels"]], np.float32)
