"""`python -m benchmarks.report`: the generated tables and plots of the docs, made anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.report import guides, neighbours, page, plots, tables
from benchmarks.report.claims import claims_table
from benchmarks.report.evidence import ROOT, Evidence
from rws_keras.files import replace_file

PAGE = ROOT / "docs" / "estimators.md"


def pages(evidence: Evidence) -> dict[Path, dict[str, Callable[[], str]]]:
    """What gives each generated part of the pages that have some."""
    return {PAGE: blocks(evidence), **guides.pages(evidence)}


def blocks(evidence: Evidence) -> dict[str, Callable[[], str]]:
    """What gives each generated part of the page on estimators."""
    return {
        "claims": lambda: claims_table(evidence),
        "estimators": lambda: tables.figures(evidence, "estimators"),
        "one-layer": lambda: tables.figures(evidence, "one-layer"),
        "times": lambda: tables.times(evidence, "estimators"),
        "gradients": lambda: tables.gradient_noise(evidence),
        "exact": lambda: tables.exact(evidence),
        "switches": lambda: tables.switches(evidence),
        "growing": lambda: tables.growing(evidence),
        "depth": lambda: tables.figures(evidence, "depth", "layers"),
        "vimco": lambda: tables.vimco(evidence),
        "particles": lambda: tables.particles(evidence),
        "longer": lambda: tables.figures(evidence, "longer"),
        "neighbours": neighbours.neighbours_table,
    }


def main(directory: Path = PAGE.parent / "estimators") -> None:
    """Writes the pages and the plots."""
    evidence = Evidence()
    plots.draw(evidence, directory)
    for path, parts in pages(evidence).items():
        text = page.filled(path.read_text(), parts)
        with replace_file(path) as temporary:
            temporary.write_text(text)


if __name__ == "__main__":
    main()
