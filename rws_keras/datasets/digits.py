"""Scikit-learn's 8x8 digits, binarised: the data set that needs no network."""

from __future__ import annotations

import numpy as np

from rws_keras.datasets.data import BinaryData

_SPLIT_SEED = 0


def load_digits() -> BinaryData:
    """Loads the 1,797 images of 8x8 pixels that ship with scikit-learn.

    A pixel is on where its grey level, 0 to 16, is at least 8. The images are shuffled
    once with a fixed seed and split into 1,197 / 300 / 300.

    Returns:
        The `BinaryData`, 64 pixels a row.
    """
    from sklearn.datasets import load_digits as load_grey_levels

    images = (load_grey_levels().data >= 8).astype(np.uint8)
    images = images[np.random.default_rng(_SPLIT_SEED).permutation(len(images))]
    return BinaryData("digits", images[:1197], images[1197:1497], images[1497:], (8, 8))
