"""Publishing finished runs and other machines, and keeping the zoo's generated files up to date."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from rich.console import Console

from rws_keras import HelmholtzMachine, PresetError, datasets, resources
from rws_keras.errors import UserError
from rws_keras.files import read_json, replace_file, write_json
from rws_keras.models import preset_files, pretrained
from rws_keras.training import evaluation, evaluation_data, fitting, reporting
from rws_keras.training.run import Run
from rws_keras.training.sources import Source
from rws_keras.zoo import cards, leaderboard, measuring

ZOO = resources.folder("zoo")
CARD = "README.md"

# What the index has of `preset.json`.
_INDEXED = (
    *("description", "dataset", "family", "visible_units", "latent_units"),
    *("num_parameters", "test"),
)
# And of presets that this version has published.
_FAMILIES = ("family_of_q", "family_of_prior")


def publish(run: Run, name: str, zoo: Path = ZOO) -> Path:
    """Writes the preset of a finished run, and the zoo's index and leaderboard.

    Args:
        run: A finished run.
        name: The preset's name; an existing preset of that name is replaced.
        zoo: Directory of the zoo.

    Returns:
        The preset's folder.

    Raises:
        UserError: If the run is not finished, the name is not a plain one, or the zoo holds
            presets that were not published.
    """
    _check_name(name)
    _entries(zoo)
    write_preset(run, zoo / name)
    write_index(zoo)
    return zoo / name


def publish_machine(
    source: Source,
    name: str,
    zoo: Path,
    data: str | None,
    description: str | None,
    num_particles: int,
) -> Path:
    """Publishes a machine that does not come from a run, with its likelihood on given data.

    How it was trained is not known, and the card says so.

    Args:
        source: A `.keras` file, or a preset that was saved and not published.
        name: The preset's name; an existing preset of that name is replaced.
        zoo: Directory of the zoo.
        data: The name of a data set, whose test split is taken, or a file.
        description: What the machine is, in a line.
        num_particles: K of the likelihood.

    Returns:
        The preset's folder.

    Raises:
        UserError: If the machine was published before, data or description are not given, the data
            do not fit, the name is not a plain one, or the zoo holds presets that were not
            published.
    """
    _check_name(name)
    _entries(zoo)
    if "test" in (source.metadata or {}):
        raise UserError(
            f"{source.path} is a published preset already. Copy its folder into the zoo."
        )
    if data is None or description is None:
        raise UserError(
            f"{source.path} has neither a description of the machine nor a test likelihood. Give "
            "test data with --data and a description with --description; machine.save_to_preset "
            "writes a preset outside a zoo."
        )
    machine = source.machine()
    evaluation_rows = evaluation_data.choose(source, machine, data)
    measured = evaluation.evaluate(
        machine,
        evaluation_rows.x,
        num_particles,
        measuring.BATCH_SIZE,
        measuring.SEED,
        sample_weight=evaluation_rows.counts,
    )
    is_path = datasets.is_path(data)
    image_shape = None if is_path else datasets.load(data).image_shape
    known = {
        "description": description,
        "dataset": Path(data).name if is_path else data,
        **cards.families(machine),
        "test": measuring.as_listed(measured),
        "image_shape": image_shape and list(image_shape),
    }
    with pretrained.saving(machine, zoo / name, known) as (partial, metadata):
        samples = fitting.draw_samples(
            machine, partial / "samples.png", 100, measuring.SEED, image_shape
        )
        metadata["samples"] = samples.name
        (partial / CARD).write_text(cards.model_card(metadata, None))
    write_index(zoo)
    return zoo / name


def _check_name(name: str) -> None:
    if not re.fullmatch("[a-z0-9][a-z0-9_-]*", name):
        raise UserError(
            f"{name!r} cannot be the name of a preset: use lower-case letters, digits, - and _ "
            "only. Give another name with --name."
        )


def write_preset(run: Run, folder: Path) -> None:
    """Writes the preset of a finished run: machine, recipe, samples, measured figures, card.

    Args:
        run: A finished run.
        folder: Where to write it; its name is that of the preset.

    Raises:
        UserError: If the run is not finished, or the folder holds something else.
    """
    measured = _measured(run)
    recipe = run.recipe.without_paths()
    machine = run.best_machine()
    with pretrained.saving(machine, folder, measured) as (partial, metadata):
        write_json(partial / measuring.RECIPE, recipe)
        data = run.recipe.load_data()
        samples = fitting.draw_samples(
            machine, partial / "samples.png", 100, run.recipe.seed, data.image_shape
        )
        metadata["samples"] = samples.name
        metadata["image_shape"] = data.image_shape and list(data.image_shape)
        (partial / CARD).write_text(cards.model_card(metadata, recipe))


def _measured(run: Run) -> dict:
    """What is known of a finished run."""
    result = reporting.summary(run)
    recipe, about = result["recipe"], result["run"]

    def best(split):
        """The evaluation with the most particles."""
        entries = [entry for entry in run.complete_evaluations if entry["split"] == split]
        entry = max(entries, key=lambda entry: entry["num_particles"])
        return measuring.as_listed(entry)

    on_few_rows = [
        measuring.as_listed(entry)
        for entry in run.evaluations
        if entry["split"] == "test" and "first_rows" in entry
    ]

    return {
        "description": recipe["description"],
        "dataset": recipe["dataset"],
        **cards.families(run.best_machine()),
        "test": best("test"),
        **({"test_on_few_rows": on_few_rows} if on_few_rows else {}),
        "validation": best("validation"),
        "independent_units": result["independent_units"],
        "training": {
            **{key: result[key] for key in ("epochs", "best_epoch", "updates", "seconds")},
            "date": about["started"][:10],
            **{key: about[key] for key in ("seed", "command", "versions", "machine")},
        },
    }


def folders(zoo: Path = ZOO) -> list[Path]:
    """The presets of a zoo on this machine."""
    return sorted(path.parent for path in zoo.glob(f"*/{preset_files.METADATA}"))


def write_index(zoo: Path = ZOO) -> None:
    """Writes `index.json` and the leaderboard from the presets that are there.

    Raises:
        PresetError: If one of them was not published.
    """
    entries = _entries(zoo)
    write_json(zoo / pretrained.INDEX, {"format": preset_files.FORMAT, "presets": entries})
    with replace_file(zoo / CARD) as temporary:
        temporary.write_text(leaderboard.leaderboard(entries))


def regenerate(zoo: Path = ZOO) -> None:
    """Regenerates cards, index and leaderboard from what was measured."""
    for folder in folders(zoo):
        metadata = preset_files.read_metadata(folder / preset_files.METADATA)
        _check_published(folder, metadata)
        if any(key not in metadata for key in _FAMILIES):
            metadata |= cards.families(HelmholtzMachine.from_preset(folder))
        _rewrite(folder, metadata)
    write_index(zoo)


def _rewrite(folder: Path, metadata: dict) -> None:
    """Writes metadata and card of a preset."""
    with preset_files.replacing(folder) as partial:
        shutil.copytree(folder, partial, dirs_exist_ok=True)
        (partial / CARD).write_text(cards.model_card(metadata, measuring.recipe_of(folder)))
        preset_files.write_metadata(partial, metadata)


def measure(
    folder: Path,
    num_particles: int,
    first_rows: int | None = None,
    console: Console | None = None,
) -> None:
    """Measures the test likelihood of a preset with more particles.

    Args:
        folder: The preset's folder, whose card and metadata are rewritten.
        num_particles: K.
        first_rows: How many test rows to use, from the first, with this K and with that of the
            figure for all rows: the card then shows both. By default all, and the figure is
            replaced.
        console: Rich console for the progress bar; standard output by default.

    Raises:
        UserError: If a likelihood with more particles is listed already, or the data are not among
            the data sets of the library.
    """
    metadata = preset_files.read_metadata(folder / preset_files.METADATA)
    _check_published(folder, metadata)
    particles = [num_particles]
    if first_rows is None:
        measuring.check_better(metadata, num_particles)
    else:  # beside the K of the figure for all rows
        particles = sorted({num_particles, metadata["test"]["num_particles"]})
    for k in particles:
        found, partial = measuring.estimate(folder, metadata, k, first_rows, console)
        metadata = measuring.with_likelihood(metadata, found, first_rows)
        _rewrite(folder, metadata)
        partial.unlink(missing_ok=True)


def calibrate(folder: Path) -> None:
    """Calibrates a preset with the validation rows of its data set; see `machine.calibrate`.

    Args:
        folder: The preset's folder.

    Raises:
        UserError: If its data are not among the data sets of the library.
    """
    metadata = preset_files.read_metadata(folder / preset_files.METADATA)
    _check_published(folder, metadata)
    data = measuring.data_of(folder, metadata)
    calibration = HelmholtzMachine.from_preset(folder).calibrate(data.validation)
    with preset_files.replacing(folder) as partial:
        shutil.copytree(folder, partial, dirs_exist_ok=True)
        content = read_json(partial / preset_files.CONFIG)
        content["config"]["calibration"] = calibration.get_config()
        write_json(partial / preset_files.CONFIG, content)
        preset_files.write_metadata(partial, metadata)


def _entries(zoo: Path) -> dict[str, dict]:
    entries = {}
    for folder in folders(zoo):
        metadata = preset_files.read_metadata(folder / preset_files.METADATA)
        _check_published(folder, metadata)
        entries[folder.name] = {
            **{key: metadata[key] for key in _INDEXED},
            **{key: metadata[key] for key in _FAMILIES if key in metadata},
            "size": sum(entry["size"] for entry in metadata["files"].values()),
            "sha256": preset_files.sha256(folder / preset_files.METADATA),
        }
    return entries


def _check_published(folder: Path, metadata: dict) -> None:
    if lacking := [key for key in _INDEXED if key not in metadata]:
        raise PresetError(
            f"{folder} was saved, but not published: its metadata lack {', '.join(lacking)}. A zoo "
            "contains only published presets; move it elsewhere."
        )


def card(folder: Path) -> str:
    """The card of a preset as Markdown, or what is known of one that has none."""
    if (folder / CARD).exists():
        return (folder / CARD).read_text()
    metadata = preset_files.read_metadata(folder / preset_files.METADATA)
    latents = cards.sizes(metadata["latent_units"])
    return (
        f"# {metadata['name']}\n\nThis preset has no card: its machine was saved, not published. "
        f"It has {metadata['visible_units']} visible units, latent units {latents} (bottom "
        f"first) and {metadata['num_parameters']:,} parameters.\n"
    )


def verify(folder: Path, measure: bool = False, console: Console | None = None) -> str:
    """Checks a preset: files, card, machine and, if wanted, the measured test likelihood.

    Args:
        folder: The preset's folder.
        measure: Whether to estimate the test likelihood again, with the same K and seed. An
            interrupted estimate continues where it was.
        console: Rich console for the progress bar; standard output by default.

    Returns:
        What was found, as a sentence.

    Raises:
        PresetError: If something does not hold.
    """
    preset_files.check_folder(folder)
    metadata = preset_files.read_metadata(folder / preset_files.METADATA)
    if measure or CARD in metadata["files"]:
        _check_published(folder, metadata)
        card = cards.model_card(metadata, measuring.recipe_of(folder))
        if (folder / CARD).read_text() != card:
            raise PresetError(
                f"{folder / CARD} does not match {preset_files.METADATA}; publish the preset again."
            )
    machine = HelmholtzMachine.from_preset(folder)
    if machine.count_params() != metadata["num_parameters"]:
        raise PresetError(
            f"{folder} holds {machine.count_params():,} parameters, but its "
            f"{preset_files.METADATA} lists {metadata['num_parameters']:,}."
        )
    if measure:
        return _measure_again(folder, metadata, console)
    note = "" if CARD in metadata["files"] else ", no card"
    return (
        f"{len(metadata['files'])} files and {machine.count_params():,} parameters as listed{note}"
    )


def _measure_again(folder: Path, metadata: dict, console: Console | None) -> str:
    listed = metadata["test"]
    k = listed["num_particles"]
    found, partial = measuring.estimate(folder, metadata, k, console=console)
    partial.unlink(missing_ok=True)
    log_likelihood = found["log_likelihood"]
    # The noise is the same; only rounding on another processor can flip a single unit.
    if abs(log_likelihood - listed["log_likelihood"]) > 0.1 * listed["log_likelihood_se"]:
        raise PresetError(
            f"{folder} lists {listed['log_likelihood']:.3f} nats, but the measured value is "
            f"{log_likelihood:.3f}."
        )
    return f"test log-likelihood {log_likelihood:.2f} nats, as listed"


def verify_index(zoo: Path = ZOO) -> None:
    """Checks that index and leaderboard are those of the presets that are there.

    Raises:
        PresetError: If they are not.
    """
    entries = _entries(zoo)
    index = preset_files.read_json(zoo / pretrained.INDEX)
    if index["presets"] != json.loads(json.dumps(entries)):
        raise PresetError(f"{zoo / pretrained.INDEX} does not match the presets in {zoo}.")
    if (zoo / CARD).read_text() != leaderboard.leaderboard(entries):
        raise PresetError(f"{zoo / CARD} does not match the presets in {zoo}.")
