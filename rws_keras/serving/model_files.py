"""The versions of a model on the disk, and whether one is complete."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from rws_keras.errors import UserError
from rws_keras.files import expanded

_MOST = 2**63 - 1


class Fingerprint(NamedTuple):
    """What a directory holds.

    Attributes:
        files: The path, size and modification time of each file.
        changed: When the latest of them changed: its ctime, which copying does not preserve.
    """

    files: frozenset[tuple[str, int, int]]
    changed: float


def fingerprint(path: Path) -> Fingerprint:
    """Looks at all files of a version.

    Raises:
        OSError: If some cannot be looked at.
        UserError: If there is something else than files and directories, such as a pipe.
    """
    files, changed = set(), 0.0
    for folder, _, names in os.walk(path, onerror=_raise):
        changed = max(changed, os.stat(folder).st_ctime)
        for name in names:
            file = os.path.join(folder, name)
            info = os.stat(file)
            if not stat.S_ISREG(info.st_mode):
                raise UserError(f"{file} is neither a file nor a directory.")
            files.add((file, info.st_size, info.st_mtime_ns))
            changed = max(changed, info.st_ctime)
    return Fingerprint(frozenset(files), changed)


def _raise(error: OSError) -> None:
    raise error


def has_versions(path: Path) -> bool:
    """Whether a directory is one of a model, or may be one because it cannot be read."""
    try:
        return any(_number(name) is not None for name in os.listdir(path))
    except PermissionError:
        return True
    except OSError:  # no directory, or gone by now
        return False


def wanted_versions(model: ModelConfig) -> dict[int, Path]:
    """The versions on the disk that the model's policy asks for.

    Raises:
        OSError: If its base path cannot be read.
    """
    found = {}
    for path in expanded(model.base_path).iterdir():
        number = _number(path.name)
        if number is not None and _may_be_version(path):
            found[number] = path
    policy = model.model_version_policy
    if policy.HasField("all"):
        return found
    if policy.HasField("specific"):
        return {number: found[number] for number in policy.specific.versions if number in found}
    return {number: found[number] for number in sorted(found)[-(policy.latest.num_versions or 1) :]}


def _may_be_version(path: Path) -> bool:
    """Whether there is a SavedModel, or what may be one because it cannot be read."""
    try:
        os.lstat(path / "saved_model.pb")
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _number(name: str) -> int | None:
    """The version that a directory's name stands for, as far as int64 goes."""
    if not (name.isascii() and name.isdecimal()):
        return None
    return int(name) if len(name.lstrip("0")) < 20 and int(name) <= _MOST else None
