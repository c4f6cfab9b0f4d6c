"""The commands that export machines and serve them."""

from __future__ import annotations

import functools
import gc
import importlib.util
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rws_keras.cli.errors import writing_to
from rws_keras.cli.options import NUM_PARTICLES, ApiKey, Model, Seed
from rws_keras.cli.output import say
from rws_keras.cli.start import start_tensorflow
from rws_keras.errors import UserError
from rws_keras.files import expanded

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

app = typer.Typer()


@app.command()
def export(
    model: Model,
    to: Annotated[Path, typer.Option(parser=expanded, help="Directory of the models.")] = Path(
        "models"
    ),
    name: Annotated[
        str | None,
        typer.Option(help="The model's name. [default: that of the run, the preset or the file]"),
    ] = None,
    num_particles: Annotated[int, typer.Option(min=1, help="K of serving_default.")] = (
        NUM_PARTICLES
    ),
    fast: Annotated[int, typer.Option(min=1, help="K of score_fast.")] = 10,
    accurate: Annotated[int, typer.Option(min=1, help="K of score_accurate.")] = 1000,
    num_completions: Annotated[
        int, typer.Option(min=1, help="Number of completions that impute draws.")
    ] = 10,
    seed: Seed = 0,
) -> None:
    """Writes a run, a preset or a .keras file as a SavedModel.

    TensorFlow Serving and `rws-keras serve` load TO/NAME/VERSION as it is.
    """
    start_tensorflow()
    from rws_keras.serving import export as exporting

    with writing_to(to):
        version = exporting.export(
            model,
            to,
            name,
            num_particles=num_particles,
            fast=fast,
            accurate=accurate,
            num_completions=num_completions,
            seed=seed,
        )
    say(f"Wrote {version}.")


@app.command()
def serve(
    models: Annotated[
        Path | None,
        typer.Option(parser=expanded, help="Directory of models; all of them are served."),
    ] = None,
    model_config_file: Annotated[
        Path | None,
        typer.Option(parser=expanded, help="TensorFlow Serving's models.config instead."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    rest_port: Annotated[int, typer.Option(help="Port of REST; 0 for any free one.")] = 8501,
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC; 0 for any free one.")] = 8500,
    max_batch_size: Annotated[int, typer.Option(min=1, help="Maximum rows in a batch.")] = 64,
    batch_threads: Annotated[
        int, typer.Option(min=1, help="Number of batches computed concurrently.")
    ] = 2,
    max_body_mb: Annotated[float, typer.Option(help="Largest request, in MiB.")] = 16.0,
    max_rows: Annotated[int, typer.Option(min=1, help="Maximum rows in a request.")] = 4096,
    max_concurrency: Annotated[int, typer.Option(min=1, help="Maximum concurrent requests.")] = 128,
    rest_timeout: Annotated[
        float, typer.Option(help="Seconds for a REST request to arrive, and then to be answered.")
    ] = 30.0,
    idle_timeout: Annotated[
        float, typer.Option(help="Seconds after which a connection without a request is closed.")
    ] = 60.0,
    poll_seconds: Annotated[
        float, typer.Option(help="Seconds between checks for new versions.")
    ] = 2.0,
    config_reload: Annotated[
        bool, typer.Option("--config-reload", help="Let gRPC clients change the models served.")
    ] = False,
    page: Annotated[
        bool,
        typer.Option(
            "--page", help="Serve a web page to look at the models, at /page of the REST port."
        ),
    ] = False,
    api_key: ApiKey = None,
) -> None:
    """Serves models by REST and gRPC.

    The API is that of TensorFlow Serving, which is not needed.
    """
    if (models is None) == (model_config_file is None):
        raise UserError("Give either --models or --model-config-file.")
    if models is not None and not models.is_dir():
        raise UserError(f"There is no directory {models}; `rws-keras export` writes models.")
    if model_config_file is not None and not model_config_file.is_file():
        raise UserError(f"There is no file {model_config_file}.")
    for option, number in {
        "max-body-mb": max_body_mb,
        "rest-timeout": rest_timeout,
        "idle-timeout": idle_timeout,
        "poll-seconds": poll_seconds,
    }.items():
        if not 0 < number < float("inf"):
            raise UserError(f"--{option} must be a positive number, got {number}.")
    # An empty variable counts as none with Typer: a key that a deployment fails to fill in.
    if api_key == "" or (api_key is None and "RWS_KERAS_API_KEY" in os.environ):
        raise UserError(
            "The API key is empty. Give one in RWS_KERAS_API_KEY, or unset that variable to serve "
            "without a key."
        )
    if page and not importlib.util.find_spec("gradio"):
        raise UserError("--page needs Gradio: pip install 'rws-keras[page]'.")
    start_tensorflow(with_keras=False)
    from rws_keras.serving import model_config, server
    from rws_keras.serving.predictor import Limits

    if models is not None:
        config = functools.partial(model_config.directory_config, models)
    elif model_config_file is not None:
        config = functools.partial(_read_config, model_config_file)
    config()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    # absl reports gradients that are not saved; a server takes none.
    logging.getLogger("absl").setLevel(logging.ERROR)

    def started(rest_port: int, grpc_port: int, serving: dict[str, list[int]]) -> None:
        for name, versions in serving.items():
            numbers = ", ".join(map(str, versions))
            say(f"Model {name}: {f'version {numbers}' if versions else 'none could be loaded'}")
        if not serving:
            say(
                f"There are no models in {models or model_config_file} yet; any that appears is "
                "loaded. `rws-keras export MODEL --to DIRECTORY` makes one."
            )
        at = f"[{host}]" if ":" in host else host
        if page:
            say(f"Page: http://{at}:{rest_port}/page")
        say(f"Serving on http://{at}:{rest_port} and grpc://{at}:{grpc_port}. Ctrl-C ends it.")
        # From now on, versions are reported when they come and go.
        logging.getLogger("rws_keras.serving").setLevel(logging.INFO)

    gc.freeze()  # what is imported by now stays: collections need not look at it again
    server.serve(
        config,
        host,
        rest_port,
        grpc_port,
        Limits(int(max_body_mb * 2**20), max_rows, max_concurrency, rest_timeout, idle_timeout),
        max_batch_size,
        batch_threads,
        poll_seconds,
        api_key,
        config_reload,
        page,
        started,
    )


def _read_config(path: Path) -> ModelServerConfig:
    from rws_keras.serving import model_config

    return model_config.parse_config(path.read_text())
