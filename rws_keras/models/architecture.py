"""How the layers of a machine fit together, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rws_keras.errors import UserError
from rws_keras.layers.registry import Family
from rws_keras.layers.stack import Stack
from rws_keras.layers.stochastic_layer import StochasticLayer


def check_stacks(p: Stack, q: Stack) -> None:
    """Checks that P and Q belong together.

    Raises:
        UserError: If their numbers of layers, sizes or kinds of units do not meet.
    """
    if len(p) != len(q) + 1 or not len(q):
        raise UserError(
            "Q needs one layer for each latent layer of P, and P one layer more, its "
            f"prior; got {len(p)} P layers and {len(q)} Q layers."
        )
    if p[1:].units != q.units:
        raise UserError(
            f"The layers' sizes do not meet: the latent layers have {p[1:].units} units "
            f"in P and {q.units} in Q (bottom first)."
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


def name_layers(stack: list[StochasticLayer], letter: str, first: int) -> None:
    """Gives layers that Keras has named after their class names after their place."""
    for level, layer in enumerate(stack, first):
        automatic = re.sub(r"_\d+$", "", layer.name).replace("_", "")
        if automatic == type(layer).__name__.lower():
            layer.name = f"{letter}_{level}"
