"""What a compiled step depends on in the weights, except their values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np


class WeightStates:
    """Numbers the states that weights have been in: trainable or not, regularizer, constraint.

    Two states have one number if they have the same objects, and these hold the same values.
    """

    def __init__(self) -> None:
        self._seen: list[list[tuple]] = []

    def number(self, weights: Iterable[keras.Variable]) -> int:
        """The number of the state that the weights are in now."""
        state = [
            (weight.trainable, *_parts(weight.regularizer), *_parts(weight.constraint))
            for weight in weights
        ]
        if state not in self._seen:
            # The objects are kept with it: a new one does not come by the place of an old one.
            self._seen.append(state)
        return self._seen.index(state)


def _parts(thing: Any) -> tuple[Any, str]:
    held = {
        name: value.tobytes() if isinstance(value, np.ndarray) else value
        for name, value in getattr(thing, "__dict__", {}).items()
    }
    return thing, repr(held)
