"""Beginning a run with the weights of a trained machine."""

from __future__ import annotations

import keras

from rws_keras import HelmholtzMachine
from rws_keras.errors import UserError


def copy_weights(source: HelmholtzMachine, target: HelmholtzMachine) -> None:
    """Copies weights between machines that may differ in the families of their layers.

    A layer's weight gets the value of the one with its name in the same place of the same stack,
    `"kernel"` and `"bias"` for instance. Those without such a one keep their values.

    Args:
        source: The machine to copy from.
        target: The machine to copy to.

    Raises:
        UserError: If the machines have other sizes, a weight of the same name has another shape, or
            two layers have no weights in common.
    """
    sizes = [[machine.visible_units, *machine.latent_units] for machine in (source, target)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"The initial weights are those of a machine with layers of {sizes[0]} units, bottom "
            f"first; this one has {sizes[1]}. Both must be of the same sizes."
        )
    pairs = zip(
        [*source.p_layers, *source.q_layers], [*target.p_layers, *target.q_layers], strict=True
    )
    copies: list[tuple[keras.Variable, keras.Variable]] = []
    for old, new in pairs:
        theirs, ours = _by_name(old), _by_name(new)
        common = [name for name in ours if name in theirs]
        if ours and not common:
            raise UserError(
                f"Layer '{new.name}' ({type(new).__name__}) has no weights in common with the "
                f"{type(old).__name__} whose weights it should begin with."
            )
        for name in common:
            if ours[name].shape != theirs[name].shape:
                raise UserError(
                    f"The initial weights do not fit: '{ours[name].path}' has shape "
                    f"{ours[name].shape}, theirs {theirs[name].shape}."
                )
            copies.append((ours[name], theirs[name]))
    for weight, value in copies:
        weight.assign(value)


def _by_name(layer: keras.layers.Layer) -> dict[tuple[str, int], keras.Variable]:
    """A layer's weights by name, and by number where several have the same."""
    found: dict[tuple[str, int], keras.Variable] = {}
    for weight in layer.weights:
        same = sum(name == weight.name for name, _ in found)
        found[weight.name, same] = weight
    return found
