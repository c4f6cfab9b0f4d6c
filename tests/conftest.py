"""What all tests share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# One thread each: the tests run in parallel already, and with several threads TensorFlow
# rounds differently about once in 10,000 training steps, which the comparisons bit for bit
# would see.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy as np
import pytest


@pytest.fixture
def binary():
    """A function that draws binary data of a shape with a seed."""

    def draw(*shape, seed=0, probability=0.4):
        return (np.random.default_rng(seed).random(shape) < probability).astype(np.float32)

    return draw
