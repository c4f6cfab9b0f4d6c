"""Which optimizers there are, and which arguments a class takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import keras

from rws_keras.errors import UserError
from rws_keras.suggestions import unknown

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


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
    known: list[str] = []
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        known += [each.name for each in parameters if each.kind in _NAMED]
        # What it does not name itself, it hands to its base class.
        if all(each.kind is not inspect.Parameter.VAR_KEYWORD for each in parameters):
            break
    known = [name for name in dict.fromkeys(known) if name != "self"]
    for name in arguments:
        if name not in known:
            raise UserError(f"{what}: {unknown('argument', name, known)}")
