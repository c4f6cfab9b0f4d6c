"""The machines and the data that are measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from rws_keras import HelmholtzMachine
from rws_keras.objectives import ReweightedWakeSleep

VISIBLE = 784


class Case(NamedTuple):
    """What one training step is made of."""

    family: str | dict
    latents: tuple[int, ...]
    num_particles: int = 5
    batch_size: int = 100

    @property
    def name(self) -> str:
        """As in the tables."""
        family = self.family
        if isinstance(family, dict):
            family = f"{family['family']} (hidden {family['hidden_units']})"
        latents = "-".join(map(str, self.latents))
        return f"{family} {latents}, K = {self.num_particles}, batch {self.batch_size}"


SBN3 = (200, 200, 200)
REFERENCE = Case("sbn", SBN3)
NADE = {"family": "nade", "hidden_units": 250}


def make(case: Case, sleep_q: bool = True) -> HelmholtzMachine:
    """The machine, compiled with all three updates, or without the sleep update, and Adam."""
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(VISIBLE, case.latents, p=case.family, q=case.family)
    objective = ReweightedWakeSleep(case.num_particles, sleep_q=sleep_q)
    machine.compile(keras.optimizers.Adam(2e-3), objective)
    machine.optimizer.build(machine.trainable_variables)
    return machine


def data(rows: int) -> np.ndarray:
    """Binary rows, as sparse as images of digits; uint8."""
    return (np.random.default_rng(0).random((rows, VISIBLE)) < 0.2).astype(np.uint8)


def bare_step(machine: HelmholtzMachine, batch_size: int) -> Callable[[], object]:
    """One call of the training step on a resident batch, without Keras's loop."""
    step = tf.function(machine.train_step, autograph=False)
    x = tf.constant(data(batch_size))
    return lambda: step((x,))


def flops(case: Case) -> list[tuple[int, int, int, bool]]:
    """Matrix products of one step of an SBN, as `(rows, inner, columns, transposed)`.

    `transposed` marks a weight's gradient: the inner axis is then that of the rows of both.
    The first Q layer works once a datum, the others once a particle, a dream once a datum.
    """
    sizes = (VISIBLE, *case.latents)
    particles, batch = case.num_particles * case.batch_size, case.batch_size
    products = []
    for index, (below, above) in enumerate(itertools.pairwise(sizes)):
        rows = batch if index == 0 else particles
        products += [
            (rows, below, above, False),  # Q, wake
            (below, rows, above, True),  # its gradient
            (particles, above, below, False),  # P, wake
            (above, particles, below, True),  # its gradient
            (batch, above, below, False),  # P's dream
            (batch, below, above, False),  # Q at the dream
            (below, batch, above, True),  # its gradient
        ]
    return products


def fit_to_best(
    machine: HelmholtzMachine,
    train: np.ndarray,
    validation: np.ndarray,
    batch_size: int = 100,
    epochs: int = 200,
    patience: int = 10,
) -> None:
    """Trains a compiled machine, and keeps the weights of its best epoch on the validation data.

    Args:
        machine: The machine.
        train: Rows `[N, D]`.
        validation: Rows `[M, D]`.
        batch_size: Rows of a step.
        epochs: The most epochs.
        patience: Epochs without a better validation likelihood after which to stop.
    """
    stop = keras.callbacks.EarlyStopping(
        "val_log_likelihood", mode="max", patience=patience, restore_best_weights=True
    )
    machine.fit(
        train,
        batch_size=batch_size,
        epochs=epochs,
        validation_data=validation,
        callbacks=[stop],
        verbose=0,
    )
