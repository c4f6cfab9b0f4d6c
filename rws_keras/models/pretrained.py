"""Presets: pretrained machines as data, listed, found, loaded and saved.

A preset (see `preset_files`) is in a folder, at an http(s) address, on the Hugging Face Hub, or
in a zoo: a folder of presets with an `index.json`, which has the SHA-256 of each `preset.json`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import keras

from rws_keras import resources
from rws_keras.errors import PrecisionError, UserError, reason
from rws_keras.files import expanded, write_json
from rws_keras.models import downloads
from rws_keras.models.preset_files import (
    CONFIG,
    FORMAT,
    METADATA,
    WEIGHTS,
    PresetError,
    UnknownPresetError,
    check_folder,
    is_plain_name,
    is_preset,
    read_json,
    replacing,
    write_metadata,
)
from rws_keras.suggestions import did_you_mean
from rws_keras.version import __version__

INDEX = "index.json"
ADDRESS_VARIABLE = "RWS_KERAS_ZOO"

Machine = TypeVar("Machine", bound=keras.Model)

# What may differ in a machine with the same weights.
_APART_FROM_WEIGHTS = ("seed", "name", "schema")


def zoo_address(zoo: str | os.PathLike | None = None) -> str:
    """Where presets are looked up by name.

    Args:
        zoo: A directory or an http(s) address; by default the environment variable
            `RWS_KERAS_ZOO`, else the zoo that comes with the library.

    Raises:
        PresetError: If there is none of them.
    """
    address = os.fspath(zoo) if zoo else os.environ.get(ADDRESS_VARIABLE)
    if address:
        return address.rstrip("/") if _is_address(address) else str(expanded(address))
    if (resources.folder("zoo") / INDEX).exists():
        return str(resources.folder("zoo"))
    raise PresetError(
        f"This installation comes without a zoo. Set {ADDRESS_VARIABLE} to the directory or "
        f"http(s) address of a zoo (where its {INDEX} is), or give the path or address of the "
        "preset."
    )


def presets(zoo: str | os.PathLike | None = None) -> dict[str, dict]:
    """The presets of the zoo, with information about each.

    Args:
        zoo: A directory or an http(s) address; see `zoo_address`.

    Returns:
        For each name a dict with `description`, `dataset`, `latent_units`, `num_parameters`,
        `size` (bytes to download), `test` (the measured likelihood) and others.

    Raises:
        PresetError: If the zoo cannot be reached, or its index is damaged.

    Example:
    ```python
    for name, about in rws_keras.presets().items():
        print(name, about["test"]["log_likelihood"])
    ```
    """
    address = zoo_address(zoo)
    if _is_address(address):
        path = downloads.download_index(address, INDEX)
    else:
        path = Path(address, INDEX)
    entries = read_json(path).get("presets")
    if not isinstance(entries, dict) or not all(
        isinstance(entry, dict) and isinstance(entry.get("sha256"), str)
        for entry in entries.values()
    ):
        raise PresetError(
            f"{address} is not a zoo: its {INDEX} does not list presets and their SHA-256."
        )
    return entries


def locate(preset: str | os.PathLike, zoo: str | os.PathLike | None = None) -> Path:
    """The folder of a preset on this computer, with its files checked; downloads them if needed.

    Args:
        preset: A name from `presets()`, the path of a folder, an http(s) address, or
            `hf://USER/NAME` (`hf://USER/NAME@REVISION`) for the Hugging Face Hub.
        zoo: Where names are looked up; see `zoo_address`.

    Returns:
        The folder. Downloaded ones are kept under the Keras home, in `rws_keras`, those of
        the Hub in the Hub's own cache.

    Raises:
        PresetError: If there is no such preset, or its files are damaged or not available.
    """
    handle = os.fspath(preset)
    name = handle.rstrip("/")
    if handle.startswith("hf://"):
        return downloads.download_from_hub(handle)
    if _is_address(handle):
        return downloads.download_preset(name)
    path = expanded(handle)
    if is_preset(path):
        return check_folder(path)
    if not is_plain_name(name):
        raise UnknownPresetError(
            f"{path} is not the folder of a preset: it has no {METADATA} that can be read."
        )
    known = presets(zoo)
    if name not in known:
        raise UnknownPresetError(
            f"Unknown preset '{name}'; expected a folder, an http(s) address, hf://USER/NAME, or "
            f"one of {', '.join(known)}.{did_you_mean(name, known)}"
        )
    address = zoo_address(zoo)
    if _is_address(address):
        return downloads.download_preset(f"{address}/{name}", known[name]["sha256"])
    return check_folder(Path(address, name))


def load(
    cls: type[Machine],
    preset: str | os.PathLike,
    load_weights: bool = True,
    overrides: dict | None = None,
    zoo: str | os.PathLike | None = None,
) -> Machine:
    """Loads the machine of a preset; `from_preset` of `HelmholtzMachine` is this.

    Args:
        cls: The class that the machine must be of.
        preset: See `locate`.
        load_weights: Whether to load the weights; else they are fresh, as the layers'
            initializers give them.
        overrides: Arguments of the machine to replace: `seed`, `name` and `schema`, and without
            the weights also its layers.
        zoo: Where names are looked up; see `zoo_address`.

    Returns:
        The machine, not compiled.

    Raises:
        PresetError: If there is no such preset, or it is damaged or not available.
        UserError: If an override is unknown, or does not match the weights.
    """
    folder = locate(preset, zoo)
    with _no_machine_in(folder):
        config = json.loads((folder / CONFIG).read_text())
        machine = keras.saving.deserialize_keras_object(config, safe_mode=True)
        if not isinstance(machine, cls):
            raise TypeError(f"it describes a {type(machine).__name__}, not a {cls.__name__}")
    if overrides:
        config = machine.get_config()
        _check_overrides(overrides, list(config), load_weights)
        kept = {key: value for key, value in config.items() if key not in overrides}
        machine = type(machine)(**keras.saving.deserialize_keras_object(kept), **overrides)
    if not load_weights:
        machine.calibration = None
    if load_weights:
        own: dict = {}
        machine.save_own_variables(own)
        with _no_machine_in(folder):
            machine.load_weights(folder / WEIGHTS)
        # The state of the noise is among the weights; another seed restarts it.
        if overrides and "seed" in overrides:
            machine.load_own_variables(own)
    return machine


def save(machine: keras.Model, path: str | os.PathLike, metadata: dict | None = None) -> Path:
    """Saves a machine as a preset; `save_to_preset` of `HelmholtzMachine` is this.

    Optimizer, objective and their state are left out: a preset is for use and for new training; to
    continue a training, use checkpoints.

    Args:
        machine: The machine.
        path: The folder. An existing preset is replaced, anything else is not.
        metadata: Further entries of `preset.json`.

    Returns:
        The folder.

    Raises:
        PresetError: If there is something at that path that is not a preset.
    """
    with saving(machine, path, metadata):
        pass
    return expanded(path)


@contextlib.contextmanager
def saving(
    machine: keras.Model, path: str | os.PathLike, metadata: dict | None = None
) -> Iterator[tuple[Path, dict]]:
    """Saves a machine as `save` does, together with what the block adds.

    Yields:
        The folder, still under a temporary name, and the content of `preset.json` without the list
        of files. Files and entries that the block adds become part of the preset.
    """
    target = expanded(path).resolve()
    with replacing(target) as folder:
        plain = _without_training(machine)
        write_json(folder / CONFIG, keras.saving.serialize_keras_object(plain))
        plain.save_weights(folder / WEIGHTS)
        content = {
            "format": FORMAT,
            "name": target.name,
            "visible_units": plain.visible_units,
            "latent_units": plain.latent_units,
            "num_parameters": plain.count_params(),
            "rws_keras": __version__,
            **(metadata or {}),
        }
        yield folder, content
        write_metadata(folder, content)


def _without_training(machine: keras.Model) -> keras.Model:
    """A copy of a machine that was never compiled."""
    copy = machine.from_config(machine.get_config())
    for stack in ("p_layers", "q_layers"):
        for new, old in zip(getattr(copy, stack), getattr(machine, stack), strict=True):
            new.set_weights(old.get_weights())
    own: dict = {}
    machine.save_own_variables(own)
    copy.load_own_variables(own)
    return copy


def _check_overrides(overrides: dict, known: list[str], load_weights: bool) -> None:
    allowed = [key for key in known if key in _APART_FROM_WEIGHTS or not load_weights]
    for key in overrides:
        if key in allowed:
            continue
        advice = f"; pass load_weights=False, because the weights belong to the preset's {key}"
        raise UserError(
            f"`{key}` of a preset cannot be replaced"
            f"{advice if key in known else ''}. Allowed: {', '.join(allowed)}."
        )


@contextlib.contextmanager
def _no_machine_in(folder: Path) -> Iterator[None]:
    """Turns whatever goes wrong into a `PresetError` that names the preset."""
    try:
        yield
    except PrecisionError:  # nothing is wrong with the preset
        raise
    except Exception as error:  # json, Keras and h5py each have errors of their own
        raise PresetError(f"{folder} does not hold a machine: {reason(error)}.") from error


def _is_address(name: str) -> bool:
    return "://" in name
