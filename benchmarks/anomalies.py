"""Likelihood as a score of how odd a row is: what it finds, and what it does not.

Machines are calibrated with validation rows. Usual rows are the test data; odd ones are test rows
that were changed, or rows of another kind. An alarm is a tail probability of at most 5 %.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from benchmarks.machines import fit_to_best
from rws_keras import HelmholtzMachine, datasets
from rws_keras.objectives import ReweightedWakeSleep

_ROWS = 1000
_NUM_PARTICLES = 100
_LEVEL = 0.05
_FLIPPED = 0.05


def measure(report: Callable) -> dict:
    """Areas under the curve and rates of alarms, by data and kind of odd rows."""
    random = np.random.default_rng(0)
    rows = []
    for name, preset, kinds in (
        ("digits", "digits-sbn-64-32", _of_images),
        ("binarized_mnist", "mnist-sbn-200-200-200", _of_images),
        ("mushrooms", "mushrooms-arsbn-50", _of_tables),
        ("dna", "dna-arsbn-50", _of_tables),
    ):
        report(f"{name}: {preset}")
        data = datasets.load(name)
        usual = data.test[:_ROWS]
        machine = HelmholtzMachine.from_preset(preset)
        machine.calibrate(data.validation[:_ROWS], _NUM_PARTICLES)
        rows += _rows(machine, name, preset, usual, kinds(usual, data, random))
    for digit in (0, 1, 8):
        report(f"digits without {digit}")
        rows += _held_out(digit)
    return {"num_particles": _NUM_PARTICLES, "level": _LEVEL, "flipped": _FLIPPED, "rows": rows}


def _of_images(x, data, random):
    height, width = data.image_shape
    images = x.reshape(-1, height, width)
    frequency = data.train.mean(axis=0)
    return {
        "rotated by 90 degrees": np.rot90(images, axes=(1, 2)).reshape(x.shape),
        "upside down": images[:, ::-1, ::-1].reshape(x.shape),
        **_of_tables(x, data, random),
        "pixels by their frequency": (random.random(x.shape) < frequency).astype(np.uint8),
        "smooth blobs": _blobs(x, height, width, random),
        "inverted": 1 - x,
        "blank": np.zeros((len(x), x.shape[1]), np.uint8),
    }


def _blobs(x, height, width, random):
    """Noise that is as smooth as pictures of clothes, with as many pixels on as the data have."""
    noise = random.normal(size=(len(x), height, width))
    smooth = gaussian_filter(noise, (0, height / 7, width / 7)).reshape(x.shape)
    return (smooth > np.quantile(smooth, 1.0 - x.mean())).astype(np.uint8)


def _of_tables(x, data, random):
    del data
    flipped = np.where(random.random(x.shape) < _FLIPPED, 1 - x, x)
    return {f"{_FLIPPED:.0%} of the cells flipped": flipped}


def _rows(machine, name, model, usual, kinds):
    calibration = machine.calibration
    scores = _scores(machine, usual)
    tail = calibration.tail_probability(scores).numpy()
    two_sided = calibration.two_sided_probability(scores).numpy()
    for kind, odd in kinds.items():
        odd_scores = _scores(machine, odd)
        odd_tail = calibration.tail_probability(odd_scores).numpy()
        odd_two_sided = calibration.two_sided_probability(odd_scores).numpy()
        is_odd = np.repeat([0, 1], [len(usual), len(odd)])
        yield {
            "dataset": name,
            "model": model,
            "odd": kind,
            "auroc": float(roc_auc_score(is_odd, -np.concatenate([scores, odd_scores]))),
            "auroc_two_sided": float(
                roc_auc_score(is_odd, -np.concatenate([two_sided, odd_two_sided]))
            ),
            "false_alarms": float(np.mean(tail <= _LEVEL)),
            "alarms": float(np.mean(odd_tail <= _LEVEL)),
            "alarms_two_sided": float(np.mean(odd_two_sided <= _LEVEL)),
            "usual": float(scores.mean()),
            "odd_mean": float(odd_scores.mean()),
        }


def _scores(machine, x):
    return machine.predict(x, num_particles=_NUM_PARTICLES, seed=1, verbose=0)


def _held_out(digit: int):
    """A machine that was trained without one of the ten digits."""
    images, labels = load_digits(return_X_y=True)
    x = (images > 7.5).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(x))
    x, labels = x[order], labels[order]
    others, held_out = x[labels != digit], x[labels == digit]
    train, validation, test = np.split(others, [1000, 1300])
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(64, [64, 32], seed=0)
    machine.compile(keras.optimizers.Adam(3e-3), ReweightedWakeSleep(10), num_particles=50)
    fit_to_best(machine, train, validation, batch_size=50)
    machine.calibrate(validation, _NUM_PARTICLES)
    kinds = {f"the digit {digit}": held_out}
    return _rows(machine, "digits", f"trained without {digit}", test, kinds)
