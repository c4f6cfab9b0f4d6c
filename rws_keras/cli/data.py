"""The command `rws-keras data`."""

from __future__ import annotations

from typing import Annotated

import typer

from rws_keras.cli.output import say
from rws_keras.cli.start import start_tensorflow

app = typer.Typer()


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A data set.")] = None,
) -> None:
    """Prepares a data set and describes it.

    Downloads it if needed. Without a name, lists the data sets.
    """
    start_tensorflow()
    from rws_keras import datasets

    if name is None:
        for known in datasets.NAMES:
            say(known)
        return
    loaded = datasets.load(name)
    splits = (loaded.train, loaded.validation, loaded.test)
    sizes = ", ".join(f"{len(split):,}" for split in splits)
    width = loaded.train.shape[1]
    say(f"{loaded.name}: {width} binary variables; train, validation, test: {sizes}")
