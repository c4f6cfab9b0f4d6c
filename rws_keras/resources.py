"""The location of the recipes, comparisons and presets that come with the library."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """The folder of recipes (`"recipes"`), comparisons (`"comparisons"`) or presets (`"zoo"`).

    The wheel holds copies inside the package; a checkout, also one that is installed in editable
    mode, has them at its top.

    Args:
        name: `"recipes"`, `"comparisons"` or `"zoo"`.
    """
    installed = _PACKAGE / "data" / name
    if installed.is_dir():
        return installed
    checkout = _PACKAGE.parent
    return checkout / "zoo" if name == "zoo" else checkout / "training" / name
