"""The class of errors that the user can fix, and how one error quotes another."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user passed is wrong: data, a setting, a file, a name.

    The message says what was wrong, what was expected and what to do. The command line shows it
    as it is, without a traceback; any other exception is a bug in the library and keeps its
    traceback. Being a `ValueError`, it is caught where a Keras user expects one.
    """


def reason(error: BaseException) -> str:
    """The first line of an error's message, to be quoted in another; its type if it has none."""
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    if not lines:
        return name
    line = lines[0].rstrip(".")
    return f"{name}: {line}" if isinstance(error, KeyError) else line  # else a bare key


class PrecisionError(UserError):
    """A dtype policy of Keras with which likelihoods would be wrong."""
