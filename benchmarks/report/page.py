"""A page whose tables are generated between two comments, and all else is written by hand."""

from __future__ import annotations

import re
from collections.abc import Callable

_BLOCK = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def filled(page: str, blocks: dict[str, Callable[[], str]]) -> str:
    """The page with each `<!-- begin NAME --> … <!-- end NAME -->` filled anew.

    Args:
        page: The page.
        blocks: For each name, what gives its content.

    Raises:
        KeyError: If the page has a block that is not known, or lacks one that is.
    """
    missing = blocks.keys() - {match[1] for match in _BLOCK.findall(page)}
    if missing:
        raise KeyError(f"The page lacks {', '.join(sorted(missing))}.")
    return _BLOCK.sub(lambda match: f"{match[1]}{blocks[match[2]]()}\n{match[3]}", page)


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
