"""The commands of `python -m zoo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Column, Table

import rws_keras
from rws_keras.cli.start import application
from rws_keras.models import pretrained
from rws_keras.training.run import Run
from rws_keras.zoo import cards
from rws_keras.zoo import publish as publishing

app = application("Lists, downloads, checks and publishes pretrained machines.")
console = Console()

Address = Annotated[
    str | None,
    typer.Option("--zoo", help="Directory or http(s) address; RWS_KERAS_ZOO or zoo/ by default."),
]
Preset = Annotated[str, typer.Argument(metavar="NAME", help="A preset's name, path or address.")]


@app.command("list")
def list_(zoo: Address = None) -> None:
    """Lists the presets with their measured likelihoods."""
    table = Table(
        Column("preset", no_wrap=True), "data", "P", "parameters", "test NLL (nats)", "K", "MB"
    )
    for name, entry in rws_keras.presets(zoo).items():
        table.add_row(
            name,
            entry["dataset"],
            f"{entry['family']} {cards.sizes(entry['latent_units'])}",
            f"{entry['num_parameters']:,}",
            cards.nll(entry["test"]),
            f"{entry['test']['num_particles']:,}",
            f"{entry['size'] / 1e6:.1f}",
        )
    console.print(table)


@app.command()
def info(name: Preset, zoo: Address = None) -> None:
    """Shows a preset's model card."""
    folder = pretrained.locate(name, zoo)
    console.print(Markdown((folder / publishing.CARD).read_text()))
    console.print(f"Folder: {folder}", highlight=False)


@app.command()
def download(name: Preset, zoo: Address = None) -> None:
    """Downloads a preset, checks it and says where it is."""
    console.print(str(pretrained.locate(name, zoo)), highlight=False, soft_wrap=True)


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Presets; all by default.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Estimate the test likelihood again.")
    ] = False,
    zoo: Annotated[Path, typer.Option(help="Directory of the zoo.")] = publishing.ZOO,
) -> None:
    """Checks presets of a zoo on this machine: files, cards, machines, index."""
    if not names:
        publishing.verify_index(zoo)
    for name in names or [folder.name for folder in publishing.folders(zoo)]:
        found = publishing.verify(pretrained.locate(name, zoo), measure)
        console.print(f"{name}: {found}.", highlight=False)


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's directory.")],
    name: Annotated[
        str | None, typer.Option(help="The preset's name; the run directory's by default.")
    ] = None,
    zoo: Annotated[Path, typer.Option(help="Directory of the zoo.")] = publishing.ZOO,
) -> None:
    """Makes a preset of a finished run, and the index and the leaderboard anew."""
    folder = publishing.publish(Run.open(run), name or run.resolve().name, zoo)
    console.print(f"Wrote {folder}.", highlight=False)
