"""Files and directories that appear under their names only when they are complete.

Content is written under a temporary name next to its target, flushed to disk and renamed. After a
crash, a power cut or a full disk there is either the old content or the new, never a part.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rws_keras.errors import UserError

# What to do about an error of the operating system.
ADVICE = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        "Free some space on this disk, or choose a directory on another one.",
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "Change its permissions, or choose another path.",
    ),
    errno.ENOENT: "Check the path. To write there, create its directory first.",
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
        "A file is where a directory is expected, or the other way round: choose another path.",
    ),
    errno.ENAMETOOLONG: "Choose a shorter path.",
}


def expanded(path: str | os.PathLike) -> Path:
    """A path as a user gives it, with `~` at its start replaced by the home directory.

    A shell does this only where the `~` begins a word: not in `--to=~/models`, in quotes, in a
    configuration file or in Python. As in a shell, the `~NAME` of an unknown user stays as it is.
    """
    return Path(os.path.expanduser(path))


@contextlib.contextmanager
def replace_file(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path to write a file to, which replaces `path` at the end of the block.

    The temporary name has the same ending. If the block raises, `path` stays as it was.

    Raises:
        UserError: If the file cannot be written: no space, no permission, no such directory.

    Example:
    ```python
    with rws_keras.files.replace_file("scores.csv") as temporary:
        temporary.write_text("…")
    ```
    """
    path = Path(path)
    temporary = _temporary(path)
    with writing(path):
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)


@contextlib.contextmanager
def replace_directory(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary directory to fill, which replaces `path` at the end of the block.

    If the block raises, `path` stays as it was. An existing directory is moved aside just before
    the new one is renamed, because directories cannot be replaced in one operation.

    Raises:
        UserError: If the directory cannot be written.
    """
    path = Path(path)
    temporary, old = _temporary(path), path.with_name(f".old-{path.name}")
    with writing(path):
        for left in (temporary, old):
            if left.exists():  # from a process that was killed
                shutil.rmtree(left)
        temporary.mkdir()
        try:
            yield temporary
            for folder, _, files in os.walk(temporary):
                for name in files:
                    _sync(Path(folder, name))
                _sync(Path(folder))
            if path.exists():
                path.rename(old)
            try:
                temporary.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)


def make_directory(path: str | os.PathLike) -> Path:
    """Creates a directory and its parents, if needed.

    Raises:
        UserError: If that is not possible.
    """
    path = Path(path)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turns the operating system's refusal to write below `path` into advice.

    Raises:
        UserError: For every `OSError` in the block.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = ADVICE.get(error.errno or 0, "What was there before is unchanged.")
        raise UserError(f"{os.fspath(path)} cannot be written: {reason}. {advice}") from error


def read_json(path: Path) -> dict:
    """Reads a JSON object.

    Raises:
        UserError: If the file cannot be read, or does not hold one.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read: it does not hold a JSON object.")
    return content


def write_json(path: Path, content: dict) -> None:
    """Writes JSON; the file is replaced only once the new one is complete."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def _temporary(path: Path) -> Path:
    # Hidden, so that no pattern takes it for content; and the same each time, so that what a
    # killed process left is overwritten by the next.
    return path.with_name(f".partial-{path.name}")


def _sync(path: Path) -> None:
    """Waits until a file's content, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
