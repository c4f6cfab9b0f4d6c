"""Stochastic layers: conditional distributions over binary vectors as Keras layers."""

from __future__ import annotations

import difflib

from rws_keras.errors import UserError
from rws_keras.layers.arsbn import ARSBN, AutoregressiveBernoulli
from rws_keras.layers.distribution import BinaryDistribution
from rws_keras.layers.dsbn import DSBN
from rws_keras.layers.nade import NADE, NeuralAutoregressiveBernoulli
from rws_keras.layers.sbn import SBN, FactorizedBernoulli
from rws_keras.layers.stochastic_layer import StochasticLayer

FAMILIES = {"sbn": SBN, "dsbn": DSBN, "arsbn": ARSBN, "nade": NADE}


def get(family: str | dict, units: int) -> StochasticLayer:
    """Makes a layer from the name of its family.

    Args:
        family: A name (`"sbn"`, `"dsbn"`, `"arsbn"`, `"nade"`), or a dict with the name
            under `"family"` and further arguments of the layer, for instance
            `{"family": "nade", "hidden_units": 100}`.
        units: The number of units.

    Returns:
        A new, unbuilt layer.

    Raises:
        ValueError: If there is no such family.
    """
    options = dict(family) if isinstance(family, dict) else {"family": family}
    name = options.pop("family", None)
    if name not in FAMILIES:
        near = difflib.get_close_matches(str(name).lower(), FAMILIES, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UserError(
            f"Unknown layer family {name!r}; expected one of {', '.join(FAMILIES)}.{hint}"
        )
    return FAMILIES[name](units, **options)


__all__ = [
    "ARSBN",
    "DSBN",
    "FAMILIES",
    "NADE",
    "SBN",
    "AutoregressiveBernoulli",
    "BinaryDistribution",
    "FactorizedBernoulli",
    "NeuralAutoregressiveBernoulli",
    "StochasticLayer",
    "get",
]
