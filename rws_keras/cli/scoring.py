"""The command `rws-keras score`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rws_keras.cli.errors import continued_by, writing_to
from rws_keras.cli.options import NUM_PARTICLES, ApiKey, Threshold
from rws_keras.cli.output import console, say
from rws_keras.cli.start import start_tensorflow
from rws_keras.errors import UserError
from rws_keras.files import expanded

if TYPE_CHECKING:
    from rws_keras.datasets import Rows
    from rws_keras.serving.scoring import Scores

app = typer.Typer()


@app.command()
def score(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run's directory, a preset (its name, path or http(s) address), or a .keras "
            "file; with --url, the name of a model of the server.",
        ),
    ],
    paths: Annotated[
        list[Path],
        typer.Argument(
            parser=expanded,
            metavar="FILE…",
            help=".csv, .tsv, .parquet, .npy, .npz or .png files, or folders of PNG images.",
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            parser=expanded,
            help="The CSV file. [default: FILE.scores.csv; of several files scores.csv]",
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option("--id", metavar="COLUMN", help="The column of a table to keep beside scores."),
    ] = None,
    num_particles: Annotated[
        int | None,
        typer.Option(
            min=2, help=f"Number of particles per row, K, up to 10,000. [default: {NUM_PARTICLES}]"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the particles. [default: 0]")
    ] = None,
    explain: Annotated[
        int | None,
        typer.Option(min=1, help="Name this many of each row's columns, the least probable ones."),
    ] = None,
    header: Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header",
            help="Whether the first line of a CSV has names of columns. [default: look at it]",
        ),
    ] = None,
    threshold: Threshold = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing CSV file.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Rows that are scored, and written, together.")
    ] = 256,
    url: Annotated[
        str | None,
        typer.Option(help="Ask a server: http(s)://HOST:PORT or grpc://HOST:PORT."),
    ] = None,
    signature: Annotated[
        str | None,
        typer.Option(
            help="With --url: serving_default, score_fast or score_accurate. [default: the first]"
        ),
    ] = None,
    version: Annotated[
        int | None, typer.Option(help="With --url: the model's version. [default: the newest]")
    ] = None,
    schema_of: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="With --url: the run, preset or .keras file that was exported, to read a table by "
            "its columns and values.",
        ),
    ] = None,
    api_key: ApiKey = None,
) -> None:
    """Scores the rows of files: their log-likelihoods, in nats, as CSV.

    A table is read by the columns and values that the machine was trained on. Of a machine that is
    calibrated, as those of runs are, the tail probability says which share of the validation rows
    is as improbable. What has been scored before an interruption is kept; the same command goes on
    there.
    """
    start_tensorflow()
    from rws_keras.serving.client import Client
    from rws_keras.serving.score_file import ScoreFile
    from rws_keras.serving.scoring import by_server, score_files
    from rws_keras.training.interruption import Interruption
    from rws_keras.training.progress import evaluation_bar

    to = to or (Path("scores.csv") if len(paths) > 1 else _beside(paths[0]))
    if to.absolute() in (path.absolute() for path in paths):
        raise UserError(f"{to} is one of the files to score; name another one with --to.")
    target = ScoreFile(to, overwrite)
    options = (id_column, header, threshold)
    if url is None:
        _check_without_effect(
            "needs --url", signature=signature, version=version, schema_of=schema_of
        )
        k = num_particles or NUM_PARTICLES
        scores, files = _by_machine(model, paths, k, seed or 0, explain or 0, options)
        told = f"K = {k:,}"
    else:
        _check_without_effect(
            "has no effect with --url", num_particles=num_particles, seed=seed, explain=explain
        )
        client = Client(url, model, version, api_key)
        scores = by_server(client, signature or "serving_default")
        files = _rows_for_server(schema_of, paths, options)
        told = f"K is that of the server's {signature or 'serving_default'}"
    batches = math.ceil(sum(len(rows.x) for rows in files.values()) / batch_size)
    screen = console()
    with (
        writing_to(to),
        continued_by("the same command"),
        Interruption(screen, "the current rows"),
        evaluation_bar(screen, "Scoring", batches) as report,
    ):
        found = score_files(scores, files, target, id_column, batch_size, report)
    if found.num_before:
        say(f"{found.num_before:,} of the scores are from an earlier start.")
    say(
        f"Wrote {found.num_rows:,} scores to {to}; mean log-likelihood {found.log_likelihood:.2f} "
        f"nats ({told})."
    )


def _beside(path: Path) -> Path:
    # With the ending of the file: `d.npy` and `d.png` have scores of their own.
    return path.with_name(f"{path.name}.scores.csv")


def _check_without_effect(why: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise UserError(f"--{name.replace('_', '-')} {why}.")


def _by_machine(
    model: str,
    paths: list[Path],
    num_particles: int,
    seed: int,
    explain: int,
    options: tuple[str | None, bool | None, float | None],
) -> tuple[Scores, dict[str, Rows]]:
    from rws_keras.arrays import BINARY
    from rws_keras.datasets import Schema, read_rows
    from rws_keras.serving import scoring
    from rws_keras.training import sources

    machine = sources.find(model).machine()
    schema, units = Schema.of(machine), machine.visible_units
    binary = machine.p_layers[0].support is BINARY
    missing = machine.missing is not None
    files = {str(path): read_rows(path, units, schema, *options, binary, missing) for path in paths}
    for name, rows in files.items():
        _report_unused(name, rows)
    calibration = machine.calibration
    if calibration is not None and calibration.num_particles != num_particles:
        say(
            f"There are no tail probabilities: the machine was calibrated with "
            f"K = {calibration.num_particles:,}."
        )
    return scoring.by_machine(machine, num_particles, seed, schema, explain), files


def _rows_for_server(
    schema_of: str | None,
    paths: list[Path],
    options: tuple[str | None, bool | None, float | None],
) -> dict[str, Rows]:
    from rws_keras.datasets import Schema, read_rows
    from rws_keras.training import sources

    schema = None
    if schema_of is not None:
        schema = Schema.of(sources.find(schema_of).machine())
        if schema is None:
            raise UserError(
                f"{schema_of} keeps no schema of a table's columns; leave --schema-of out."
            )
    # The server knows which values its model takes.
    files = {
        str(path): read_rows(path, None, schema, *options, binary=False, missing=True)
        for path in paths
    }
    for name, rows in files.items():
        _report_unused(name, rows)
    if len(widths := {rows.x.shape[1] for rows in files.values()}) > 1:
        raise UserError(f"The files' rows have different lengths: {sorted(widths)}.")
    return files


def _report_unused(name: str, rows: Rows) -> None:
    if rows.unused:
        say(f"{name}: the machine does not use the columns {', '.join(rows.unused)}.")
