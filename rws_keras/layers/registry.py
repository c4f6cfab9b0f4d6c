"""The families of layers by name: for `from_sizes`, recipes and model cards alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from rws_keras.errors import UserError
from rws_keras.layers.stochastic_layer import StochasticLayer
from rws_keras.signatures import check_arguments
from rws_keras.suggestions import unknown

FAMILIES: dict[str, type[StochasticLayer]] = {}
_LABELS: dict[str, str] = {}

Family: TypeAlias = str | dict | type[StochasticLayer] | StochasticLayer


def register_family(name: str, label: str | None = None) -> Callable:
    """A class decorator that gives a layer family a name.

    Args:
        name: The name for `from_sizes` and recipes.
        label: How tables and model cards write it; the class's name by default.

    Example:
    ```python
    @rws_keras.layers.register_family("mine")
    class MyLayer(rws_keras.layers.SBN):
        pass

    rws_keras.HelmholtzMachine.from_sizes(784, [200], p="mine")
    ```
    """

    def register(cls):
        if FAMILIES.get(name, cls).__qualname__ != cls.__qualname__:
            raise UserError(
                f"A layer family with the name {name!r} exists already; choose another name."
            )
        FAMILIES[name] = cls
        _LABELS[name] = label or cls.__name__
        return cls

    return register


def get(family: Family, units: int, name: str | None = None) -> StochasticLayer:
    """Makes a layer of a family.

    Args:
        family: A registered name (`"sbn"`, `"dsbn"`, `"arsbn"`, `"nade"`, `"made"`,
            `"pixelcnn"`, `"gaussian"`, …); a dict with the name under `"family"` and further
            arguments of the layer, for instance `{"family": "nade", "hidden_units": 100}`; a
            subclass of `StochasticLayer`; or a layer, which is used as it is.
        units: The number of units.
        name: The layer's name.

    Returns:
        An unbuilt layer.

    Raises:
        UserError: If there is no such family, it does not take the arguments, or a given layer
            has another number of units.
    """
    if isinstance(family, StochasticLayer):
        layer: Any = family
        if layer.units != units:
            raise UserError(f"{layer!r} has {layer.units} units, but {units} are needed here.")
        return layer
    if isinstance(family, type):
        return family(units, name=name)
    options = dict(family) if isinstance(family, dict) else {"family": family}
    key = options.pop("family", None)
    if not isinstance(key, str) or key not in FAMILIES:
        raise UserError(unknown("layer family", key, FAMILIES))
    check_arguments(f"Layer family {key!r}", FAMILIES[key], options, besides=["units"])
    return FAMILIES[key](units, **{"name": name, **options})


def label(family: str | dict) -> str:
    """How tables and model cards write a family, as the literature does."""
    return _LABELS[family["family"] if isinstance(family, dict) else family]


def label_of(layer: StochasticLayer) -> str:
    """As `label`, of a layer; the name of its class if that is not registered."""
    names = [name for name, family in FAMILIES.items() if family is type(layer)]
    return label(names[0]) if names else type(layer).__name__
