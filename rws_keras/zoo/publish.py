"""Turning a finished run into a preset, and keeping the zoo's generated files up to date."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras

from rws_keras import HelmholtzMachine, PresetError, datasets, resources
from rws_keras.errors import UserError
from rws_keras.models import pretrained
from rws_keras.training import fitting, reporting
from rws_keras.training.run import Run, read_json, write_json
from rws_keras.zoo import cards

ZOO = resources.folder("zoo")
CARD = "README.md"


def publish(run: Run, name: str, zoo: Path = ZOO) -> Path:
    """Writes the preset of a finished run, and the zoo's index and leaderboard.

    Args:
        run: A finished run.
        name: The preset's name; an existing preset of that name is replaced.
        zoo: Directory of the zoo.

    Returns:
        The preset's folder.

    Raises:
        ValueError: If the run is not finished, or the name is not a plain one.
    """
    if not re.fullmatch("[a-z0-9][a-z0-9_-]*", name):
        raise UserError(
            f"{name!r} is no name for a preset: small letters, digits, - and _ are allowed."
        )
    metadata = {"format": pretrained.FORMAT, "name": name, **_measured(run)}
    machine = run.best_machine()
    with _replacing(zoo / name) as folder:
        # Without its optimizer, whose state would be half of the file.
        fresh = HelmholtzMachine.from_config(machine.get_config())
        fresh.set_weights(machine.get_weights())
        config = keras.saving.serialize_keras_object(fresh)
        write_json(folder / pretrained.CONFIG, config)
        fresh.save_weights(folder / pretrained.WEIGHTS)
        write_json(folder / "recipe.json", run.recipe.model_dump())
        data = datasets.load(run.recipe.dataset)
        samples = fitting.draw_samples(
            machine, data, folder / "samples.png", 100, seed=run.recipe.seed
        )
        metadata["samples"] = samples.name
        metadata["image_shape"] = data.image_shape and list(data.image_shape)
        (folder / CARD).write_text(cards.model_card(metadata, run.recipe.model_dump()))
        metadata["files"] = {
            path.name: {"size": path.stat().st_size, "sha256": pretrained.sha256(path)}
            for path in sorted(folder.iterdir())
        }
        write_json(folder / pretrained.METADATA, metadata)
    write_index(zoo)
    return zoo / name


def _measured(run: Run) -> dict:
    """What is known of a finished run."""
    found = reporting.summary(run)
    recipe, about = found["recipe"], found["run"]

    def best(split):
        """The evaluation with the most particles."""
        entries = [entry for entry in found["evaluations"] if entry["split"] == split]
        entry = max(entries, key=lambda entry: entry["num_particles"])
        keys = ("log_likelihood", "log_likelihood_se", "num_particles", "num_data", "ess", "elbo")
        return {key: entry[key] for key in keys}

    return {
        "description": recipe["description"],
        "dataset": recipe["dataset"],
        "family": cards.family(recipe["model"]),
        "visible_units": run.best_machine().visible_units,
        "latent_units": recipe["model"]["latents"],
        "num_parameters": found["num_parameters"],
        "test": best("test"),
        "validation": best("validation"),
        "independent_units": found["independent_units"],
        "training": {
            **{key: found[key] for key in ("epochs", "best_epoch", "updates", "seconds")},
            "date": about["started"][:10],
            **{key: about[key] for key in ("seed", "command", "versions", "machine")},
        },
    }


def folders(zoo: Path = ZOO) -> list[Path]:
    """The presets of a zoo on this machine."""
    return sorted(path.parent for path in zoo.glob(f"*/{pretrained.METADATA}"))


def write_index(zoo: Path = ZOO) -> None:
    """Writes `index.json` and the leaderboard from the presets that are there."""
    index = {"format": pretrained.FORMAT, "presets": _entries(zoo)}
    write_json(zoo / pretrained.INDEX, index)
    (zoo / CARD).write_text(cards.leaderboard(index["presets"]))


def _entries(zoo: Path) -> dict[str, dict]:
    entries = {}
    for folder in folders(zoo):
        metadata = pretrained.read_metadata(folder / pretrained.METADATA)
        keys = ("description", "dataset", "family", "visible_units", "latent_units")
        keys += ("num_parameters", "test")
        entries[folder.name] = {
            **{key: metadata[key] for key in keys},
            "size": sum(entry["size"] for entry in metadata["files"].values()),
            "sha256": pretrained.sha256(folder / pretrained.METADATA),
        }
    return entries


def verify(folder: Path, measure: bool = False) -> str:
    """Checks a preset: files, card, machine and, if wanted, the measured test likelihood.

    Args:
        folder: The preset's folder.
        measure: Whether to estimate the test likelihood again, by the same K and seed.

    Returns:
        What was found, as a sentence.

    Raises:
        PresetError: If something does not hold.
    """
    pretrained.check_folder(folder)
    metadata = pretrained.read_metadata(folder / pretrained.METADATA)
    recipe = read_json(folder / "recipe.json")
    if (folder / CARD).read_text() != cards.model_card(metadata, recipe):
        raise PresetError(f"{folder / CARD} is not what its metadata give; publish it again.")
    machine = HelmholtzMachine.from_preset(folder)
    if machine.count_params() != metadata["num_parameters"]:
        raise PresetError(
            f"{folder} holds {machine.count_params():,} parameters, its metadata say "
            f"{metadata['num_parameters']:,}."
        )
    if not measure:
        return f"{len(metadata['files'])} files and {machine.count_params():,} parameters as listed"
    listed = metadata["test"]
    found = machine.evaluate(
        datasets.load(metadata["dataset"]).test,
        batch_size=recipe["evaluation"]["batch_size"],
        num_particles=listed["num_particles"],
        seed=recipe["seed"],
        return_dict=True,
        verbose=0,
    )["log_likelihood"]
    # The same noise: what is left are other processors' roundings, which turn single units.
    if abs(found - listed["log_likelihood"]) > 0.1 * listed["log_likelihood_se"]:
        raise PresetError(
            f"{folder} was listed with {listed['log_likelihood']:.3f} nats, now it has {found:.3f}."
        )
    return f"test log-likelihood {found:.2f} nats, as listed"


def verify_index(zoo: Path = ZOO) -> None:
    """Checks that index and leaderboard are those of the presets that are there.

    Raises:
        PresetError: If they are not.
    """
    entries = _entries(zoo)
    index = pretrained.read_metadata(zoo / pretrained.INDEX)
    if index["presets"] != json.loads(json.dumps(entries)):
        raise PresetError(f"{zoo / pretrained.INDEX} is not that of the presets in {zoo}.")
    if (zoo / CARD).read_text() != cards.leaderboard(entries):
        raise PresetError(f"{zoo / CARD} is not the leaderboard of the presets in {zoo}.")


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A directory to fill, which takes the folder's place once it is full."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
