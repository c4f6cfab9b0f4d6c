"""Checks of the arguments that users pass in, with messages that say what to do."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rws_keras.errors import PrecisionError, UserError
from rws_keras.suggestions import unknown


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


# Beyond it a number is infinite in float32.
_MOST = float(np.finfo(np.float32).max)


def check_one_of(value: Any, name: str, known: Collection[str]) -> str:
    """Returns a value if it is one of some names.

    Raises:
        UserError: If it is not.
    """
    if not isinstance(value, str) or value not in known:
        raise UserError(unknown(name, value, known))
    return value


def check_number(value: Any, name: str, positive: bool = False) -> float:
    """Returns `value` as a finite number of at least 0, or raises a `UserError`.

    Args:
        value: A Python or NumPy number; bools are refused.
        name: The argument's name, for the message.
        positive: Whether 0 is refused too.
    """
    number = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not number or not 0 <= value <= _MOST or (positive and not value):
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
    is_array = isinstance(seed, np.ndarray) and seed.ndim
    if tf.is_tensor(seed) or is_array or isinstance(seed, list | tuple):
        try:
            tensor = tf.convert_to_tensor(seed)
        except (TypeError, ValueError, OverflowError):
            tensor = tf.zeros([])
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
    """A seed in a form for JSON; see `check_seed`."""
    seed = check_seed(seed)
    return seed.numpy().tolist() if tf.is_tensor(seed) else seed


def plain_json(value: Any, name: str) -> str:
    """A dict as JSON text, or a `UserError` that names the argument.

    Args:
        value: A dict of JSON values.
        name: The argument's name, for the message.
    """
    try:
        if not isinstance(value, dict):
            raise TypeError(f"got {value!r:.40}")
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"`{name}` must be a dict that can be written as JSON: {error}.") from error


def check_precision(layer: Any) -> None:
    """Checks that a Keras layer or model has its weights in float32.

    Under a mixed policy Keras layers inside a stochastic layer compute in half precision; the
    distributions and the likelihood stay in float32.

    Raises:
        PrecisionError: If its dtype policy, or Keras's `floatx`, is another one. (It is a
            `UserError`.)
    """
    policy = layer.dtype_policy.name
    if policy not in _POLICIES:
        raise PrecisionError(
            f"{type(layer).__name__} does not work with the dtype policy '{policy}', because "
            f"likelihoods need float32 weights. Use one of {', '.join(_POLICIES)}: pass it as "
            "`dtype`, or set it by keras.config.set_dtype_policy."
        )
    if keras.config.floatx() != "float32":
        raise PrecisionError(
            f"{type(layer).__name__} does not work with a floatx of '{keras.config.floatx()}', "
            "because likelihoods need float32. Call keras.config.set_floatx('float32')."
        )


_POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")
