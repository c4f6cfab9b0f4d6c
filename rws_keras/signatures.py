"""What the constructor of a class takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np

from rws_keras.errors import UserError
from rws_keras.suggestions import unknown

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_PLAIN = bool | int | float | str | None | np.generic


def constructor_arguments(cls: type) -> list[str]:
    """Names of the arguments of a class, with those that it hands on to its base classes.

    What a class of ours hands on to Keras itself (`name`, `dtype`) is left out.
    """
    names: list[str] = []
    for base in cls.__mro__:
        if _is_of_keras(base) and not _is_of_keras(cls):
            break
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names += [each.name for each in parameters if each.kind in _NAMED and each.name != "self"]
        if all(each.kind is not inspect.Parameter.VAR_KEYWORD for each in parameters):
            break
    return list(dict.fromkeys(names))


def check_arguments(
    what: str, cls: type, arguments: Iterable[str], besides: Iterable[str] = ()
) -> None:
    """Checks the names of arguments for a class's constructor.

    Args:
        what: What is constructed, for the message.
        cls: The class.
        arguments: The names.
        besides: Names that are not the user's to give.

    Raises:
        UserError: If the constructor has no argument of a name.
    """
    known = [name for name in constructor_arguments(cls) if name not in besides]
    for name in arguments:
        if name not in known:
            raise UserError(f"{what}: {unknown('argument', name, known)}")


def _is_of_keras(cls: type) -> bool:
    return cls.__module__.split(".")[0] == "keras"


def plain_arguments(instance: Any, base: type) -> dict[str, Any]:
    """The arguments that subclasses add to a base class, read from attributes of those names.

    So a layer or an objective with a number or a name as an argument need not override
    `get_config`.

    Args:
        instance: The layer or objective.
        base: The class that returns its own arguments itself.

    Raises:
        UserError: If there is an argument that no attribute keeps, or one that is not a plain
            value, and the class does not override `get_config`.
    """
    cls, arguments = type(instance), {}
    overrides = cls.get_config is not base.get_config  # type: ignore[attr-defined]
    known = set(constructor_arguments(base))
    for name in constructor_arguments(cls):
        if name in known:
            continue
        value = getattr(instance, name, _MISSING)
        if isinstance(value, _PLAIN):
            arguments[name] = value.item() if isinstance(value, np.generic) else value
        elif not overrides:
            lack = "stored in an attribute of that name" if value is _MISSING else "a plain value"
            raise UserError(
                f"{cls.__name__} cannot be saved: its argument `{name}` is not {lack}. Override "
                "get_config to return it."
            )
    return arguments


_MISSING = object()
