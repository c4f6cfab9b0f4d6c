"""Multiple imputation on bars, of which everything is known: do intervals cover the truth?

30 % of the cells of a sample of bars and stripes are removed, completed several times, and of each
completed sample it is computed how often two units are on together. Rubin's rules join these to an
estimate with an interval. The truth is exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import keras
import numpy as np
from scipy import stats

from benchmarks.machines import fit_to_best
from rws_keras import HelmholtzMachine, datasets
from rws_keras.objectives import ReweightedWakeSleep

_SIDE, _SHARE = 4, 0.3
_ROWS, _SAMPLES, _COMPLETIONS = 300, 40, 20
_LEVEL = 0.95


def measure(report: Callable) -> dict:
    """Coverage of 95 % intervals for all pairs of units, by method."""
    pairs = np.array(list(itertools.combinations(range(_SIDE**2), 2)))
    truth = _exact_pairs()[pairs[:, 0], pairs[:, 1]]
    random = np.random.default_rng(1)

    def sample(rows):
        lines = random.integers(0, 2, (rows, _SIDE, 1))
        images = np.broadcast_to(lines, (rows, _SIDE, _SIDE))
        upright = random.integers(0, 2, (rows, 1, 1), dtype=bool)
        x = np.where(upright, images.transpose(0, 2, 1), images).reshape(rows, -1)
        return x.astype(np.float32)

    def holed(x):
        return np.where(random.random(x.shape) < _SHARE, np.nan, x)

    data = datasets.load("bars")
    report("training on bars with gaps")
    train, validation = holed(data.train.astype(np.float32)), holed(data.validation.astype("f4"))
    machine = _machine(train, validation)
    means = np.nanmean(train, axis=0)
    covered: dict[str, list] = {"machine": [], "each column by itself": [], "no gaps": []}
    widths: dict[str, list] = {name: [] for name in covered}
    for number in range(_SAMPLES):
        whole = sample(_ROWS)
        gappy = holed(whole)
        drawn = machine.impute(gappy, _COMPLETIONS, num_particles=500, seed=number).completions
        alone = [
            np.where(np.isnan(gappy), random.random(gappy.shape) < means, gappy)
            for _ in range(_COMPLETIONS)
        ]
        completed = {
            "machine": drawn.numpy(),
            "each column by itself": np.stack(alone),
            "no gaps": whole[None],
        }
        for name, samples in completed.items():
            low, high = _interval(samples[..., pairs[:, 0]] * samples[..., pairs[:, 1]])
            covered[name].append((low <= truth) & (truth <= high))
            widths[name].append(np.mean(high - low))
    rows = [
        {
            "method": name,
            "coverage": float(np.mean(found)),
            # Pairs of a sample depend on each other, samples do not.
            "coverage_se": float(np.std(np.mean(found, axis=1), ddof=1) / np.sqrt(_SAMPLES)),
            "width": float(np.mean(widths[name])),
        }
        for name, found in covered.items()
    ]
    about = {"rows_of_a_sample": _ROWS, "samples": _SAMPLES, "completions": _COMPLETIONS}
    return {**about, "share": _SHARE, "level": _LEVEL, "pairs": len(pairs), "methods": rows}


def _exact_pairs():
    """The probability `[D, D]` that two units are on together."""
    found = np.zeros((_SIDE**2, _SIDE**2))
    for lines in itertools.product([0.0, 1.0], repeat=_SIDE):
        image = np.tile(np.array(lines)[:, None], _SIDE)
        for each in (image.ravel(), image.T.ravel()):
            found += np.outer(each, each) / 2.0 / 2.0**_SIDE
    return found


def _interval(both_on: np.ndarray):
    """Interval of a share from completions `[C, N, pairs]`, by Rubin's rules."""
    shares = both_on.mean(axis=1)
    estimate = shares.mean(axis=0)
    within = np.mean(shares * (1.0 - shares), axis=0) / both_on.shape[1]
    count = len(shares)
    between = shares.var(axis=0, ddof=1) if count > 1 else np.zeros_like(estimate)
    total = within + (1.0 + 1.0 / count) * between
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = (count - 1) * np.square(1.0 + within / ((1.0 + 1.0 / count) * between))
    quantile = stats.t.ppf(0.5 + _LEVEL / 2.0, np.minimum(freedom, 1e6)) if count > 1 else 1.96
    half = quantile * np.sqrt(total)
    return estimate - half, estimate + half


def _machine(train, validation) -> HelmholtzMachine:
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(_SIDE**2, [16, 8], missing="marginalize", seed=0)
    machine.compile(keras.optimizers.Adam(5e-3), ReweightedWakeSleep(20), num_particles=50)
    fit_to_best(machine, train, validation, epochs=100)
    return machine
