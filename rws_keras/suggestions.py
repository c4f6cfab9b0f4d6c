"""Suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A sentence that suggests the nearest known name, or nothing.

    A name that is a part of a known one counts as near: "mnist" means "binarized_mnist".

    Args:
        name: What was given.
        known: The names there are.

    Returns:
        `" Did you mean 'NAME'?"` with a leading space, or an empty string.
    """
    known, text = list(known), str(name).lower()
    near = [candidate for candidate in known if len(text) > 2 and text in candidate.lower()]
    near = near or difflib.get_close_matches(text, known, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
