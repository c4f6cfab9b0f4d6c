"""Grids of small images, as arrays and as PNG files."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from rws_keras.checks import check_positive_integer
from rws_keras.files import expanded, replace_file


def tile_images(
    rows: np.ndarray, image_shape: tuple[int, int], columns: int | None = None
) -> np.ndarray:
    """Arranges flat images in a grid.

    Args:
        rows: Array `[N, height * width]` of grey levels in [0, 1].
        image_shape: `(height, width)`.
        columns: How many images a line has; by default the grid is as nearly square as their
            number allows.

    Returns:
        uint8 array `[grid height, grid width, 1]` with thin grey lines between images.
    """
    rows = np.asarray(rows)
    if columns is None:
        columns = math.ceil(math.sqrt(len(rows)))
    columns = check_positive_integer(columns, "columns")
    lines = math.ceil(len(rows) / columns)
    height, width = image_shape
    grid = np.full((lines * (height + 1) + 1, columns * (width + 1) + 1), 0.35)
    for index, image in enumerate(rows.reshape(-1, height, width)):
        top = index // columns * (height + 1) + 1
        left = index % columns * (width + 1) + 1
        grid[top : top + height, left : left + width] = image
    return (np.clip(grid, 0.0, 1.0) * 255).round().astype(np.uint8)[..., None]


def write_png(path: str | os.PathLike, image: np.ndarray, enlarge: int = 1) -> Path:
    """Writes a uint8 image `[height, width, 1]`, each pixel enlarged to a square.

    The file appears under its name only once it is complete.
    """
    path = expanded(path)
    image = image.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
    with replace_file(path) as temporary:
        temporary.write_bytes(tf.io.encode_png(image).numpy())
    return path
