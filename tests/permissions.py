"""Directories that may not be written, for root either."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

# The user who owns nothing.
NOBODY = 65534


@contextlib.contextmanager
def reachable_directory():
    """A temporary directory where every user may look, unlike those of tests."""
    directory = Path(tempfile.mkdtemp())
    permit(directory)
    try:
        yield directory
    finally:
        permit(directory)
        shutil.rmtree(directory)


def permit(directory, folders=0o755, files=0o644):
    """Gives all that is below a directory the same permissions."""
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            path.chmod(folders if path.is_dir() else files)


@contextlib.contextmanager
def read_only(directory, forbidden=None):
    """Nobody may write, nor read one path; root, who may, is another user for the block."""
    permit(directory, 0o555, 0o444)
    if forbidden is not None:
        forbidden.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        permit(directory)
