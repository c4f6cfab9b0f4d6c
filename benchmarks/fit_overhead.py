"""`fit` against the bare step: what Keras, the data pipeline and the metrics cost."""

from __future__ import annotations

import itertools
import time

import keras

from benchmarks.machines import REFERENCE, bare_step, data, make
from rws_keras.datasets import minibatches
from rws_keras.training.timing import alternate, ratio, summary, timer

_STEPS = 500  # an epoch of binarized MNIST


def measure(report) -> dict:
    """Epochs of `fit` and as many bare steps, in turn."""
    report("fit and bare steps")
    machine, bare = make(REFERENCE), make(REFERENCE)
    dataset = minibatches(data(50_000), REFERENCE.batch_size, seed=0)

    def fit(epochs):
        began = time.perf_counter()
        marks = [began]
        machine.fit(
            dataset,
            steps_per_epoch=_STEPS,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[_Marks(marks)],
        )
        return [(end - begin) / _STEPS for begin, end in itertools.pairwise(marks)]

    step = timer(bare_step(bare, REFERENCE.batch_size))

    def steps(epochs):
        return [sum(step(_STEPS)) / _STEPS for _ in range(epochs)]

    times = alternate({"fit": fit, "bare": steps}, rounds=9, steps=1, warm_up=1)
    return {
        "case": REFERENCE.name,
        "fit": summary(times["fit"]),
        "bare": summary(times["bare"]),
        **ratio(times["fit"], times["bare"]),
    }


class _Marks(keras.callbacks.Callback):
    """Notes when each epoch ends."""

    def __init__(self, marks):
        super().__init__()
        self.marks = marks

    def on_epoch_end(self, epoch, logs=None):
        self.marks.append(time.perf_counter())
