"""How a distribution keeps the parameters that it is given."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.errors import UserError


def parameter_dtype(*values: Any) -> tf.DType:
    """The dtype of a distribution: float64 if a tensor among its parameters is, else float32.

    Arrays and lists follow the tensors, as in TFP's `Bernoulli`. Likelihoods are in float32 or
    better: parameters with 16 bits are cast.
    """
    kinds = tf.Tensor | tf.Variable | keras.Variable | tfp.util.DeferredTensor
    dtypes = [tf.as_dtype(value.dtype) for value in values if isinstance(value, kinds)]
    return tf.float64 if tf.float64 in dtypes else tf.float32


def as_parameter(value: Any, dtype: tf.DType, name: str, least_rank: int = 1) -> Any:
    """A constructor's argument as a distribution keeps it.

    A `tf.Variable` stays what it is, as in TFP: the distribution changes with it, and tracks it.
    It is read, and cast, where it is used. All else becomes a tensor, Keras variables too: those
    of a layer are read once for a distribution.

    Args:
        value: Array, list, tensor or variable.
        dtype: The distribution's dtype.
        name: The argument's name.
        least_rank: 0 if it may be a scalar.

    Raises:
        UserError: If it does not hold real numbers, or has no axis of the units.
    """
    if not isinstance(value, tf.Variable | tfp.util.DeferredTensor):
        value = tf.convert_to_tensor(value, name=name)
    if not (value.dtype.is_floating or value.dtype.is_integer):
        raise UserError(f"`{name}` must hold real numbers, got {value.dtype.name}.")
    if value.shape.rank is not None and value.shape.rank < least_rank:
        raise UserError(f"The last axis of `{name}` must be the units; got a scalar.")
    return tf.cast(value, dtype) if isinstance(value, tf.Tensor) else value


def as_matrix(value: Any, dtype: tf.DType, name: str, shape: list[int | None]) -> Any:
    """As `as_parameter`, for one that is the same for the whole batch: of the given shape.

    Raises:
        UserError: If it has another shape.
    """
    matrix = as_parameter(value, dtype, name, least_rank=0)
    if not matrix.shape.is_compatible_with(shape):
        raise UserError(
            f"`{name}` must have shape {shape} to match the other parameters; got {matrix.shape}."
        )
    if isinstance(matrix, tf.Tensor) and not matrix.shape.is_fully_defined():
        return tf.ensure_shape(matrix, shape)
    return matrix


def last_axis(parameter: Any) -> tf.TensorShape:
    """The static shape `[D]` of a parameter's last axis, `[None]` where it is not known."""
    shape = parameter.shape
    return tf.TensorShape([None]) if shape.rank is None else shape[-1:]


def sizes(matrix: tf.Tensor) -> tuple[int | tf.Tensor, int | tf.Tensor]:
    """The number of rows and of columns."""
    return size(matrix, 0), size(matrix, 1)


def strictly_upper(matrix: tf.Tensor) -> tf.Tensor:
    """The entries above the diagonal, zeros elsewhere."""
    upper = tf.linalg.band_part(matrix, 0, -1)
    return upper - tf.linalg.band_part(upper, 0, 0)


def size(tensor: tf.Tensor, axis: int) -> int | tf.Tensor:
    """The size of an axis: an int, or a scalar tensor where it is not known statically."""
    static = tensor.shape[axis]
    return tf.shape(tensor)[axis] if static is None else static
