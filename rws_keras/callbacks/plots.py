"""Plots as arrays of pixels, drawn with NumPy alone."""

from __future__ import annotations

import math

import numpy as np

from rws_keras.callbacks.images import tile_images

_BLUE, _RED = np.array([0.13, 0.40, 0.67]), np.array([0.70, 0.09, 0.17])
_ORANGE = np.array([0.90, 0.45, 0.05])


def diverging(values: np.ndarray) -> np.ndarray:
    """Colours for values of both signs: white for 0, red above, blue below.

    Args:
        values: Array `[...]` in [-1, 1]; what is beyond has the colour of the end.

    Returns:
        Float array `[..., 3]` in [0, 1].
    """
    values = np.clip(np.nan_to_num(np.asarray(values, float)), -1.0, 1.0)[..., None]
    end = np.where(values > 0.0, _RED, _BLUE)
    return 1.0 + np.abs(values) * (end - 1.0)


def tile_fields(fields: np.ndarray, image_shape: tuple[int, int]) -> np.ndarray:
    """Receptive fields side by side: red excites, blue inhibits.

    Args:
        fields: Array `[N, height * width]` in [0, 1], 0.5 for a weight of zero.
        image_shape: `(height, width)`.

    Returns:
        uint8 array `[grid height, grid width, 3]`.
    """
    colours = diverging(2.0 * fields - 1.0)
    return np.concatenate(
        [tile_images(colours[..., channel], image_shape) for channel in range(3)], axis=-1
    )


def tile_pairs(left: np.ndarray, right: np.ndarray, image_shape: tuple[int, int]) -> np.ndarray:
    """Pairs of images in a grid: on the right of each of the first kind one of the second.

    Args:
        left: Array `[N, height * width]` of grey levels in [0, 1].
        right: Array `[N, height * width]`.
        image_shape: `(height, width)`.

    Returns:
        uint8 array `[grid height, grid width, 1]`; a line of the grid has an even number of images.
    """
    images = np.stack([left, right], axis=1).reshape(-1, left.shape[1])
    return tile_images(images, image_shape, columns=2 * math.ceil(math.sqrt(len(left) / 2)))


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two matrices of values in [-1, 1] side by side, in diverging colours.

    Args:
        left: Array `[D, D]`.
        right: Array `[D, D]`.

    Returns:
        uint8 array `[height, width, 3]`, in which an entry is a square of one or more pixels.
    """
    enlarge = max(1, math.ceil(200 / len(left)))
    left, right = (
        diverging(matrix).repeat(enlarge, axis=0).repeat(enlarge, axis=1)
        for matrix in (left, right)
    )
    gap = np.full((left.shape[0], 6, 3), 0.35)
    return _as_bytes(np.concatenate([left, gap, right], axis=1))


def means_beside(line: np.ndarray, points: np.ndarray, height: int = 160) -> np.ndarray:
    """Two series of means, one value of each for every unit, in one plot.

    The units are sorted by the first series, which is a line in orange that falls from left to
    right; the second is a blue point for each unit. Where both agree the points lie on the line.

    Args:
        line: Array `[D]`.
        points: Array `[D]`.
        height: Height in pixels.

    Returns:
        uint8 array `[height, width, 3]`. The lower edge stands for 0 and the upper one for 1, or
        for the least and the largest finite value where these are beyond. NaN is drawn as 0,
        infinity at the edge.
    """
    both = np.array([line, points], float)
    both[np.isnan(both)] = 0.0
    # So that the difference of two is finite.
    finite = both[np.abs(both) < 1e300]
    lowest, highest = finite.min(initial=0.0), finite.max(initial=1.0)
    line, points = np.clip(both, lowest, highest)
    order = np.argsort(-line, kind="stable")
    line, points = line[order], points[order]
    step = max(3, math.ceil(320 / len(line)))
    image = np.ones((height, len(line) * step, 3))
    image[:: max(1, (height - 1) // 4)] = 0.85

    def row(value):
        share = (highest - value) / (highest - lowest)
        return int(np.clip(round(share * (height - 1)), 1, height - 2))

    for unit, (first, second) in enumerate(zip(line, points, strict=True)):
        left = unit * step
        image[row(first) - 1 : row(first) + 1, left : left + step] = _ORANGE
        middle = left + step // 2
        image[row(second) - 1 : row(second) + 2, middle - 1 : middle + 2] = _BLUE
    return _as_bytes(image)


def _as_bytes(image):
    return (np.clip(image, 0.0, 1.0) * 255).round().astype(np.uint8)
