"""What the literature has published on the data sets of the zoo.

`zoo/published.json` lists the figures with where they are from and how they were measured.
"""

from __future__ import annotations

from typing import NamedTuple

from rws_keras import resources
from rws_keras.files import read_json

FILE = resources.folder("zoo") / "published.json"


class Figure(NamedTuple):
    """A published test NLL.

    Attributes:
        model: The machine, as `SBN 200-200` if it is one that this library can build.
        method: How it was trained.
        nll: Test NLL in nats.
        source: Paper or repository.
        protocol: What differs from how this zoo measures, as far as it is known.
    """

    model: str
    method: str
    nll: float
    source: str
    protocol: str = ""

    @property
    def text(self) -> str:
        """As in a sentence."""
        return f"{self.nll:.2f} ({self.method}; {self.source})"


def figures(dataset: str) -> list[Figure]:
    """All figures of a data set, the best first."""
    entries = read_json(FILE)["datasets"].get(dataset, [])
    return sorted((Figure(**entry) for entry in entries), key=lambda figure: figure.nll)


def of_machine(dataset: str, model: str) -> list[Figure]:
    """The figures of one machine, the best first; `model` is such as `SBN 200-200`."""
    return [figure for figure in figures(dataset) if figure.model == model]


def link(source: str) -> str:
    """A source in Markdown."""
    address = read_json(FILE)["sources"].get(source)
    return f"[{source}]({address})" if address else source
