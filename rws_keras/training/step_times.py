"""Times of the steps of a comparison's methods, side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from rws_keras import HelmholtzMachine
from rws_keras.datasets import BinaryData
from rws_keras.training.comparison import Comparison
from rws_keras.training.recipe import Recipe
from rws_keras.training.timing import alternate, ratio, summary, timer

_ROUNDS, _STEPS = 9, 10


def step_times(
    comparison: Comparison, known: list[dict[str, Any]], report: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Measures one training step of each method at each value, relative to the reference's.

    Each is measured in alternating turns with the reference, so that what slows the machine down
    slows both.

    Args:
        comparison: A comparison with a reference.
        known: Times that were measured before. Those of the same recipes are not measured again.
        report: Is called with a line for each.

    Returns:
        For each that was not known its `method`, `value`, the digest of its `recipe`, the median
        of a step and its quartiles in milliseconds, and the ratio to the reference's step with
        quartiles.
    """
    assert comparison.reference is not None
    arms = {
        (method.name, repr(value)): comparison.arm(method, value, comparison.rates[0], 0)
        for method in comparison.methods
        for value in method.values
    }
    measured = {(row["method"], repr(row["value"]), row["recipe"]) for row in known}
    missing = [arm for key, arm in arms.items() if (*key, arm.recipe.digest) not in measured]
    if not missing:
        return []
    reference = arms[comparison.reference.method, repr(comparison.reference.value)]
    data = reference.recipe.load_data()
    unit = _step(reference.recipe, data)
    rows = []
    for arm in missing:
        subjects = {"unit": unit}
        if arm is not reference:
            subjects["arm"] = _step(arm.recipe, data)
        times = alternate(subjects, rounds=_ROUNDS, steps=_STEPS)
        own = times.get("arm", times["unit"])
        row = {
            "method": arm.method,
            "value": arm.value,
            "recipe": arm.recipe.digest,
            **summary(own),
            **ratio(own, times["unit"]),
        }
        report(f"{arm.method}, {arm.value}: {row['ms']:.2f} ms, {row['ratio']:.2f}")
        rows.append(row)
    return rows


def _step(recipe: Recipe, data: BinaryData):
    """A step on a resident batch, without Keras's loop."""
    machine: HelmholtzMachine = recipe.make_machine(data)
    step = tf.function(machine.train_step, autograph=False)
    x = tf.constant(data.train[: recipe.batch_size], tf.float32)
    return timer(lambda: step((x,)))
