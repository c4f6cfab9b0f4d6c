"""Noise of the estimators' gradients against K, at machines that are trained further and further.

Only the particles are drawn anew: the minibatch stays the same. The signal is the norm of the mean
gradient, the noise the root of the sum of the variances of its components. The variances of
different estimators are those of gradients of different bounds; their ratios of signal to noise
can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from rws_keras import HelmholtzMachine, datasets
from rws_keras.objectives import IWAE, REINFORCE, VIMCO, DReG, Objective, ReweightedWakeSleep
from rws_keras.training import comparison as comparisons
from rws_keras.training.comparing import Results, chosen_rate

_RESULTS = Path("training") / "results" / "comparisons"
_PARTICLES = (2, 5, 10, 50, 100)
_DRAWS, _GROUPS = 100, 10
# Epochs after which it is measured.
_STAGES = (0, 1, 10)


def _wake(num_particles: int) -> ReweightedWakeSleep:
    return ReweightedWakeSleep(num_particles, sleep_q=False)


# Estimators for machines of one kind, which a method of the comparison of estimators trains.
_KINDS: tuple[tuple[str, dict[str, Callable[[int], Objective]]], ...] = (
    ("RWS", {"RWS (wake)": _wake, "VIMCO": VIMCO, "REINFORCE": REINFORCE}),
    ("IWAE", {"IWAE": IWAE, "DReG": DReG}),
)


def measure(report) -> dict:
    """Variance and signal-to-noise ratio of the gradients of P and of Q."""
    _, comparison = comparisons.load("estimators")
    data = datasets.load(comparison.recipe["dataset"])
    rows = []
    for method, estimators in _KINDS:
        rate = chosen_rate(comparison, method, Results(_RESULTS))
        if rate is None:
            raise ValueError(f"`rws-keras compare estimators` chooses {method}'s rate first.")
        recipe = next(a.recipe for a in comparison.arms(method, rate) if a.value == 5)
        machine = recipe.make_machine(data)
        x = tf.constant(data.train[: recipe.batch_size], tf.float32)
        functions = {
            (name, k): _gradients(machine, make(k))
            for name, make in estimators.items()
            for k in _PARTICLES
        }
        done = 0
        for epochs in _STAGES:
            if epochs > done:
                report(f"{method}: training to epoch {epochs}")
                minibatches = datasets.minibatches(data.train, recipe.batch_size, recipe.seed, done)
                machine.fit(
                    minibatches,
                    initial_epoch=done,
                    epochs=epochs,
                    steps_per_epoch=recipe.steps_per_epoch(len(data.train)),
                    verbose=0,
                )
                done = epochs
            for (name, k), draw in functions.items():
                found = noise([draw(x, seed) for seed in range(_DRAWS)], machine)
                rows.append({"estimator": name, "num_particles": k, "epoch": epochs, **found})
                report(f"{name}, K = {k}, epoch {epochs}: {shown_snr(found['q'])} (Q)")
    return {"batch_size": len(x), "draws": _DRAWS, "rows": rows}


def shown_snr(found: dict[str, float]) -> str:
    """A signal-to-noise ratio of `noise`; one below two standard errors as an upper limit."""
    square, error = found["snr_squared"], found["snr_squared_se"]
    if square > 2.0 * error:
        return f"{np.sqrt(square):.3f}"
    return f"< {np.sqrt(max(square, 0.0) + 2.0 * error):.3f}"


def _gradients(machine: HelmholtzMachine, objective: Objective):
    step = tf.function(lambda x, noise: objective.gradients(machine, x, noise)[0], jit_compile=True)
    return lambda x, seed: step(x, objective.noise(machine, len(x), seed))


def noise(draws: list[list[tf.Tensor]], machine: HelmholtzMachine) -> dict[str, dict[str, float]]:
    """Variance and signal-to-noise ratio of the gradients of P and of Q, from draws of them.

    Args:
        draws: Gradients in the order of the machine's trainable weights.
        machine: The machine.

    Returns:
        For `p` and `q` the `variance`, the square of the signal-to-noise ratio and its standard
        error by the jackknife over groups of the draws, `snr_squared` and `snr_squared_se`.
    """
    of_q = {id(variable) for variable in machine.q_variables}
    found = {}
    for stack in ("p", "q"):
        chosen = [
            index
            for index, variable in enumerate(machine.trainable_variables)
            if (id(variable) in of_q) == (stack == "q")
        ]
        flat = np.stack(
            [np.concatenate([np.ravel(draw[index]) for index in chosen]) for draw in draws]
        )
        groups = np.array_split(np.arange(len(flat)), _GROUPS)
        left_out = [snr_squared(np.delete(flat, group, axis=0)) for group in groups]
        found[stack] = {
            "variance": float(flat.var(axis=0, ddof=1, dtype=np.float64).sum()),
            "snr_squared": snr_squared(flat),
            "snr_squared_se": float(np.sqrt((_GROUPS - 1) * np.var(left_out))),
        }
    return found


def snr_squared(gradients: np.ndarray) -> float:
    """Squared norm of the mean over the summed variances, of draws `[M, parameters]`.

    It is unbiased in its numerator, so that it may be below zero where the signal is too weak to be
    seen in so many draws.
    """
    mean = gradients.mean(axis=0, dtype=np.float64)
    variance = gradients.var(axis=0, ddof=1, dtype=np.float64).sum()
    # The squared norm of a mean of M draws is too large by the variance over M.
    return float((mean @ mean - variance / len(gradients)) / variance)
