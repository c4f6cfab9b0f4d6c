"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rws_keras.files import expanded

RunDirectory = Annotated[
    Path, typer.Argument(parser=expanded, metavar="RUN", help="A run directory.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the noise.")]
NumParticles = Annotated[int, typer.Option(min=1, help="Number of particles per row, K.")]
ApiKey = Annotated[str | None, typer.Option(envvar="RWS_KERAS_API_KEY", help="API key.")]
Preset = Annotated[
    str, typer.Argument(metavar="PRESET", help="A preset's name, path or http(s) address.")
]
ZooAddress = Annotated[
    str | None,
    typer.Option(
        "--zoo",
        help="Directory or http(s) address of the presets. [default: RWS_KERAS_ZOO, else the "
        "presets that come with rws_keras]",
    ),
]
