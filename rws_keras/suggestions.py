"""Messages about a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# A shorter name is part of too many others.
_SHORTEST_PART = 3


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A hint at the known name nearest to an unknown one.

    Names that contain the unknown one, or are contained in it, come first: `mnist` is meant to
    be `binarized_mnist`, although `nips` has more of its letters in the same order.

    Args:
        name: What was given; anything but a string is compared as it is printed.
        known: The names that exist.

    Returns:
        `" Did you mean 'NAME'?"`, with the space before it, or `""` if no name is near.
    """
    given = str(name).lower()
    by_lower = {each.lower(): each for each in known}
    parts = [
        each
        for each in by_lower
        if min(len(given), len(each)) >= _SHORTEST_PART and (given in each or each in given)
    ]
    # Of several parts the nearest, whatever its distance.
    near = difflib.get_close_matches(given, parts, n=1, cutoff=0.0) or difflib.get_close_matches(
        given, by_lower, n=1
    )
    return f" Did you mean '{by_lower[near[0]]}'?" if near else ""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The whole message: `Unknown KIND 'NAME'; expected one of …. Did you mean …?`."""
    known = list(known)
    return (
        f"Unknown {kind} {name!r}; expected one of {', '.join(known)}.{did_you_mean(name, known)}"
    )
