"""Checks of user input, with messages that say what to do."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from rws_keras.errors import UserError

_NOT_BINARY = (
    "Expected binary data: every value 0 or 1. Binarise grey levels first, for instance with "
    "rws_keras.datasets.stochastic_binarization, and remove missing values (NaN)."
)


def check_positive_integer(value: object, name: str) -> int:
    """Returns `value` as an int, or raises a `ValueError` that names the argument."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise UserError(f"`{name}` must be a positive integer, got {value!r}.")
    return int(value)


def check_binary(x: np.ndarray | tf.Tensor, units: int) -> tf.Tensor:
    """Returns binary data as a float32 tensor `[N, units]`.

    Outside a graph the values are checked at once; inside a graph (a `tf.data` pipeline
    under `fit`) an assertion checks them when the graph runs.

    Args:
        x: Array or tensor `[N, units]` of zeros and ones, of any numeric dtype.
        units: The expected width.

    Returns:
        The data as float32.

    Raises:
        ValueError: If `x` is not of rank 2, empty, of another width or not binary. In a
            graph the last of these is a `tf.errors.InvalidArgumentError`.
    """
    if not tf.is_tensor(x):
        try:
            x = np.asarray(x)
            x = tf.convert_to_tensor(x if x.dtype.kind in "biuf" else x.astype(np.float32))
        except (TypeError, ValueError) as error:
            raise UserError(f"{_NOT_BINARY} The data cannot be read as numbers.") from error
    if x.shape.rank is not None and x.shape.rank != 2:
        raise UserError(
            f"Expected data of shape [N, {units}], got {x.shape}. Flatten images first: "
            "x.reshape(len(x), -1)."
        )
    if x.shape.rank == 2 and x.shape[1] not in (None, units):
        raise UserError(
            f"Expected data of shape [N, {units}], because the machine has {units} visible "
            f"units; got {x.shape}."
        )
    if tf.executing_eagerly() and x.shape[0] == 0:
        raise UserError(f"The data is empty: shape {x.shape}. At least one row is needed.")
    if x.dtype == tf.bool:
        return tf.cast(x, tf.float32)
    # Before the conversion: data of bytes are four times smaller.
    is_binary = x <= 1 if x.dtype.is_unsigned else (x == 0) | (x == 1)
    if tf.executing_eagerly():
        if not tf.reduce_all(is_binary):
            outside = x[~is_binary][:5].numpy()
            raise UserError(f"{_NOT_BINARY} Found, among others: {outside.tolist()}.")
        return tf.cast(x, tf.float32)
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(is_binary), [_NOT_BINARY])]):
        return tf.ensure_shape(tf.cast(x, tf.float32), [None, units])
