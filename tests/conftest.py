"""What all tests share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The tests run in parallel already: one thread for the work within an operation. Operations
# still run side by side, so that comparisons bit for bit see whether their order matters.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import numpy as np
import pytest


@pytest.fixture
def binary():
    """A function that draws binary data of a shape with a seed."""

    def draw(*shape, seed=0, probability=0.4):
        return (np.random.default_rng(seed).random(shape) < probability).astype(np.float32)

    return draw
