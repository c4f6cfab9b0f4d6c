"""The effect of each latent layer's units on the visible units."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np

from rws_keras.checks import check_integer
from rws_keras.errors import UserError
from rws_keras.layers import ARSBN, MADE, NADE, SBN, Gaussian, PixelCNN

# Layers whose kernel leads from the units above to their own; a `Gaussian` only without
# `hidden_units`. That of other layers, `DSBN` among them, may begin at a hidden layer.
_TAKE_PARENTS = (SBN, ARSBN, NADE, MADE, PixelCNN, Gaussian)


def receptive_fields(machine: Any, count: int, level: int = 1) -> np.ndarray | None:
    """The strongest weights of latent units, projected down to the visible units.

    A unit of the lowest latent layer has its row of the kernel `W_1` `[units, visible]`, one of
    layer l its row of `W_l ⋯ W_2 W_1`: the sigmoids in between are treated as linear, and the
    connections within an autoregressive layer are left out. For `NADE` and
    `MADE` this is only the direct path, the kernel `U_b`: the effect of the units above through the
    hidden layer (`U_c`) is left out as well.

    Args:
        machine: A `HelmholtzMachine`.
        count: How many to return at most, by decreasing norm.
        level: Of which latent layer; 1 is the lowest.

    Returns:
        Array `[count, visible]` in [0, 1]: 0.5 stands for a weight of zero, and each row's
        largest weight is 0 or 1. `None` where one of the layers on the way down has no kernel
        that leads from the units above to its own: `DSBN`, `Gaussian` with `hidden_units`, and
        custom layers that are not derived from `SBN`, `ARSBN`, `NADE`, `MADE`, `PixelCNN` or
        `Gaussian`.

    Raises:
        UserError: If the machine has no such layer.
    """
    check_integer(level, "level", minimum=1)
    if level > len(machine.latent_units):
        raise UserError(
            f"The machine has {len(machine.latent_units)} latent layers; there is no layer {level}."
        )
    kernels = [_kernel(layer) for layer in machine.p_layers[:level]]
    if any(kernel is None for kernel in kernels):
        return None
    fields = functools.reduce(np.matmul, reversed(kernels))
    fields = fields[np.argsort(-np.linalg.norm(fields, axis=1))[:count]]
    return 0.5 + 0.5 * fields / np.maximum(np.abs(fields).max(axis=1, keepdims=True), 1e-12)


def _kernel(layer):
    """The kernel `[parents, units]` from the units above to the layer's own, `None` without one."""
    behind_hidden_units = isinstance(layer, Gaussian) and layer.hidden_units
    if not isinstance(layer, _TAKE_PARENTS) or behind_hidden_units:
        return None
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    return kernel if kernel.shape == (layer.given_units, layer.units) else None
