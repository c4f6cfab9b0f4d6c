"""Fetching presets: by http and https, and from the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import time
import uuid
import warnings
from pathlib import Path

import requests
from tqdm import tqdm

from rws_keras.errors import reason
from rws_keras.files import ADVICE, expanded
from rws_keras.models.preset_files import (
    METADATA,
    PresetError,
    read_metadata,
    sha256,
)

# A server that sends nothing for this long has timed out; a slow one has not.
TIMEOUT_SECONDS = 30.0
_PAUSES = (0.5, 2.0)  # seconds before the second and the third try
_OLD_SECONDS = 24 * 3600.0
_CHUNK = 2**16


class _CorruptedError(Exception):
    """What was downloaded does not have the expected SHA-256."""


class _UnreachableError(Exception):
    """The server does not answer, fails or closes the connection: it may work again later."""


def download_preset(address: str, metadata_sha256: str | None = None) -> Path:
    """Downloads the preset at an http(s) address, unless it is in the cache already.

    Args:
        address: Where its folder is.
        metadata_sha256: The SHA-256 of its `preset.json`, where a zoo's index tells it.

    Returns:
        The folder in the cache, its files checked.

    Raises:
        PresetError: If it cannot be downloaded, or is damaged.
    """
    folder = _cache(address)
    metadata = read_metadata(_fetch(f"{address}/{METADATA}", folder, metadata_sha256))
    for name, entry in metadata["files"].items():
        _fetch(f"{address}/{name}", folder, entry["sha256"])
    return folder


def download_index(address: str, name: str) -> Path:
    """Downloads the index of a zoo; without a connection the last downloaded copy is used.

    Raises:
        PresetError: If it cannot be downloaded, and there is no copy.
    """
    return _fetch(f"{address}/{name}", _cache(address))


def _cache(address: str) -> Path:
    """The folder for what comes from an address."""
    digest = hashlib.sha256(address.encode()).hexdigest()[:12]
    return home() / f"{address.split('/')[-1]}-{digest}"


def home() -> Path:
    """The library's folder under the Keras home, for what it keeps between commands."""
    return expanded(os.environ.get("KERAS_HOME") or "~/.keras") / "rws_keras"


def _fetch(address: str, folder: Path, expected: str | None = None) -> Path:
    """Downloads a file into a folder, unless it is there already; never a part of it.

    Any number of threads and processes may do so at once, and other users can read the cache: a
    complete file needs no permission to write.

    Args:
        address: Where it is.
        folder: Where to put it.
        expected: Its SHA-256. A file without one is always downloaded again; the last copy is used
            only if it cannot be downloaded or stored.

    Returns:
        The path of the file.
    """
    if not re.match("https?://", address):
        raise PresetError(f"Presets can be downloaded only by http or https, not from {address}.")
    path = folder / address.split("/")[-1]
    if expected and _sha256(path) == expected:
        return path
    try:
        _replace(address, path, expected)
    except (_UnreachableError, OSError) as error:
        message = _not_kept(path, error) if isinstance(error, OSError) else str(error)
        if expected or not os.access(path, os.R_OK):
            raise PresetError(message) from error
        warnings.warn(f"{message} Using the last downloaded copy.", stacklevel=2)
    return path


def _sha256(path: Path) -> str | None:
    """The SHA-256 of a file in the cache, if it is there and can be read."""
    try:
        return sha256(path)
    except OSError:
        return None


def _replace(address: str, path: Path, expected: str | None) -> None:
    """Downloads a file under a name of its own, then renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(".partial-*"):  # by a process that was killed
        with contextlib.suppress(OSError):  # another process clears up too, or it is another's
            if time.time() - left.stat().st_mtime > _OLD_SECONDS:
                left.unlink()
    partial = path.parent / f".partial-{uuid.uuid4().hex}"
    try:
        _try_to_get(address, partial, expected)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _not_kept(path: Path, error: OSError) -> str:
    advice = ADVICE.get(error.errno or 0, "Choose another path.")
    return (
        f"{path.name} cannot be stored in {path.parent}: {error.strerror or reason(error)}. "
        f"{advice} The environment variable KERAS_HOME sets where downloads are stored."
    )


def _try_to_get(address: str, path: Path, expected: str | None) -> None:
    """Downloads a file, in up to three tries.

    Raises:
        PresetError: If the server says that there is no such file, or keeps sending a wrong one.
        _UnreachableError: If the server cannot be reached, fails, or breaks off.
    """
    for pause in (*_PAUSES, None):
        try:
            return _get(address, path, expected)
        except (requests.RequestException, _CorruptedError) as error:
            response = _response(error)
            refused = isinstance(error, ValueError) or (  # such as an address without a host
                response is not None and response.status_code < 500
            )
            if pause is None or refused:
                message = f"{address} cannot be downloaded: {_explain(error)}."
                if refused or isinstance(error, _CorruptedError):
                    raise PresetError(message) from error
                raise _UnreachableError(message) from error
            time.sleep(pause)
    raise AssertionError


def _get(address: str, path: Path, expected: str | None) -> None:
    digest = hashlib.sha256()
    # Uncompressed, so that the length which the server announces is that of the file.
    headers = {"Accept-Encoding": "identity"}
    with (
        path.open("wb") as file,  # first, as there is nothing to ask for if this is refused
        requests.get(address, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response,
    ):
        response.raise_for_status()
        length = response.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() else None
        # On terminals only, and only for what takes longer than a second.
        with tqdm(
            total=size,
            desc=path.name,
            unit="B",
            unit_scale=True,
            delay=1,
            leave=False,
            disable=None,
        ) as progress:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                progress.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    if expected and digest.hexdigest() != expected:
        raise _CorruptedError


def _response(error: Exception) -> requests.Response | None:
    """What the server answered instead of sending the file."""
    return error.response if isinstance(error, requests.HTTPError) else None


def _explain(error: Exception) -> str:
    if isinstance(error, _CorruptedError):
        return "the server sent an incomplete or corrupted file: its SHA-256 is not the listed one"
    if (response := _response(error)) is not None:
        return f"the server answers {response.status_code} ({response.reason})"
    cause = _cause(error)
    if isinstance(cause, TimeoutError):
        return f"the server has sent nothing for {TIMEOUT_SECONDS:.0f} seconds"
    if isinstance(cause, http.client.IncompleteRead):
        return "the server closed the connection before the end of the file"
    return getattr(cause, "strerror", None) or reason(cause)


def _cause(error: BaseException) -> BaseException:
    """What the system said, which requests and urllib3 wrap several times."""
    inner: BaseException | None = error
    while inner is not None:
        system = isinstance(inner, OSError | http.client.HTTPException)
        if system and not isinstance(inner, requests.RequestException):
            return inner
        inner = inner.__cause__ or inner.__context__
    return error


def download_from_hub(handle: str) -> Path:
    """Downloads a preset from the Hugging Face Hub, unless it is in the Hub's cache already.

    Args:
        handle: `hf://USER/NAME` or `hf://USER/NAME@REVISION`.

    Returns:
        The folder in the Hub's cache, its files checked.

    Raises:
        PresetError: If it cannot be downloaded, is damaged, or `huggingface_hub` is missing.
    """
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@(.+?))?/*", handle)
    if match is None:
        raise PresetError(
            f"{handle} is not a Hugging Face Hub address; expected hf://USER/NAME or "
            "hf://USER/NAME@REVISION."
        )
    repository, revision = match.groups()
    folder = _hub_file(repository, METADATA, revision).parent
    # All of one commit, whatever is uploaded meanwhile: the cache has a folder for each.
    commit = folder.name
    for name, entry in read_metadata(folder / METADATA)["files"].items():
        for again in (False, True):  # the copy in the cache may be damaged
            path = _hub_file(repository, name, commit, force_download=again)
            if sha256(path) == entry["sha256"]:
                break
        else:
            raise PresetError(
                f"{name} of {handle} is damaged on the Hub: its SHA-256 is not the one in "
                f"{METADATA}. Its owner should upload the whole preset again."
            )
    return folder


def _hub_file(
    repository: str, name: str, revision: str | None, force_download: bool = False
) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise PresetError(
            "Presets on the Hugging Face Hub need the package huggingface_hub: `pip install "
            "'rws-keras[hub]'`."
        ) from error
    try:
        return Path(
            huggingface_hub.hf_hub_download(
                repository,
                name,
                revision=revision,
                library_name="rws-keras",
                force_download=force_download,
            )
        )
    except Exception as error:  # httpx, the file system and the Hub each have errors of their own
        raise PresetError(
            f"{name} of hf://{repository} cannot be downloaded: "
            f"{_explain_hub(error, huggingface_hub.errors)}."
        ) from error


def _explain_hub(error: Exception, errors) -> str:
    login = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return f"its owner restricts access; request it on the Hub's page, then {login}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the Hub has no such repository, or it is private; check the name, or {login}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision"
    if isinstance(error, errors.LocalEntryNotFoundError):
        cause = reason(error.__cause__ or error)
        return f"the Hub cannot be reached ({cause}), and the file is not in the cache"
    if isinstance(error, errors.EntryNotFoundError):
        return "the repository has no such file"
    if isinstance(error, OSError) and error.filename and error.errno in ADVICE:
        return (
            f"{os.fspath(error.filename)}: {error.strerror}. {ADVICE[error.errno]} The environment "
            "variable HF_HOME sets where the Hub's files are stored"
        )
    response = getattr(error, "response", None)
    if response is not None and response.status_code in (401, 403):
        return f"the Hub does not accept the access token; {login}"
    return reason(error)
