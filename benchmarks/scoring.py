"""Scoring rows by trained machines of each family: rows per second."""

from __future__ import annotations

from collections.abc import Callable

from rws_keras import HelmholtzMachine, datasets
from rws_keras.training.timing import alternate, summary, timer

_PRESETS = (
    "mnist-sbn-200-200-200",
    "mnist-arsbn-200",
    "mnist-arsbn-300-200-100",
    "mnist-nade-100",
)
_ROWS, _NUM_PARTICLES = 100, 100


def measure(report: Callable) -> dict:
    """Rows of binarized MNIST that `predict` scores per second, by preset, timed in turns."""
    x = datasets.load("binarized_mnist").test[:_ROWS]

    def subject(name):
        report(name)
        machine = HelmholtzMachine.from_preset(name)
        return timer(
            lambda: machine.predict(
                x, batch_size=_ROWS, num_particles=_NUM_PARTICLES, seed=0, verbose=0
            )
        )

    times = alternate({name: subject(name) for name in _PRESETS}, rounds=5, steps=3, warm_up=1)
    found = {name: summary(seconds) for name, seconds in times.items()}
    return {
        "rows_scored": _ROWS,
        "num_particles": _NUM_PARTICLES,
        "rows": [
            {"preset": name, **row, "rows_per_second": _ROWS / row["ms"] * 1e3}
            for name, row in found.items()
        ],
    }
