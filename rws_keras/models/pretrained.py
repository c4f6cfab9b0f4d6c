"""Presets: pretrained machines as data, in a folder, under an address or in the zoo.

A preset is a folder of plain files: `preset.json` says what the machine is, what it was measured
at, and the size and SHA-256 of the others, among them `config.json` (the layers) and
`model.weights.h5` (arrays). A zoo is a folder of presets with an `index.json`, which has the
SHA-256 of each `preset.json`. Nothing of it is code.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
import urllib.error
import warnings
from collections.abc import Iterator
from pathlib import Path

import keras

from rws_keras import resources
from rws_keras.errors import UserError

INDEX = "index.json"
METADATA = "preset.json"
CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
FORMAT = 1

ADDRESS_VARIABLE = "RWS_KERAS_ZOO"

# A server that sends nothing for so long is given up; a slow one is not.
TIMEOUT_SECONDS = 30.0
_PAUSES = (0.5, 2.0)  # seconds before the second and the third try
_OLD_SECONDS = 24 * 3600.0


class PresetError(UserError):
    """A preset that is not there, not to be had, or not what it should be."""


def zoo_address(zoo: str | os.PathLike | None = None) -> str:
    """Where presets are looked up by name.

    Args:
        zoo: A directory or an http(s) address; by default the environment variable
            `RWS_KERAS_ZOO`, else the `zoo` folder of the checkout.

    Raises:
        PresetError: If there is none of them.
    """
    address = os.fspath(zoo) if zoo else os.environ.get(ADDRESS_VARIABLE)
    if address:
        return address.rstrip("/")
    if (resources.folder("zoo") / INDEX).exists():
        return str(resources.folder("zoo"))
    raise PresetError(
        f"There is no zoo beside this installation. Set {ADDRESS_VARIABLE} to the directory or the "
        f"http(s) address of one (where its {INDEX} is), or give the preset's own path or address."
    )


def presets(zoo: str | os.PathLike | None = None) -> dict[str, dict]:
    """The presets of the zoo, and what is known of each.

    Args:
        zoo: A directory or an http(s) address; see `zoo_address`.

    Returns:
        For each name a dict with `description`, `dataset`, `latent_units`, `num_parameters`,
        `size` (bytes to download), `test` (the measured likelihood) and others.

    Raises:
        PresetError: If the zoo is not to be had or damaged.

    Example:
    ```python
    for name, about in rws_keras.presets().items():
        print(name, about["test"]["log_likelihood"])
    ```
    """
    address = zoo_address(zoo)
    path = _fetch(f"{address}/{INDEX}", _cache(address)) if _is_url(address) else Path(address)
    index = read_metadata(path if path.is_file() else path / INDEX)
    if not isinstance(index.get("presets"), dict):
        raise PresetError(f"{address} is not a zoo: its {INDEX} lists no presets.")
    return index["presets"]


def locate(preset: str | os.PathLike, zoo: str | os.PathLike | None = None) -> Path:
    """The folder of a preset on this machine, its files checked; downloads them if need be.

    Args:
        preset: A name from `presets()`, the path of a folder, or an http(s) address.
        zoo: Where names are looked up; see `zoo_address`.

    Returns:
        The folder. Downloaded ones are kept under the Keras home, in `rws_keras`.

    Raises:
        PresetError: If there is no such preset, or its files are damaged or cannot be had.
    """
    name = os.fspath(preset).rstrip("/")
    if _is_url(name):
        return _download(name)
    if (Path(name) / METADATA).exists():
        return check_folder(Path(name))
    if not _is_plain(name):
        raise PresetError(f"{name} is not the folder of a preset: it has no {METADATA}.")
    known = presets(zoo)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise PresetError(
            f"Unknown preset '{name}'; expected a folder, an http(s) address, or one of "
            f"{', '.join(known)}.{hint}"
        )
    address = f"{zoo_address(zoo)}/{name}"
    return _download(address, known[name]) if _is_url(address) else check_folder(Path(address))


def read_metadata(path: Path) -> dict:
    """Reads `preset.json` or `index.json`.

    Raises:
        PresetError: If it is missing, damaged, or of another format.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PresetError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise PresetError(
            f"{path} is not of format {FORMAT}, which this version of rws_keras reads."
        )
    return content


def files_of(metadata: dict, where: str) -> dict[str, dict]:
    """The files that `preset.json` lists, each with `size` and `sha256`.

    Raises:
        PresetError: If the list is not as it should be. Names that lead out of the folder
            are among what is refused.
    """
    files = metadata.get("files")
    try:
        sound = {CONFIG, WEIGHTS} <= set(files) and all(
            _is_plain(name)
            and isinstance(entry["size"], int)
            and re.fullmatch("[0-9a-f]{64}", entry["sha256"])
            for name, entry in files.items()
        )
    except (TypeError, KeyError):
        sound = False
    if not sound:
        raise PresetError(
            f"{where} is damaged: it must list {CONFIG} and {WEIGHTS} with size and SHA-256."
        )
    return files


def check_folder(folder: Path) -> Path:
    """Returns a preset's folder after comparing its files with `preset.json`.

    Raises:
        PresetError: If a file is missing or its content is not the listed one.
    """
    metadata = folder / METADATA
    for name, entry in files_of(read_metadata(metadata), str(metadata)).items():
        if not (folder / name).is_file():
            raise PresetError(f"{folder} lacks {name}, which {METADATA} lists. Restore the file.")
        if sha256(folder / name) != entry["sha256"]:
            raise PresetError(
                f"{folder / name} is damaged: its SHA-256 is not the one in {METADATA}. "
                "Restore the file."
            )
    return folder


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(address: str, known: dict | None = None) -> Path:
    """Downloads a preset; `known` is its entry in a zoo's index, with `preset.json`'s hash."""
    if not re.match("https?://", address):
        raise PresetError(f"Presets are downloaded by http or https, not from {address}.")
    folder = _cache(address)
    metadata = read_metadata(_fetch(f"{address}/{METADATA}", folder, known and known["sha256"]))
    for name, entry in files_of(metadata, f"{address}/{METADATA}").items():
        _fetch(f"{address}/{name}", folder, entry["sha256"])
    return folder


def _cache(address: str) -> Path:
    """The folder under the Keras home for what comes from an address."""
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    digest = hashlib.sha256(address.encode()).hexdigest()[:12]
    return Path(home).expanduser() / "rws_keras" / f"{address.split('/')[-1]}-{digest}"


def _fetch(address: str, folder: Path, expected: str | None = None) -> Path:
    """Downloads a file into a folder, unless it is there already; never half of it.

    Args:
        address: Where it is.
        folder: Where to put it.
        expected: Its SHA-256. A file without one is always downloaded anew, and only if that
            fails for want of a connection the copy of last time serves.

    Returns:
        The path of the file.
    """
    path = folder / address.split("/")[-1]
    if expected and path.exists() and sha256(path) == expected:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".partial-*"):  # by a process that was killed
        if time.time() - left.stat().st_mtime > _OLD_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    # `get_file` writes under the final name, so it gets a directory of its own first.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
        try:
            downloaded = _try_to_get(address, path.name, partial, expected)
        except ConnectionError as error:
            if expected or not path.exists():
                raise PresetError(str(error)) from error
            warnings.warn(f"{error} Using the copy of last time.", stacklevel=2)
            return path
        os.replace(downloaded, path)
    return path


def _try_to_get(address: str, name: str, directory: str, expected: str | None) -> str:
    """Keras's `get_file`, tried three times.

    Raises:
        PresetError: If the server says that there is no such file, or keeps sending a wrong one.
        ConnectionError: If the server cannot be reached, fails, or breaks off.
    """
    for pause in (*_PAUSES, None):
        try:
            with _timeout():
                return keras.utils.get_file(
                    name, address, cache_dir=directory, cache_subdir="", file_hash=expected
                )
        except Exception as error:  # what get_file raises is a plain Exception
            cause = error.__context__ if type(error) is Exception else error
            refused = isinstance(cause, urllib.error.HTTPError) and 400 <= cause.code < 500
            if pause is None or refused:
                message = f"{address} cannot be downloaded: {_reason(cause)}."
                if refused or isinstance(cause, ValueError):
                    raise PresetError(message) from error
                raise ConnectionError(message) from error
            time.sleep(pause)
            # A wrong file would be taken for the right one where no hash is known.
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(directory, name))
    raise AssertionError


def _reason(cause: BaseException) -> str:
    if isinstance(cause, urllib.error.HTTPError):
        return f"the server answers {cause.code} ({cause.reason})"
    if isinstance(cause, ValueError):
        return "what the server sends is incomplete or corrupted, its SHA-256 is another"
    if isinstance(cause, TimeoutError):
        return f"the server has sent nothing for {TIMEOUT_SECONDS:.0f} seconds"
    return str(getattr(cause, "reason", cause)).rstrip(".")


@contextlib.contextmanager
def _timeout() -> Iterator[None]:
    """Gives new sockets a time limit: `get_file` takes none and would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _is_url(name: str) -> bool:
    return "://" in name


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name) is not None
