"""Missing cells: how well they are predicted from the others, beside classical methods.

30 % of the cells of the training, validation and test data are removed, one by one or in blocks;
all methods are fitted to what is left. What was removed from the test data is then predicted.
Methods that give a number instead of a probability are read as if it were one, within bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import numpy as np
import sklearn.experimental.enable_iterative_imputer  # noqa: F401  (makes it importable)
from sklearn.impute import IterativeImputer, KNNImputer

from benchmarks.machines import fit_to_best
from rws_keras import HelmholtzMachine, datasets
from rws_keras.baselines import ChowLiuTree, IndependentUnits
from rws_keras.objectives import ReweightedWakeSleep

_SETS = ("nltcs", "plants", "digits")
_SHARE = 0.3
_TRAIN_ROWS, _TEST_ROWS = 4000, 1000
_NEIGHBOURS = 20
# Of what is no probability.
_LEAST = 0.01
_NUM_PARTICLES = 1000


def measure(report: Callable) -> dict:
    """Log-probability and accuracy of removed cells, by data set, pattern and method."""
    rows = []
    for name in _SETS:
        for pattern, remove in _PATTERNS.items():
            data = datasets.load(name)
            random = np.random.default_rng(0)
            parts = [
                part.astype(np.float32)
                for part in (data.train[:_TRAIN_ROWS], data.validation[:_TEST_ROWS], data.test)
            ]
            train, validation, holed = (remove(part, data.image_shape, random) for part in parts)
            truth, holed = parts[2][:_TEST_ROWS], holed[:_TEST_ROWS]
            for method, predicted, joint in _methods(train, validation, holed, truth):
                report(f"{name}, {pattern}: {method}")
                cells = np.isnan(holed)
                p, value = predicted[cells].astype(np.float64), truth[cells]
                log_p = np.log(np.where(value == 1.0, p, 1.0 - p))
                # Cells of a row depend on each other: the error is that of means of rows.
                rows.append(
                    {
                        "dataset": name,
                        "pattern": pattern,
                        "method": method,
                        "cells": int(cells.sum()),
                        "log_prob": _mean_over_rows(log_p, cells),
                        "accuracy": _mean_over_rows((p > 0.5) == (value == 1.0), cells),
                        "joint": None if joint is None else _mean(joint),
                    }
                )
    return {
        "share": _SHARE,
        "most_train_rows": _TRAIN_ROWS,
        "num_particles": _NUM_PARTICLES,
        "rows": rows,
    }


def _mean(values):
    values = np.asarray(values, np.float64)
    return {"mean": float(values.mean()), "se": float(values.std(ddof=1) / np.sqrt(len(values)))}


def _mean_over_rows(values, cells):
    """Mean over cells, with the standard error of a ratio of sums over rows."""
    total, count = np.zeros(len(cells)), cells.sum(axis=1)
    np.add.at(total, np.nonzero(cells)[0], values)
    mean = total.sum() / count.sum()
    error = np.sqrt(np.square(total - mean * count).sum()) / count.sum()
    return {"mean": float(mean), "se": float(error)}


def _one_by_one(x, image_shape, random):
    del image_shape
    return np.where(random.random(x.shape) < _SHARE, np.nan, x)


def _in_blocks(x, image_shape, random):
    """A run of columns of each row, or a rectangle of each image."""
    holes = np.zeros(x.shape, bool)
    if image_shape is None:
        width = round(_SHARE * x.shape[1])
        start = random.integers(0, x.shape[1], len(x))
        columns = (start[:, None] + np.arange(width)) % x.shape[1]
        np.put_along_axis(holes, columns, True, axis=1)
    else:
        height, width = image_shape
        side = round(np.sqrt(_SHARE) * height), round(np.sqrt(_SHARE) * width)
        images = holes.reshape(len(x), height, width)
        top = random.integers(0, height - side[0] + 1, len(x))
        left = random.integers(0, width - side[1] + 1, len(x))
        for image, y, z in zip(images, top, left, strict=True):
            image[y : y + side[0], z : z + side[1]] = True
    return np.where(holes, np.nan, x)


_PATTERNS = {"one by one": _one_by_one, "in blocks": _in_blocks}


def _methods(train, validation, holed, truth) -> Iterator[tuple[str, np.ndarray, object]]:
    """Probabilities `[N, D]` of the removed cells, and `log p(x_missing | x_observed)`."""
    for name, baseline in (("independent units", IndependentUnits), ("Chow-Liu tree", ChowLiuTree)):
        fitted = baseline(train)
        joint = fitted.log_likelihood(truth) - fitted.log_likelihood(holed)
        yield name, fitted.conditional(holed), joint
    # A column that is always empty would be dropped; none is.
    neighbours = KNNImputer(n_neighbors=_NEIGHBOURS, keep_empty_features=True).fit(train)
    shares = neighbours.transform(holed)
    yield "k nearest neighbours", (_NEIGHBOURS * shares + 1) / (_NEIGHBOURS + 2), None
    imputer = IterativeImputer(random_state=0, keep_empty_features=True).fit(train)
    yield "IterativeImputer", np.clip(imputer.transform(holed), _LEAST, 1 - _LEAST), None
    for visible in ("sbn", "arsbn"):
        machine = _machine(visible, train, validation)
        imputed = machine.impute(holed, num_particles=_NUM_PARTICLES, seed=0)
        joint = (
            machine.predict(truth, num_particles=_NUM_PARTICLES, verbose=0)
            - imputed.likelihood.log_likelihood.numpy()
        )
        # A share of the particles is a probability of zero now and then.
        mean = np.clip(imputed.mean.numpy(), 1.0 / _NUM_PARTICLES, 1.0 - 1.0 / _NUM_PARTICLES)
        yield f"rws_keras, {visible.upper().replace('AR', 'AR-')}", mean, joint


def _machine(visible: str, train: np.ndarray, validation: np.ndarray) -> HelmholtzMachine:
    keras.utils.set_random_seed(0)
    units = train.shape[1]
    machine = HelmholtzMachine.from_sizes(
        units, [units, units // 2], p=[visible, "sbn"], prior="sbn", missing="marginalize", seed=0
    )
    machine.compile(keras.optimizers.Adam(3e-3), ReweightedWakeSleep(10), num_particles=50)
    fit_to_best(machine, train, validation, epochs=50, patience=5)
    return machine
