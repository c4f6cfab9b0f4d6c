"""The peers' process: reads one JSON request a line, answers with one JSON line."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch

from benchmarks.peers.pyro_rws import Pyro
from benchmarks.peers.pytorch import PyTorch


def make(name: str, sizes: list[int], num_particles: int):
    """The peer of that name: `pyro`, `torch` or `torch_compile`."""
    if name == "pyro":
        return Pyro(sizes, num_particles)
    return PyTorch(sizes, num_particles, compiled=name == "torch_compile")


class Worker:
    """Keeps the peers between requests."""

    def __init__(self):
        self.peers = {}

    def prepare(self, name, sizes, num_particles, batch_size, warm_up):
        """Makes a peer and takes its first steps."""
        noise = np.random.default_rng(0).random((batch_size, sizes[0]))
        peer = make(name, sizes, num_particles)
        x = torch.as_tensor((noise < 0.2).astype(np.float32))
        self.peers[name] = lambda: peer.step(x)
        self.time(name, warm_up)

    def time(self, name, steps):
        """Seconds of each of so many steps."""
        seconds = []
        for _ in range(steps):
            began = time.perf_counter()
            self.peers[name]()
            seconds.append(time.perf_counter() - began)
        return seconds

    def gradients(self, name, sizes, num_particles, repetitions, weights, to):
        """Writes mean and standard error of the gradients; `weights` has the data too."""
        arrays = dict(np.load(weights))
        x = torch.as_tensor(arrays.pop("x"))
        peer = make(name, sizes, num_particles)
        peer.load(arrays)
        draws = [peer.gradients(x) for _ in range(repetitions)]
        written = {}
        for key in draws[0]:
            values = np.stack([draw[key] for draw in draws]).astype(np.float64)
            written[f"{key}/mean"] = values.mean(axis=0)
            written[f"{key}/error"] = values.std(axis=0, ddof=1) / np.sqrt(repetitions)
        np.savez(to, **written)

    def versions(self):
        """Versions of what is measured."""
        import pyro

        return {"torch": torch.__version__, "pyro-ppl": pyro.__version__}


def main() -> None:
    """Answers requests until the input ends."""
    # What a library prints must not mix with the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.manual_seed(0)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(worker, request.pop("do"))(**request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
