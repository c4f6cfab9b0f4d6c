"""The commands of `python -m serving`."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from rws_keras.cli.start import application
from rws_keras.errors import UserError
from rws_keras.serving import export as exporting
from rws_keras.serving import files, repository, server
from rws_keras.serving.client import Client
from rws_keras.serving.predictor import Limits

app = application("Exports machines, serves their scores, and asks for scores.")
console = Console()

Key = Annotated[str | None, typer.Option(envvar="RWS_KERAS_API_KEY", help="API key.")]


@app.command()
def export(
    source: Annotated[
        str, typer.Argument(metavar="PRESET_OR_RUN", help="A preset, or a finished run.")
    ],
    to: Annotated[Path, typer.Option(help="Directory of the models.")] = Path("models"),
    name: Annotated[str | None, typer.Option(help="The model's name.")] = None,
    num_particles: Annotated[int, typer.Option(help="K of the default score.")] = 100,
    fast: Annotated[int, typer.Option(help="K of score_fast.")] = 10,
    accurate: Annotated[int, typer.Option(help="K of score_accurate.")] = 1000,
    num_completions: Annotated[int, typer.Option(help="Completions that impute draws.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all noise.")] = 0,
) -> None:
    """Writes a SavedModel, TO/NAME/VERSION, that TF Serving loads as it is."""
    version = exporting.export(
        source,
        to,
        name,
        num_particles=num_particles,
        fast=fast,
        accurate=accurate,
        num_completions=num_completions,
        seed=seed,
    )
    console.print(f"Wrote {version}.", highlight=False)


@app.command()
def serve(
    models: Annotated[
        Path | None, typer.Option(help="Directory of models; all of them are served.")
    ] = None,
    model_config_file: Annotated[
        Path | None, typer.Option(help="TF Serving's models.config instead.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    rest_port: Annotated[int, typer.Option(help="Port of REST.")] = 8501,
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC; 0: any.")] = 8500,
    max_batch_size: Annotated[int, typer.Option(min=1, help="Rows computed together.")] = 64,
    batch_threads: Annotated[int, typer.Option(min=1, help="Batches computed at a time.")] = 2,
    max_body_mb: Annotated[float, typer.Option(help="Size of a request.")] = 16.0,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows of a request.")] = 4096,
    max_concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 128,
    poll_seconds: Annotated[float, typer.Option(help="Between looks for new versions.")] = 2.0,
    api_key: Key = None,
) -> None:
    """Serves models by TF Serving's REST and gRPC API, without TF Serving."""
    if (models is None) == (model_config_file is None):
        raise UserError("Give either --models or --model-config-file.")
    if models is not None:
        if not models.is_dir():
            raise UserError(f"There is no directory {models}; `export` writes models.")
        config = functools.partial(repository.directory_config, models)
    else:
        config = functools.partial(_read_config, model_config_file)
    config()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("serving").setLevel(logging.INFO)
    # It tells of gradients that are not saved; nobody takes gradients here.
    logging.getLogger("absl").setLevel(logging.ERROR)

    def started(rest_port, grpc_port):
        console.print(
            f"Serving on http://{host}:{rest_port} and grpc://{host}:{grpc_port}. Ctrl-C ends it.",
            highlight=False,
            soft_wrap=True,
        )

    server.serve(
        config,
        host,
        rest_port,
        grpc_port,
        Limits(int(max_body_mb * 2**20), max_rows, max_concurrency),
        max_batch_size,
        batch_threads,
        poll_seconds,
        api_key,
        started,
    )


@app.command()
def score(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help=".npy, .csv or .png.")],
    model: Annotated[str, typer.Option(help="The model's name.")],
    url: Annotated[
        str, typer.Option(help="http://HOST:PORT, or grpc://HOST:PORT.")
    ] = "http://127.0.0.1:8501",
    signature: Annotated[
        str, typer.Option(help="serving_default, score_fast or score_accurate.")
    ] = "serving_default",
    version: Annotated[int | None, typer.Option(help="The newest by default.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a request.")] = 256,
    to: Annotated[Path | None, typer.Option(help="FILE.scores.csv by default.")] = None,
    api_key: Key = None,
) -> None:
    """Asks a server for the log-likelihoods of the rows of files, and writes them as CSV."""
    rows = np.concatenate(_same_width([files.read_rows(path) for path in paths]))
    client = Client(url, model, version, api_key)
    batches = track(
        client.score_batches(rows, signature, batch_size),
        "Scoring",
        total=-(-len(rows) // batch_size),
        console=console,
    )
    parts = list(batches)
    scores = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    to = to or paths[0].with_suffix(".scores.csv")
    files.write_scores(to, scores)
    mean = scores["log_likelihood"].mean()
    console.print(
        f"Wrote {len(rows):,} scores to {to}; mean log-likelihood {mean:.2f} nats.",
        highlight=False,
    )


def _same_width(parts: list[np.ndarray]) -> list[np.ndarray]:
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise UserError(f"The files' rows have different lengths: {sorted(widths)}.")
    return parts


def _read_config(path: Path):
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    return repository.parse_config(path.read_text())
