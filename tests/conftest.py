"""What all tests share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The tests run in parallel already: one thread for the work within an operation, here and in the
# processes that tests start.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# Small machines: to optimise what XLA compiles takes longer than it saves.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1",
)

import numpy as np
import pytest
import tensorflow as tf

# And one operation after the other in this process: where they run side by side, TensorFlow now
# and then gives another last bit, and comparisons bit for bit fail once in some hundred.
tf.config.threading.set_inter_op_parallelism_threads(1)


@pytest.fixture
def binary():
    """A function that draws binary data of a shape with a seed."""

    def draw(*shape, seed=0, probability=0.4):
        return (np.random.default_rng(seed).random(shape) < probability).astype(np.float32)

    return draw
