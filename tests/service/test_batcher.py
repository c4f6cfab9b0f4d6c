"""Batches of rows of different requests: whose rows are together, and in which order."""

import asyncio
import threading

import numpy as np
import pytest

from rws_keras.serving import batcher as batching
from rws_keras.serving.batcher import Batcher
from rws_keras.serving.metrics import Metrics


class Double:
    """Twice its input; negative values are a fault. The first call waits to be let go."""

    def __init__(self, row_seconds=0.0):
        self.row_seconds = row_seconds
        self.batches = []
        self.let_go = threading.Event()

    def __call__(self, inputs):
        self.batches.append(inputs["x"].tolist())
        if len(self.batches) == 1:
            self.let_go.wait(30)
        if (inputs["x"] < 0).any():
            raise ValueError(f"{inputs['x'].min()} is negative.")
        return {"y": 2 * inputs["x"]}


def compute(signature, requests, max_batch_size=4, cancelled=()):
    """Results of requests that come while a first one, of 0, is computed."""

    async def run():
        batcher = Batcher(max_batch_size, 1, Metrics())
        futures = [batcher.compute(signature, {"x": np.array([0])})]
        while not signature.batches:
            await asyncio.sleep(0.01)
        futures += [batcher.compute(signature, {"x": np.array(x, int)}) for x in requests]
        for index in cancelled:
            futures[1 + index].cancel()
        signature.let_go.set()
        found = await asyncio.gather(*futures, return_exceptions=True)
        batcher.close()
        return [
            each if isinstance(each, BaseException) else each["y"].tolist() for each in found[1:]
        ]

    return asyncio.run(run())


def test_rows_of_requests_are_computed_together():
    signature = Double()
    assert compute(signature, [[1], [2, 3], []]) == [[2], [4, 6], []]
    assert signature.batches == [[0], [1, 2, 3]]


def test_small_requests_have_their_turn_between_parts_of_large_ones():
    signature = Double()
    large = list(range(10, 20))
    assert compute(signature, [large, [1], [2]]) == [[2 * x for x in large], [2], [4]]
    assert signature.batches == [[0], large[:4], [1, 2, 14, 15], large[6:]]


def test_rows_that_take_long_are_computed_few_at_a_time():
    signature = Double(row_seconds=batching.BATCH_SECONDS / 2)
    assert compute(signature, [[1, 2, 3, 4, 5]]) == [[2, 4, 6, 8, 10]]
    assert signature.batches == [[0], [1, 2], [3, 4], [5]]


def test_a_fault_concerns_its_request_alone():
    signature = Double()
    found = compute(signature, [[1], [-2], [3]])
    assert (found[0], found[2]) == ([2], [6])
    with pytest.raises(ValueError, match="-2 is negative"):
        raise found[1]


def test_what_is_cancelled_is_not_computed():
    signature = Double()
    found = compute(signature, [[1], list(range(10, 20)), [3]], cancelled=[1])
    assert (found[0], found[2]) == ([2], [6])
    assert signature.batches == [[0], [1, 3]]


class Constant(Double):
    """Gives the same output however many rows there are."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def __call__(self, inputs):
        super().__call__(inputs)
        return {"y": np.array(self.output)}


@pytest.mark.parametrize("output", [7, [7] * 5])
def test_outputs_without_a_row_for_each_input_are_refused_in_parts(output):
    """A request that is computed as a whole gets what the model gives."""
    large, small = compute(Constant(output), [list(range(10)), [1]])
    assert isinstance(large, ValueError)
    assert "row for each row" in str(large)
    assert small == output
