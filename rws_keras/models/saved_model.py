"""Writing a machine as a SavedModel."""

from __future__ import annotations

import os

import tensorflow as tf

from rws_keras.errors import UserError
from rws_keras.files import expanded, make_directory, replace_directory
from rws_keras.models.scorer import Scorer


def write_saved_model(scorer: Scorer, path: str | os.PathLike) -> dict:
    """Writes a scorer as a SavedModel of standard TensorFlow operations.

    The directory appears under its name once it is complete.

    Args:
        scorer: The functions.
        path: The new directory.

    Returns:
        The functions by the names of their signatures.

    Raises:
        UserError: If the path exists already.
    """
    path = expanded(path)
    if os.path.lexists(path):
        raise UserError(f"{path} exists already. Remove it, or choose another path.")
    make_directory(path.parent)
    signatures = scorer.signatures()
    with replace_directory(path) as directory:
        tf.saved_model.save(
            scorer,
            os.fspath(directory),
            signatures=signatures,
            options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
        )
    return signatures
