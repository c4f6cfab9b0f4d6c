"""The commands `rws-keras zoo …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rws_keras.cli.errors import continued_by, writing_to
from rws_keras.cli.options import NUM_PARTICLES, Preset, ZooAddress
from rws_keras.cli.output import console, say, show
from rws_keras.cli.start import start_tensorflow
from rws_keras.errors import UserError
from rws_keras.files import expanded

app = typer.Typer(help="Lists, checks and publishes presets.", no_args_is_help=True)

_Presets = Annotated[
    list[str] | None,
    typer.Argument(metavar="PRESET", help="Presets. [default: all of the zoo]"),
]
# Of the commands that write to it.
_Zoo = Annotated[
    Path | None,
    typer.Option(parser=expanded, help="Directory of the zoo. [default: ./zoo where there is one]"),
]

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
            cards.label(entry),
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
    names: _Presets = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Estimate the test likelihood again, which may take long. Interrupted, the same "
            "command continues with the preset it was at.",
        ),
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

    Checks files, cards, machines and, if no preset is named, the index of the zoo.
    """
    start_tensorflow()
    from rws_keras.models import pretrained
    from rws_keras.zoo import publish as publishing

    if zoo is None:
        zoo = _HERE if _is_here() else publishing.ZOO
    if not names:
        publishing.verify_index(zoo)
    with continued_by("the same command"):
        for name in names or [folder.name for folder in publishing.folders(zoo)]:
            found = publishing.verify(pretrained.locate(name, zoo), measure, console())
            say(f"{name}: {found}.")


@app.command()
def calibrate(
    names: _Presets = None,
    zoo: _Zoo = None,
) -> None:
    """Calibrates published presets with the validation rows of their data.

    Their scores then come with tail probabilities. The index of the zoo is rewritten.
    """
    if zoo is None and not _is_here():
        raise UserError("There is no zoo/index.json here; name the zoo with --zoo.")
    start_tensorflow()
    from rws_keras.zoo import publish as publishing

    zoo = zoo or _HERE
    try:
        for name in names or [folder.name for folder in publishing.folders(zoo)]:
            with writing_to(zoo):
                publishing.calibrate(zoo / name)
            say(f"Calibrated {name}.")
    finally:
        publishing.write_index(zoo)


@app.command()
def measure(
    name: Annotated[str, typer.Argument(metavar="PRESET", help="A preset of the zoo.")],
    num_particles: Annotated[
        int, typer.Option(min=1, help="Number of particles per row, K.")
    ] = NUM_PARTICLES,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Use this many test rows, from the beginning, with this K and with that of the "
            "preset's figure: the card then shows both. [default: all, for the figure itself]",
        ),
    ] = None,
    zoo: _Zoo = None,
) -> None:
    """Measures the test likelihood of a published preset with more particles.

    Card, index and leaderboard are rewritten. Interrupted, it continues with the same command.
    """
    if zoo is None and not _is_here():
        raise UserError("There is no zoo/index.json here; name the zoo with --zoo.")
    start_tensorflow()
    from rws_keras.models import pretrained
    from rws_keras.zoo import publish as publishing

    zoo = zoo or _HERE
    folder = pretrained.locate(name, zoo)
    with writing_to(folder), continued_by("the same command"):
        publishing.measure(folder, num_particles, rows, console())
    publishing.write_index(zoo)
    say(publishing.card(folder))


@app.command()
def publish(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A finished run's directory, a .keras file, or the folder of a saved preset.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(help="The preset's name. [default: that of the run, the file or the folder]"),
    ] = None,
    zoo: _Zoo = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="If it is not a run: test data, whose likelihood goes into the card.",
        ),
    ] = None,
    description: Annotated[
        str | None, typer.Option(help="If it is not a run: one-line description of the machine.")
    ] = None,
    num_particles: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"If it is not a run: number of particles per row, K. [default: {NUM_PARTICLES}]",
        ),
    ] = None,
) -> None:
    """Publishes a run, or a machine made in Python, as a preset.

    The card of a run has the results measured at its end. The card of another machine has its
    likelihood on the given data and says that there is no record of the training. The index and
    the leaderboard of the zoo are updated.
    """
    if zoo is None and not _is_here():
        raise UserError("There is no zoo/index.json here: give the directory of a zoo with --zoo.")
    start_tensorflow()
    from rws_keras.training import sources
    from rws_keras.zoo import publish as publishing

    zoo = zoo or _HERE
    source = sources.find(model)
    name = name or source.name
    with writing_to(zoo):
        if source.run is not None:
            if data or description or num_particles:
                raise UserError(
                    "--data, --description and --num-particles have no effect on a run, whose "
                    "results and description are already known."
                )
            folder = publishing.publish(source.run, name, zoo)
        else:
            particles = num_particles or NUM_PARTICLES
            folder = publishing.publish_machine(source, name, zoo, data, description, particles)
    say(f"Wrote {folder}.")
