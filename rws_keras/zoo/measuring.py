"""The test likelihood of presets, estimated again or with more particles."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from rws_keras import HelmholtzMachine, datasets
from rws_keras.errors import UserError
from rws_keras.files import make_directory, read_json
from rws_keras.models import downloads
from rws_keras.training import evaluation, evaluation_data

RECIPE = "recipe.json"

# What is said of a likelihood.
MEASURED = ("log_likelihood", "log_likelihood_se", "num_particles", "num_data", "ess", "elbo")

# How the machine of a file, which has no recipe, is measured.
BATCH_SIZE = 100
SEED = 0


def recipe_of(folder: Path) -> dict | None:
    """The recipe of a preset; that of a machine made in Python has none."""
    path = folder / RECIPE
    return read_json(path) if path.exists() else None


def data_of(folder: Path, metadata: dict) -> datasets.BinaryData:
    """The data set of a preset.

    Raises:
        UserError: If it is not one of the library's.
    """
    if metadata["dataset"] not in datasets.NAMES:
        raise UserError(
            f"{folder}: its data set, {metadata['dataset']}, is not one of the library's data sets."
        )
    return datasets.load(metadata["dataset"])


def estimate(
    folder: Path,
    metadata: dict,
    num_particles: int,
    first_rows: int | None = None,
    console: Console | None = None,
) -> tuple[dict, Path]:
    """Estimates the test likelihood of a preset as at the end of its run.

    An interrupted estimate continues where it was.

    Args:
        folder: The preset's folder.
        metadata: The content of its `preset.json`.
        num_particles: K.
        first_rows: How many test rows to use, from the first; all by default.
        console: Rich console for the progress bar; standard output by default.

    Returns:
        The fields that `MEASURED` names, and the file to remove once they are safe: with it, the
        same estimate is there at once.
    """
    recipe = recipe_of(folder)
    x = evaluation_data.first_rows(data_of(folder, metadata).test, first_rows)
    rows, counts = datasets.count_rows(x)
    name = f"measuring-{folder.name}-{len(x)}-{num_particles}.json"
    partial = make_directory(downloads.home()) / name
    batch_size = recipe["evaluation"]["batch_size"] if recipe else BATCH_SIZE
    seed = recipe["seed"] if recipe else SEED
    machine = HelmholtzMachine.from_preset(folder)
    with evaluation.progress(console or Console(), folder.name, len(rows), batch_size) as report:
        found = evaluation.evaluate(
            machine, rows, num_particles, batch_size, seed, partial, report, counts
        )
    return as_listed(found), partial


def as_listed(found: dict) -> dict:
    """What `preset.json` keeps of a result of `evaluation.evaluate`."""
    return {key: found[key] for key in MEASURED} | {
        key: int(found[key]) for key in ("num_particles", "num_data")
    }


def check_better(metadata: dict, num_particles: int) -> None:
    """Checks that a likelihood would be better than the one that is listed.

    Raises:
        UserError: If that one has more particles.
    """
    listed = metadata["test"]["num_particles"]
    if listed > num_particles:
        raise UserError(
            f"{metadata['name']} was measured with K = {listed:,}, which is better than K = "
            f"{num_particles:,}."
        )


def with_likelihood(metadata: dict, found: dict, first_rows: int | None) -> dict:
    """The metadata of a preset with a likelihood that was measured."""
    if first_rows is None:
        return {**metadata, "test": found}
    others = [
        entry
        for entry in metadata.get("test_on_few_rows", [])
        if (entry["num_data"], entry["num_particles"]) != (first_rows, found["num_particles"])
    ]
    return {**metadata, "test_on_few_rows": [*others, found]}
