"""Runs the Python of pages: `python -m docs.pages [PAGE …]`, of all by default.

The blocks tagged `python` of a page are run from top to bottom, in one namespace and in an empty
directory. A block tagged `text` right below one has what it prints, and a picture in `images/` is
the file of that name that the page writes, if it does. The command writes both anew; the tests run
the same and compare. Blocks with other tags (`sh`, `toml`, …) are not run.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))

_BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?P<between>\n+```text\n(?P<output>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)
_PICTURE = re.compile(r"!\[[^\]]*\]\((images/[^)]+)\)")


def has_code(page: Path) -> bool:
    """Whether a page has blocks to run."""
    return _BLOCK.search(page.read_text()) is not None


def pictures(page: Path) -> list[str]:
    """The pictures in `images/` that a page shows; of tutorials all are written by their code."""
    return _PICTURE.findall(page.read_text())


def run(page: Path, directory: Path, names: dict | None = None) -> str:
    """Runs a page.

    Args:
        page: The page.
        directory: An empty directory to run it in.
        names: Names that its code may use without introducing them.

    Returns:
        The page with the outputs as they came out.
    """
    namespace = {"__name__": "__main__", **(names or {})}
    text = page.read_text()

    def run_block(match: re.Match) -> str:
        line = text[: match.start()].count("\n") + 1
        # With the lines of the page in tracebacks.
        code = compile("\n" * line + match["code"], str(page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        if match["output"] is None:
            return match[0]
        start, end = (edge - match.start() for edge in match.span("output"))
        return match[0][:start] + printed.getvalue() + match[0][end:]

    with contextlib.chdir(directory):
        return _BLOCK.sub(run_block, text)


def main(pages: list[Path]) -> None:
    """Runs pages, and writes their outputs and pictures."""
    for page in pages:
        with tempfile.TemporaryDirectory() as directory:
            text = run(page, Path(directory))
            for picture in pictures(page):
                drawn, path = Path(directory) / Path(picture).name, page.parent / picture
                if drawn.exists():
                    path.parent.mkdir(exist_ok=True)
                    shutil.copyfile(drawn, path)
        page.write_text(text)
        print(f"Wrote {page}.")


if __name__ == "__main__":
    # As in the tests, so that the figures can be reproduced to the last digit.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    every = [page for page in sorted(DOCS.rglob("*.md")) if has_code(page)]
    main([Path(argument).resolve() for argument in sys.argv[1:]] or every)
