"""What the units of each latent layer do to the visible ones."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from rws_keras.checks import check_integer
from rws_keras.errors import UserError
from rws_keras.layers import ARSBN, NADE, SBN

# Layers whose kernel takes the units above as they are, so that kernels may be multiplied.
_TAKE_PARENTS = (SBN, ARSBN, NADE)


def receptive_fields(machine: Any, count: int, level: int = 1) -> np.ndarray | None:
    """The strongest weights of latent units, projected down to the visible units.

    A unit of the lowest latent layer has its row of the kernel `W_1` `[units, visible]`, one of
    layer l its row of `W_l ⋯ W_2 W_1`: the sigmoids in between are taken for linear, and the
    connections within an autoregressive layer are left out.

    Args:
        machine: A `HelmholtzMachine`.
        count: How many to return at most, by decreasing norm.
        level: Of which latent layer; 1 is the lowest.

    Returns:
        Array `[count, visible]` in [0, 1]: 0.5 stands for a weight of zero, and each row's
        largest weight is 0 or 1. `None` where the kernels of the layers do not follow one upon
        the other, for instance below a layer `"dsbn"`.

    Raises:
        UserError: If the machine has no such layer.
    """
    check_integer(level, "level", minimum=1)
    if level > len(machine.latent_units):
        raise UserError(
            f"The machine has {len(machine.latent_units)} latent layers, there is no layer {level}."
        )
    if not all(isinstance(layer, _TAKE_PARENTS) for layer in machine.p_layers[: level - 1]):
        return None
    fields = _kernel(machine.p_layers[level - 1])
    for layer in reversed(machine.p_layers[: level - 1]):
        fields = None if fields is None else fields @ _kernel(layer)
    if fields is None:
        return None
    fields = fields[np.argsort(-np.linalg.norm(fields, axis=1))[:count]]
    return 0.5 + 0.5 * fields / np.maximum(np.abs(fields).max(axis=1, keepdims=True), 1e-12)


def _kernel(layer):
    """The kernel `[parents, units]` of a layer, `None` if it has none."""
    kernel = getattr(layer, "kernel", None)
    if kernel is None or len(kernel.shape) != 2 or kernel.shape[1] != layer.units:
        return None
    return keras.ops.convert_to_numpy(kernel)
