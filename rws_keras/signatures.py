"""What the constructor of a class takes."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from rws_keras.errors import UserError

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_PLAIN = bool | int | float | str | None | np.generic


def constructor_arguments(cls: type) -> list[str]:
    """Names of the arguments of a class, with those that it hands on to its base classes."""
    names: list[str] = []
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names += [each.name for each in parameters if each.kind in _NAMED and each.name != "self"]
        if all(each.kind is not inspect.Parameter.VAR_KEYWORD for each in parameters):
            break
    return list(dict.fromkeys(names))


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
    cls, found = type(instance), {}
    overrides = cls.get_config is not base.get_config  # type: ignore[attr-defined]
    known = set(constructor_arguments(base))
    for name in constructor_arguments(cls):
        if name in known:
            continue
        value = getattr(instance, name, _MISSING)
        if isinstance(value, _PLAIN):
            found[name] = value.item() if isinstance(value, np.generic) else value
        elif not overrides:
            raise UserError(
                f"{cls.__name__} cannot be saved: its argument `{name}` is "
                f"{'kept in no attribute of that name' if value is _MISSING else 'no plain value'}"
                ". Override get_config to return it."
            )
    return found


_MISSING = object()
