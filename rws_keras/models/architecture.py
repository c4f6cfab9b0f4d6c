"""How the layers of a machine fit together, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Sequence

import keras

from rws_keras.errors import UserError
from rws_keras.layers.registry import Family
from rws_keras.layers.stack import Stack
from rws_keras.layers.stochastic_layer import StochasticLayer


def check_stacks(p: Stack, q: Stack) -> None:
    """Checks that P and Q belong together.

    Raises:
        UserError: If their numbers of layers, sizes or kinds of units do not match.
    """
    if len(p) != len(q) + 1 or not len(q):
        raise UserError(
            "Q needs one layer for each latent layer of P, and P one more layer, its prior; got "
            f"{len(p)} P layers and {len(q)} Q layers."
        )
    if p[1:].units != q.units:
        raise UserError(
            f"The layers' sizes do not match: the latent layers have {p[1:].units} units in P and "
            f"{q.units} in Q (bottom first)."
        )
    for level, pair in enumerate(zip(p.layers[1:], q.layers, strict=True), start=1):
        p_kind, q_kind = (layer.support.name for layer in pair)
        if p_kind != q_kind:
            raise UserError(
                f"The units of latent layer {level} are {p_kind} in P and {q_kind} in Q; "
                "both must be of the same kind."
            )


def one_per_layer(spec: Family | Sequence[Family], count: int, name: str) -> list[Family]:
    """A family for each layer, from one for all or a list of them.

    Raises:
        UserError: If the list has another length; the message has the argument's name.
    """
    if isinstance(spec, str | dict | type | StochasticLayer):
        return [spec] * count
    if not isinstance(spec, Sequence):
        raise UserError(f"`{name}` must be a layer family or a list of them, got {spec!r}.")
    spec = list(spec)
    if len(spec) != count:
        raise UserError(
            f"`{name}` names {len(spec)} families for {count} latent layers; give one family, "
            "or one for each layer."
        )
    return spec


def with_options(family: Family, **options: object) -> dict:
    """A family with further arguments of its layer.

    Raises:
        UserError: If it is a layer already, or a class.
    """
    if isinstance(family, str):
        return {"family": family, **options}
    if isinstance(family, dict):
        return {**family, **options}
    names = ", ".join(f"`{name}`" for name in options)
    raise UserError(f"Give {names} to the layer itself; got {family!r}.")


def name_layers(stack: list[StochasticLayer], letter: str, first: int) -> None:
    """Renames layers that have Keras's automatic names by their position, such as `p_0`."""
    for level, layer in enumerate(stack, first):
        automatic = re.sub(r"_\d+$", "", layer.name).replace("_", "")
        if automatic == type(layer).__name__.lower():
            layer.name = f"{letter}_{level}"


def serialize_stacks(stacks: dict[str, list[StochasticLayer]]) -> dict[str, list[dict]]:
    """The layers of both stacks in a form for JSON.

    Where a layer is used again, only its first position is given.
    """
    first: dict[int, list] = {}
    return {
        name: [
            {"same_as": first[id(layer)]}
            if first.setdefault(id(layer), [name, level]) != [name, level]
            else keras.saving.serialize_keras_object(layer)
            for level, layer in enumerate(layers)
        ]
        for name, layers in stacks.items()
    }


def deserialize_stacks(config: dict) -> dict[str, list[StochasticLayer]]:
    """The stacks of a configuration that has what `serialize_stacks` returned."""
    stacks: dict[str, list] = {"p_layers": [], "q_layers": []}
    for name, layers in stacks.items():
        for each in config[name]:
            if isinstance(each, dict) and "same_as" in each:
                other, level = each["same_as"]
                layers.append(stacks[other][level])
            else:
                layers.append(keras.saving.deserialize_keras_object(each))
    return stacks
