"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

# Default K of evaluations, scores and exports.
NUM_PARTICLES = 100

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run's directory, a preset (its name, path or http(s) address), or a .keras file.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the noise.")]
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
Threshold = Annotated[
    float | None,
    typer.Option(help="For arrays and images: grey level at or above which a pixel is on."),
]
