"""Checks of what users pass in, with messages that say what to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from rws_keras.errors import UserError


def check_integer(value: Any, name: str, minimum: int | None = None) -> int:
    """Returns `value` as an int, or raises a `UserError` that names the argument.

    Args:
        value: A Python or NumPy integer (also a scalar integer array); bools and floats are
            refused, whole ones too.
        name: The argument's name, for the message.
        minimum: The least value allowed.
    """
    if tf.is_tensor(value) and tf.executing_eagerly():
        value = np.asarray(value)
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iu":
        value, whole = value.item(), True
    if not whole or (minimum is not None and value < minimum):
        wanted = {None: "an integer", 0: "an integer of at least 0", 1: "a positive integer"}
        raise UserError(
            f"`{name}` must be {wanted.get(minimum, f'an integer of at least {minimum}')}, "
            f"got {value!r}."
        )
    return int(value)


def check_positive_integer(value: Any, name: str) -> int:
    """Returns `value` as an int from 1 to 2^31 - 1; see `check_integer`."""
    value = check_integer(value, name, minimum=1)
    if value >= 2**31:
        raise UserError(f"`{name}` must be below 2^31, got {value:,}.")
    return value


def check_number(value: Any, name: str, positive: bool = False) -> float:
    """Returns `value` as a finite number of at least 0, or raises a `UserError`.

    Args:
        value: A Python or NumPy number; bools are refused.
        name: The argument's name, for the message.
        positive: Whether 0 is refused too.
    """
    number = isinstance(value, int | float | np.integer | np.floating)
    if (
        isinstance(value, bool)
        or not number
        or not 0 <= value < math.inf
        or (positive and not value)
    ):
        wanted = "a positive finite number" if positive else "a finite number of at least 0"
        raise UserError(f"`{name}` must be {wanted}, got {value!r}.")
    return int(value) if isinstance(value, int | np.integer) else float(value)


def check_seed(seed: Any, name: str = "seed") -> Any:
    """Returns a seed as a Python int, an int32 tensor `[2]` or `None`.

    Args:
        seed: An integer of up to 64 bits, an integer array or tensor `[2]`, or `None`.
        name: The argument's name, for the message.

    Raises:
        UserError: If it is something else.
    """
    if seed is None:
        return None
    if tf.is_tensor(seed) or (isinstance(seed, np.ndarray | list | tuple) and np.ndim(seed)):
        tensor = tf.convert_to_tensor(seed)
        if tensor.dtype.is_integer and tensor.shape == [2]:
            if tf.executing_eagerly() and np.abs(np.asarray(tensor, object)).max() >= 2**31:
                raise UserError(f"Both words of `{name}` must have 32 bits, got {seed!r}.")
            return tf.cast(tensor, tf.int32)
        if tensor.dtype.is_integer and tensor.shape == [] and tf.executing_eagerly():
            return check_seed(tensor.numpy(), name)
    elif isinstance(seed, int | np.integer | np.ndarray) and not isinstance(seed, bool):
        seed = check_integer(seed, name)
        if -(2**63) <= seed < 2**63:
            return seed
    raise UserError(
        f"`{name}` must be an integer of up to 64 bits, an integer tensor of shape [2], or None; "
        f"got {seed!r}."
    )


def plain_seed(seed: Any) -> int | list[int] | None:
    """A seed as JSON can hold it; see `check_seed`."""
    seed = check_seed(seed)
    return seed.numpy().tolist() if tf.is_tensor(seed) else seed


class Support(NamedTuple):
    """The values that a layer's units take.

    Attributes:
        name: Adjective for messages: "binary", "real".
        contains: Function of a tensor to bools: which values are allowed.
        message: What is expected and what to do, for data that hold other values.
    """

    name: str
    contains: Callable[[tf.Tensor], tf.Tensor]
    message: str


def _is_binary(x: tf.Tensor) -> tf.Tensor:
    # Unsigned bytes, the usual data, need one comparison.
    return x <= 1 if tf.as_dtype(x.dtype).is_unsigned else (x == 0) | (x == 1)


def _is_finite(x: tf.Tensor) -> tf.Tensor:
    return tf.math.is_finite(x) if tf.as_dtype(x.dtype).is_floating else tf.ones_like(x, tf.bool)


BINARY = Support(
    "binary",
    _is_binary,
    "Expected binary data: every value 0 or 1. Binarise grey levels first, for instance with "
    "rws_keras.datasets.stochastic_binarization, and remove missing values (NaN).",
)
REAL = Support(
    "real",
    _is_finite,
    "Expected real data: every value a finite number. Remove or replace missing values (NaN).",
)


def check_data(x: Any, units: int, support: Support = BINARY) -> tf.Tensor:
    """Returns data as a float32 tensor `[N, units]`.

    Outside a graph the values are checked at once; inside a graph (a `tf.data` pipeline
    under `fit`) an assertion checks them when the graph runs.

    Args:
        x: Array or tensor `[N, units]` of any numeric dtype.
        units: The expected width.
        support: Which values are allowed.

    Raises:
        UserError: If `x` is not of rank 2, empty, of another width, or holds other values. In
            a graph the last of these is a `tf.errors.InvalidArgumentError`.
    """
    if not tf.is_tensor(x):
        try:
            x = np.asarray(x)
            if x.dtype.kind == "c":
                raise UserError(f"{support.message} The data are complex numbers.")
            x = tf.convert_to_tensor(x if x.dtype.kind in "biuf" else x.astype(np.float32))
        except UserError:
            raise
        except (TypeError, ValueError) as error:
            raise UserError(f"{support.message} The data cannot be read as numbers.") from error
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
    allowed = support.contains(x)
    if tf.executing_eagerly():
        if not tf.reduce_all(allowed):
            outside = x[~allowed][:5].numpy()
            raise UserError(f"{support.message} Found, among others: {outside.tolist()}.")
        return tf.cast(x, tf.float32)
    check = tf.debugging.Assert(tf.reduce_all(allowed), [support.message])
    with tf.control_dependencies([check]):
        return tf.ensure_shape(tf.cast(x, tf.float32), [None, units])
