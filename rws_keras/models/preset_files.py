"""The files of a preset: how its folder is described, checked and written.

A preset is a folder of plain files: `preset.json` says what the machine is, and the size and
SHA-256 of the others, among them `config.json` (the layers) and `model.weights.h5` (arrays).
None of it is code.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from rws_keras import files
from rws_keras.errors import UserError

METADATA = "preset.json"
CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
FORMAT = 1

# What `preset.json` says about every machine.
_ABOUT = {"name": str, "visible_units": int, "latent_units": list, "num_parameters": int}


class PresetError(UserError):
    """A preset that does not exist, is not available, or is damaged."""


class UnknownPresetError(PresetError):
    """There is no preset of that name, or at that path."""


def is_preset(folder: Path) -> bool:
    """Whether a folder holds a preset."""
    return os.path.isfile(folder / METADATA)  # which is false, too, where one may not look


def is_plain_name(name: str) -> bool:
    """Whether a name can be that of a file or a folder: it leads nowhere else."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name) is not None


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict:
    """Reads `preset.json` or a zoo's `index.json`, of which only the format is checked.

    Raises:
        PresetError: If it is missing, not JSON, or of another format.
    """
    try:
        content = files.read_json(path)
    except UserError as error:
        raise PresetError(f"{error} Expected an object of format {FORMAT}.") from error
    if content.get("format") != FORMAT:
        raise PresetError(
            f"{path} does not have format {FORMAT}, the only one that this version of rws_keras "
            "reads."
        )
    return content


def read_metadata(path: Path) -> dict:
    """Reads `preset.json`.

    Returns:
        Its content: `name`, `visible_units`, `latent_units`, `num_parameters`, `files` (each
        with `size` and `sha256`) and others.

    Raises:
        PresetError: If it is missing or damaged. Names of files that lead out of the folder
            are refused.
    """
    metadata = read_json(path)
    listed = metadata.get("files", {})
    try:
        sound = {CONFIG, WEIGHTS} <= set(listed) and all(
            is_plain_name(name)
            and isinstance(entry["size"], int)
            and re.fullmatch("[0-9a-f]{64}", entry["sha256"])
            for name, entry in listed.items()
        )
    except (TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise PresetError(
            f"{path} is damaged: it must list {CONFIG} and {WEIGHTS} with size and SHA-256."
        )
    for key, kind in _ABOUT.items():
        if not isinstance(metadata.get(key), kind):
            raise PresetError(f"{path} is damaged: it must have {', '.join(_ABOUT)}.")
    return metadata


def check_folder(folder: Path) -> Path:
    """Returns a preset's folder after comparing its files with `preset.json`.

    Raises:
        PresetError: If a file is missing or its content is not the listed one.
    """
    for name, entry in read_metadata(folder / METADATA)["files"].items():
        try:
            digest = sha256(folder / name)
        except FileNotFoundError:
            raise PresetError(
                f"{folder} has no {name}, which {METADATA} lists. Restore the file."
            ) from None
        except OSError as error:
            raise PresetError(
                f"{folder / name} cannot be read: {error.strerror}. Restore the file, or change "
                "its permissions."
            ) from error
        if digest != entry["sha256"]:
            raise PresetError(
                f"{folder / name} is damaged: its SHA-256 is not the one in {METADATA}. "
                "Restore the file."
            )
    return folder


def write_metadata(folder: Path, metadata: dict) -> None:
    """Writes `preset.json` with the list of the other files in the folder."""
    listed = {
        path.name: {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name != METADATA
    }
    files.write_json(folder / METADATA, {**metadata, "files": listed})


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A directory to fill, which replaces the folder once it is complete and on disk.

    Raises:
        PresetError: If there is something at that path that is not a preset: it is kept.
    """
    with files.writing(folder):
        _check_replaceable(folder)
    files.make_directory(folder.parent)
    with files.replace_directory(folder) as new:
        yield new


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise PresetError(f"{folder} is a file, but a preset is a folder. Save to another path.")
    known = set()
    if is_preset(folder):
        known = {METADATA, *read_metadata(folder / METADATA)["files"]}
    if foreign := sorted({path.name for path in folder.iterdir()} - known):
        raise PresetError(
            f"{folder} is not replaced, because it contains files that do not belong to a preset: "
            f"{', '.join(foreign[:5])}{', …' if foreign[5:] else ''}. Save to another path."
        )
