"""The peers' process: reads one JSON request a line, answers with one JSON line."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch

from benchmarks.peers.pyro_rws import Pyro
from benchmarks.peers.pytorch import PyTorch


def make(name: str, sizes: list[int], num_particles: int, **options):
    """The peer of that name: `pyro`, `torch` or `torch_compile`."""
    if name == "pyro":
        return Pyro(sizes, num_particles, **options)
    return PyTorch(sizes, num_particles, compiled=name == "torch_compile", **options)


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

    def start(self, name, weights, data, batch_size, optimizer, **options):
        """Makes a peer for `train`; it is compiled here, outside of the time that is taken."""
        if name != "pyro":
            options["optimizer"] = optimizer
        else:
            decay_steps = options.pop("decay_steps")
            if optimizer != "adam" or decay_steps is not None:
                raise ValueError("Pyro is measured with Adam at a constant rate only.")
        self.x, self.batch_size = torch.as_tensor(np.load(data)), batch_size
        arrays = dict(np.load(weights))
        self.trained = make(name, **options)
        self.trained.load(arrays)
        # A gradient, without an update.
        self.trained.gradients(self.x[:batch_size].float())

    def train(self, first, count):
        """Trains for some epochs; returns the seconds."""
        began = time.perf_counter()
        for epoch in range(first, first + count):
            order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(epoch))
            for rows in order.split(self.batch_size):
                self.trained.step(self.x[rows].float())
        return time.perf_counter() - began

    def save(self, to):
        """Writes the weights of what is trained."""
        np.savez(to, **self.trained.machine.weights())

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
