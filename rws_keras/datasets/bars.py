"""Synthetic bars and stripes with its exact entropy."""

from __future__ import annotations

import math

import numpy as np

from rws_keras.datasets.data import BinaryData

_SEED = 0


def load_bars(size: int = 4, num_train: int = 10_000, num_test: int = 2_000) -> BinaryData:
    """Draws bars and stripes: rows or columns of a square that are on or off together.

    A fair coin decides between rows and columns, another for each of them whether it is
    on. Of the `2^size` patterns of each orientation all-on and all-off belong to both,
    so they have probability `2^-size`, the other `2 (2^size - 2)` half of that.

    Args:
        size: Side of the square.
        num_train: Number of training images.
        num_test: Number of validation images, and of test images.

    Returns:
        The `BinaryData` with its `entropy`.

    Reference:
        - [MacKay, 2003, chapter 43](https://www.inference.org.uk/mackay/itila/)
    """
    random = np.random.default_rng(_SEED)

    def draw(count):
        lines = random.integers(0, 2, (count, size, 1), dtype=np.uint8)
        images = np.broadcast_to(lines, (count, size, size))
        upright = random.integers(0, 2, (count, 1, 1), dtype=bool)
        return np.where(upright, images.transpose(0, 2, 1), images).reshape(count, -1)

    log_patterns = size * math.log(2)
    both = 2 * 2.0**-size
    entropy = both * log_patterns + (1 - both) * (log_patterns + math.log(2))
    return BinaryData(
        "bars", draw(num_train), draw(num_test), draw(num_test), (size, size), entropy
    )
