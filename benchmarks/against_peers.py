"""The same work in Pyro and in plain PyTorch, in turn with ours.

Run after `make bench`, which installs the peers in an environment of their own; they work in a
process of that environment, one turn at a time.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks.machines import REFERENCE, SBN3, VISIBLE, Case, bare_step, make
from rws_keras import HelmholtzMachine
from rws_keras.objectives import ReweightedWakeSleep
from rws_keras.training.timing import alternate, ratio, summary, timer

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-benchmarks" / "bin" / "python"
PEERS = ("torch", "torch_compile", "pyro")


class PeerProcess:
    """The peers' process: a request a line, an answer a line."""

    def __init__(self):
        if not PYTHON.exists():
            raise ValueError(f"The peers are not installed: {PYTHON} is missing. Run `make bench`.")
        self._process = subprocess.Popen(
            [PYTHON, "-m", "benchmarks.peers"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, **arguments):
        """One request."""
        print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The peers' process ended while it was to {do}.")
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait(timeout=60)


def measure(report) -> dict:
    """Times and gradients."""
    process = PeerProcess()
    try:
        found = {"versions": process.ask("versions")}
        found |= _times(process, report)
        report("expected gradients")
        found["gradients"] = [
            _gradients(process, "torch", 4, sleep=True),
            _gradients(process, "torch_compile", 4, sleep=True),
            _gradients(process, "pyro", 1, sleep=False),
            _gradients(process, "pyro", 4, sleep=False),
        ]
        return found
    finally:
        process.close()


def _times(process, report):
    rows = []
    for case in (REFERENCE, Case("sbn", (200,)), Case("sbn", SBN3, 50)):
        report(case.name)
        subjects = {
            "ours": timer(bare_step(make(case), case.batch_size)),
            # What Pyro does.
            "ours_awake": timer(bare_step(make(case, sleep_q=False), case.batch_size)),
        }
        for name in PEERS:
            process.ask(
                "prepare",
                name=name,
                sizes=[VISIBLE, *case.latents],
                num_particles=case.num_particles,
                batch_size=case.batch_size,
                warm_up=5,
            )
            subjects[name] = lambda steps, name=name: process.ask("time", name=name, steps=steps)
        times = alternate(subjects, rounds=15, steps=20 if case.num_particles < 50 else 5)
        rows.append(
            {
                "case": case.name,
                **{name: summary(seconds) for name, seconds in times.items()},
                **{f"{name}_over_ours": ratio(times[name], times["ours"]) for name in PEERS},
                "pyro_over_ours_awake": ratio(times["pyro"], times["ours_awake"]),
                "ours_awake_over_ours": ratio(times["ours_awake"], times["ours"]),
            }
        )
    return {"times": rows}


def _gradients(process, name, batch_size, sleep, repetitions=400):
    """Compares means over many draws of a small machine's gradients, in standard errors.

    At these 400 repetitions |t| > 6 has probability 4e-9 in each of the 175 components.
    """
    sizes, num_particles = [10, 7, 5], 4
    machine = HelmholtzMachine.from_sizes(sizes[0], sizes[1:])
    random = np.random.default_rng(0)
    for variable in machine.trainable_variables:
        variable.assign(random.normal(0.0, 0.7, variable.shape))
    x = (random.random((batch_size, sizes[0])) < 0.4).astype(np.float32)
    objective = ReweightedWakeSleep(num_particles, sleep_q=sleep)
    step = tf.function(
        lambda noise: objective.gradients(machine, tf.constant(x), noise)[0], jit_compile=True
    )
    draws = [step(objective.noise(machine, batch_size, seed)) for seed in range(repetitions)]
    values = [
        np.stack([np.asarray(draw[i], np.float64) for draw in draws]) for i in range(len(draws[0]))
    ]
    names = {id(v): name for name, v in named(machine)}
    ours = {
        names[id(v)]: value for v, value in zip(machine.trainable_variables, values, strict=True)
    }
    with tempfile.TemporaryDirectory() as directory:
        weights, out = Path(directory) / "weights.npz", Path(directory) / "gradients.npz"
        np.savez(weights, x=x, **{name: v.numpy() for name, v in named(machine)})
        process.ask(
            "gradients",
            name=name,
            sizes=sizes,
            num_particles=num_particles,
            repetitions=repetitions,
            weights=str(weights),
            to=str(out),
        )
        theirs = dict(np.load(out))
    worst = 0.0
    for key, value in ours.items():
        error = np.hypot(value.std(axis=0, ddof=1) / np.sqrt(repetitions), theirs[f"{key}/error"])
        t = (value.mean(axis=0) - theirs[f"{key}/mean"]) / np.maximum(error, 1e-7)
        worst = max(worst, float(np.abs(t).max()))
    return {
        "peer": name,
        "data": batch_size,
        "updates": "wake P, wake Q, sleep Q" if sleep else "wake P, wake Q",
        "largest_t": worst,
        "same": worst < 6.0,
    }


def named(machine: HelmholtzMachine) -> Iterator[tuple[str, keras.Variable]]:
    """The weights, under the names that the peers have for them."""
    for index, layer in enumerate(machine.p_layers[:-1]):
        yield from ((f"p{index}.{v.name}", v) for v in layer.variables)
    yield "prior.bias", machine.p_layers[-1].bias
    for index, layer in enumerate(machine.q_layers):
        yield from ((f"q{index}.{v.name}", v) for v in layer.variables)
