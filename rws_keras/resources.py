"""Where the recipes and the presets lie that come with the library."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """The folder of recipes (`"recipes"`) or of presets (`"zoo"`).

    The wheel holds copies of both inside the package; a checkout, also one that is installed
    in editable mode, has them at its top.

    Args:
        name: `"recipes"` or `"zoo"`.
    """
    installed = _PACKAGE / "data" / name
    if installed.is_dir():
        return installed
    checkout = _PACKAGE.parent
    return {"recipes": checkout / "training" / "recipes", "zoo": checkout / "zoo"}[name]
