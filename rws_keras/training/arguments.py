"""Which optimizers there are, and which arguments a class takes."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from rws_keras.errors import UserError
from rws_keras.signatures import constructor_arguments
from rws_keras.suggestions import unknown


def optimizers() -> dict[str, type]:
    """Keras's optimizers by the names that it accepts, without those that wrap others."""
    api = keras.optimizers
    wrappers = (api.Optimizer, api.LossScaleOptimizer, api.MultiOptimizer)
    found = {
        name.lower(): each
        for name, each in vars(api).items()
        if isinstance(each, type) and issubclass(each, api.Optimizer) and each not in wrappers
    }
    return dict(sorted(found.items()))


def check_arguments(what: str, cls: type, arguments: Iterable[str]) -> None:
    """Checks the names of arguments for a class's constructor.

    Args:
        what: What is constructed, for the message.
        cls: The class.
        arguments: The names.

    Raises:
        ValueError: If the constructor has no argument of a name.
    """
    known = constructor_arguments(cls)
    for name in arguments:
        if name not in known:
            raise UserError(f"{what}: {unknown('argument', name, known)}")
