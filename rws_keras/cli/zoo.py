"""The commands `rws-keras zoo …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rws_keras.cli.errors import writing_to
from rws_keras.cli.options import Preset, ZooAddress
from rws_keras.cli.output import console, say, show
from rws_keras.cli.start import start_tensorflow
from rws_keras.errors import UserError
from rws_keras.files import expanded

app = typer.Typer(help="Lists, checks and publishes presets.", no_args_is_help=True)

# The zoo that a checkout has.
_HERE = Path("zoo")


def _is_here() -> bool:
    return (_HERE / "index.json").is_file()


@app.command("list")
def list_(zoo: ZooAddress = None) -> None:
    """Lists the presets and their likelihoods."""
    start_tensorflow()
    import rws_keras
    from rws_keras.zoo import cards

    rows = [
        [
            name,
            entry["dataset"],
            f"{entry['family']} {cards.sizes(entry['latent_units'])}",
            f"{entry['num_parameters']:,}",
            cards.nll(entry["test"]),
            f"{entry['test']['num_particles']:,}",
            f"{entry['size'] / 1e6:.1f}",
        ]
        for name, entry in rws_keras.presets(zoo).items()
    ]
    show(["preset", "data", "P", "parameters", "test NLL (nats)", "K", "MB"], rows)


@app.command()
def info(name: Preset, zoo: ZooAddress = None) -> None:
    """Shows a preset's model card."""
    start_tensorflow()
    from rich.markdown import Markdown

    from rws_keras.models import pretrained
    from rws_keras.zoo import publish

    folder = pretrained.locate(name, zoo)
    card = publish.card(folder)
    screen = console()
    if screen.is_terminal:
        screen.print(Markdown(card))
    else:
        say(card)
    say(f"Folder: {folder}")


@app.command()
def download(name: Preset, zoo: ZooAddress = None) -> None:
    """Downloads a preset and says where it is."""
    start_tensorflow()
    from rws_keras.models import pretrained

    say(str(pretrained.locate(name, zoo)))


@app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="PRESET", help="Presets; all of the zoo by default."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Estimate the test likelihood again.")
    ] = False,
    zoo: Annotated[
        Path | None,
        typer.Option(
            parser=expanded,
            help="Directory of the zoo. [default: ./zoo where there is one, else the presets that "
            "come with rws_keras]",
        ),
    ] = None,
) -> None:
    """Checks presets.

    These are checked: files, cards, machines and, where no preset is named, the index of the zoo.
    """
    start_tensorflow()
    from rws_keras.models import pretrained
    from rws_keras.zoo import publish as publishing

    if zoo is None:
        zoo = _HERE if _is_here() else publishing.ZOO
    if not names:
        publishing.verify_index(zoo)
    for name in names or [folder.name for folder in publishing.folders(zoo)]:
        found = publishing.verify(pretrained.locate(name, zoo), measure)
        say(f"{name}: {found}.")


@app.command()
def publish(
    run: Annotated[
        Path, typer.Argument(parser=expanded, metavar="RUN", help="A finished run's directory.")
    ],
    name: Annotated[
        str | None, typer.Option(help="The preset's name. [default: the run directory's]")
    ] = None,
    zoo: Annotated[
        Path | None,
        typer.Option(
            parser=expanded, help="Directory of the zoo. [default: ./zoo where there is one]"
        ),
    ] = None,
) -> None:
    """Makes a preset of a finished run.

    The index and the leaderboard of the zoo are written anew.
    """
    if zoo is None and not _is_here():
        raise UserError("There is no zoo/index.json here: say with --zoo where to publish.")
    start_tensorflow()
    from rws_keras.training.run import Run
    from rws_keras.zoo import publish as publishing

    zoo = zoo or _HERE
    with writing_to(zoo):
        folder = publishing.publish(Run.open(run), name or run.resolve().name, zoo)
    say(f"Wrote {folder}.")
