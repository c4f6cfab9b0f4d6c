"""Families of the visible layer on tables, beside classical models: what `fit FILE` should take.

Each machine is the one that `rws-keras fit FILE` makes, with another family of the visible layer
alone and a shorter training. Odd rows are test rows some of whose cells were flipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.machines import fit_to_best
from rws_keras import HelmholtzMachine, datasets
from rws_keras.baselines import ChowLiuTree, IndependentUnits
from rws_keras.training import recipe as recipes

_SETS = (
    *("nltcs", "plants", "baudio", "jester", "bnetflix"),
    *("accidents", "pumsb_star", "dna", "mushrooms", "nips"),
)
_FAMILIES = {"SBN": "sbn", "DSBN": "dsbn", "AR-SBN": "arsbn", "MADE": "made", "NADE": "nade"}
# A step of NADE takes a time that grows with the square of the units.
_MOST_UNITS = {"NADE": 70}
_EPOCHS, _PATIENCE = 100, 5
# For time; all models have the same rows.
_TRAIN_ROWS, _VALIDATION_ROWS, _TEST_ROWS = 4000, 500, 1000
_VALIDATION_PARTICLES, _NUM_PARTICLES = 20, 200
_FLIPPED = 0.05


def measure(report: Callable) -> dict:
    """Test log-likelihoods, and areas under the curve for odd rows, by data set and model."""
    rows = []
    for name in _SETS:
        data = datasets.load(name)
        data = data._replace(
            train=data.train[:_TRAIN_ROWS],
            validation=data.validation[:_VALIDATION_ROWS],
            test=data.test[:_TEST_ROWS],
        )
        usual = data.test
        flips = np.random.default_rng(0).random(usual.shape) < _FLIPPED
        flipped = np.where(flips, 1 - usual, usual)
        odd = flipped[flips.any(axis=1)]
        is_odd = np.repeat([0, 1], [len(usual), len(odd)])
        for model, score in _models(name, data):
            report(f"{name}: {model}")
            found = score(data.test)
            scores = np.concatenate([found, score(odd)])
            rows.append(
                {
                    "dataset": name,
                    "model": model,
                    "log_likelihood": float(found.mean()),
                    "log_likelihood_se": float(found.std(ddof=1) / np.sqrt(len(found))),
                    "auroc": float(roc_auc_score(is_odd, -scores)),
                }
            )
    return {
        "most_train_rows": _TRAIN_ROWS,
        "most_test_rows": _TEST_ROWS,
        "epochs": _EPOCHS,
        "patience": _PATIENCE,
        "num_particles": _NUM_PARTICLES,
        "flipped": _FLIPPED,
        "most_units": _MOST_UNITS,
        "rows": rows,
    }


def _models(name, data) -> Iterator[tuple[str, Callable]]:
    """The models, and their functions from rows to log-likelihoods in nats, as float64."""
    yield "independent units", IndependentUnits(data.train).log_likelihood
    yield "Chow-Liu tree", ChowLiuTree(data.train).log_likelihood
    for title, family in _FAMILIES.items():
        if data.train.shape[1] > _MOST_UNITS.get(title, np.inf):
            continue
        machine = _trained(name, data, family)

        def score(x, machine=machine):
            found = machine.predict(x, num_particles=_NUM_PARTICLES, seed=0, verbose=0)
            return found.astype(np.float64)

        yield title, score


def _trained(name: str, data: datasets.BinaryData, family: str) -> HelmholtzMachine:
    _, recipe = recipes.for_data(name)
    changes = {
        "model": recipe.model.model_copy(update={"p": family}),
        "evaluation": recipe.evaluation.model_copy(
            update={"validation_particles": _VALIDATION_PARTICLES}
        ),
    }
    recipe = recipe.model_copy(update=changes)
    machine = recipe.make_machine(data)
    fit_to_best(machine, data.train, data.validation, recipe.batch_size, _EPOCHS, _PATIENCE)
    return machine
