"""The one class of errors that are the user's to put right."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user gave is wrong: data, a setting, a file, a name.

    The message says what was wrong, what was expected and what to do. The command line shows it
    as it is, without a traceback; any other exception is a fault of the library and keeps its
    traceback. Being a `ValueError`, it is caught where a Keras user expects one.
    """
