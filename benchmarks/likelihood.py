"""Estimating likelihoods: particles per second and peak memory as K grows."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import tensorflow as tf

from benchmarks.machines import REFERENCE, data, make

_DATA = 25


def measure(report) -> dict:
    """Each K in a process of its own, for the memory; several turns, for the speed."""
    rows = []
    for num_particles in (100, 1000, 10_000, 100_000):
        report(f"K = {num_particles:,}")
        output = subprocess.run(
            [sys.executable, "-m", "benchmarks.likelihood", str(num_particles)],
            cwd=Path(__file__).parents[1],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        rows.append(json.loads(output.splitlines()[-1]))
    fewer, many = rows[1]["particles_per_second"], rows[-1]["particles_per_second"]
    return {"rows": rows, "k100000_over_k1000": many / fewer}


def _memory(entry: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/self/status has no {entry}; memory is measured on Linux only.")


def _measure_one(num_particles: int) -> dict:
    machine, x = make(REFERENCE), tf.constant(data(_DATA))
    # Tracing, and the buffers of one chunk at most.
    machine.log_likelihood(x, 2, seed=0)
    baseline = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    turns, repeat, rates = 5, max(1, 20_000 // num_particles), []
    for seed in range(turns):
        began = time.perf_counter()
        for _ in range(repeat):
            machine.log_likelihood(x, num_particles, seed=seed)[0].numpy()
        rates.append(repeat * num_particles * _DATA / (time.perf_counter() - began))
    rates.sort()
    return {
        "num_particles": num_particles,
        "data": _DATA,
        "particles_per_second": rates[turns // 2],
        "particles_per_second_range": [rates[0], rates[-1]],
        "mib_over_baseline": _memory("VmHWM") - baseline,
    }


if __name__ == "__main__":
    print(json.dumps(_measure_one(int(sys.argv[1]))))
