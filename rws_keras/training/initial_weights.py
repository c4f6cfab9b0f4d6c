"""Beginning a run with the weights of a trained machine."""

from __future__ import annotations

from typing import Any

import keras

from rws_keras import HelmholtzMachine
from rws_keras.errors import UserError
from rws_keras.layers import ARSBN, MADE, NADE, SBN, PixelCNN, StochasticLayer
from rws_keras.signatures import constructor_arguments

# Families whose `kernel` leads from the parents straight to the logits, and whose `bias` is added
# there: these weights mean the same in all of them.
_FROM_PARENTS = (SBN, ARSBN, NADE, MADE, PixelCNN)
_IN_COMMON = ("kernel", "bias")


def copy_weights(source: HelmholtzMachine, target: HelmholtzMachine) -> None:
    """Copies the weights of a machine to one of the same sizes.

    Two layers in the same place of the same stack share all their weights if they are of the same
    family with the same arguments. SBN, AR-SBN, NADE, MADE and PixelCNN share the weights from
    their parents and the biases; their others keep their values.

    Args:
        source: The machine to copy from.
        target: The machine to copy to.

    Raises:
        UserError: If the machines have other sizes or treat missing values otherwise, or two layers
            have no weights in common.
    """
    for what, theirs, ours in [
        ("Sizes of its layers, bottom first", _units(source), _units(target)),
        ("`missing`", source.missing, target.missing),
    ]:
        if theirs != ours:
            raise UserError(
                f"The machine of the initial weights has another architecture. {what}: {theirs}, "
                f"but {ours} in this one. Both must be the same."
            )
    pairs = zip(
        [*source.p_layers, *source.q_layers], [*target.p_layers, *target.q_layers], strict=True
    )
    copies: list[tuple[keras.Variable, keras.Variable]] = []
    for old, new in pairs:
        if _is_like(old, new):
            copies += zip(new.weights, old.weights, strict=True)
        elif isinstance(old, _FROM_PARENTS) and isinstance(new, _FROM_PARENTS):
            shared = _in_common(old)
            copies += [(weight, shared[name]) for name, weight in _in_common(new).items()]
        else:
            raise UserError(
                f"Layer '{new.name}' ({type(new).__name__}) cannot begin with the weights of a "
                f"layer that is a {type(old).__name__} or has other arguments: no weights of the "
                "two mean the same."
            )
    for weight, value in copies:
        weight.assign(value)


def _units(machine: Any) -> list[int]:
    return [machine.visible_units, *machine.latent_units]


def _is_like(old: StochasticLayer, new: StochasticLayer) -> bool:
    """Whether two layers are of the same family, with the same arguments that are its own."""
    if type(old) is not type(new):
        return False
    own = set(constructor_arguments(type(new))) - set(constructor_arguments(StochasticLayer))
    theirs, ours = old.get_config(), new.get_config()
    return all(theirs.get(name) == ours.get(name) for name in own)


def _in_common(layer: StochasticLayer) -> dict[str, keras.Variable]:
    return {weight.name: weight for weight in layer.weights if weight.name in _IN_COMMON}
