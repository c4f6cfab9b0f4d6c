"""Files of data to score, and of scores."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import tensorflow as tf

from rws_keras.errors import UserError
from rws_keras.files import expanded, replace_file

ENDINGS = (".npy", ".csv", ".png")


def read_rows(path: Path) -> np.ndarray:
    """Reads binary rows.

    Args:
        path: A `.npy` array `[N, D]` or `[N, height, width]`, a `.csv` of zeros and ones without
            a heading, or a `.png`: one image, one row; its pixels are on from half the brightest
            grey upwards.

    Returns:
        float32 array `[N, D]`.

    Raises:
        ValueError: If the file is not there, or does not hold what it should.
    """
    path = expanded(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        if path.suffix == ".npy":
            rows = np.load(path, allow_pickle=False)
        elif path.suffix == ".csv":
            rows = np.loadtxt(path, delimiter=",", ndmin=2)
        elif path.suffix == ".png":
            image = tf.io.decode_png(path.read_bytes(), channels=1).numpy()
            rows = (image[None] >= 128).astype(np.float32)
        else:
            raise UserError(f"expected a file that ends in {', '.join(ENDINGS)}")
        rows = np.asarray(rows, np.float32)
    except (ValueError, EOFError, tf.errors.InvalidArgumentError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it is damaged"
        raise UserError(f"{path} cannot be read: {reason}.") from error
    if rows.ndim < 2 or not len(rows):
        raise UserError(f"{path} must hold rows of data, it has the shape {list(rows.shape)}.")
    return rows.reshape(len(rows), -1)


def write_scores(path: Path, scores: dict[str, np.ndarray]) -> None:
    """Writes one line for each row; the file appears once it is whole."""
    with replace_file(expanded(path)) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", *scores])
        for row, values in enumerate(zip(*scores.values(), strict=True)):
            writer.writerow([row, *map(float, values)])
