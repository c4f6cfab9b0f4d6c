"""Published figures of SBN 200-200-200 on binarized MNIST, with the protocols they are from."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report.page import table
from rws_keras.files import read_json

_FILE = Path(__file__).with_name("neighbours.json")


def neighbours_table() -> str:
    """A row for each published method, a column for each number of particles."""
    found = read_json(_FILE)
    rows = [
        [
            row["method"],
            *("" if nll is None else str(nll) for nll in row["nll"]),
            row["protocol"],
            row["source"],
        ]
        for row in found["rows"]
    ]
    particles = [f"K = {k}" for k in found["particles"]]
    return table(["method", *particles, "protocol", "source"], rows)
