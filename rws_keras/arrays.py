"""Converts the many kinds of user data to what the library needs: float32 rows."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from rws_keras.errors import UserError


class Support(NamedTuple):
    """The values that a layer's units take.

    Attributes:
        name: Adjective for messages: "binary", "real".
        contains: Function of a tensor to bools: which values are allowed.
        message: What is expected and what to do, for data that hold other values.
        missing: Whether values may be missing: NaN, masked, or a data frame's `NA`.
    """

    name: str
    contains: Callable[[tf.Tensor], tf.Tensor]
    message: str
    missing: bool = False


def _is_binary(x: tf.Tensor) -> tf.Tensor:
    # Unsigned bytes, the usual data, need one comparison.
    return x <= 1 if tf.as_dtype(x.dtype).is_unsigned else (x == 0) | (x == 1)


def _is_finite(x: tf.Tensor) -> tf.Tensor:
    return tf.math.is_finite(x) if tf.as_dtype(x.dtype).is_floating else tf.ones_like(x, tf.bool)


BINARY = Support(
    "binary",
    _is_binary,
    "Expected binary data: every value 0 or 1. Binarise grey levels first, for instance with "
    "rws_keras.datasets.stochastic_binarization, and remove missing values (NaN), or make the "
    "machine with missing='marginalize'.",
)
REAL = Support(
    "real",
    _is_finite,
    "Expected real data: every value a finite number. Remove or replace missing values (NaN), or "
    "make the machine with missing='marginalize'.",
)


def with_missing(support: Support) -> Support:
    """The same support, and NaN where a value is missing."""
    values = "0, 1" if support is BINARY else "a finite number"
    return Support(
        support.name,
        lambda x: support.contains(x) | is_missing(x),
        f"Expected {support.name} data: every value {values} or, where it is missing, NaN.",
        missing=True,
    )


def is_missing(x: tf.Tensor) -> tf.Tensor:
    """Which values are NaN; none where the dtype has no NaN."""
    return tf.math.is_nan(x) if tf.as_dtype(x.dtype).is_floating else tf.zeros_like(x, tf.bool)


Rows: TypeAlias = np.ndarray | tf.Tensor | tf.SparseTensor


def check_data(x: Any, units: int, support: Support = BINARY) -> tf.Tensor:
    """Returns data as a float32 tensor `[N, units]`.

    Outside a graph the values are checked at once; inside a graph (a `tf.data` pipeline
    under `fit`) an assertion checks them when the graph runs.

    Args:
        x: What `as_rows` takes.
        units: The expected width.
        support: Which values are allowed.

    Raises:
        UserError: If `as_rows` refuses `x`, or it holds other values. In a graph the latter
            is a `tf.errors.InvalidArgumentError`.
    """
    x = as_rows(x, units, support)
    if isinstance(x, tf.SparseTensor):
        # The indices may be in any order.
        x = tf.sparse.to_dense(tf.sparse.reorder(x))
    x = tf.ensure_shape(tf.convert_to_tensor(x), [None, units])
    if x.dtype == tf.bool:
        return tf.cast(x, tf.float32)
    # Before the conversion: bytes are four times smaller.
    allowed = support.contains(x)
    if tf.executing_eagerly():
        _raise_outside(x, allowed, support)
        return tf.cast(x, tf.float32)
    check = tf.debugging.Assert(tf.reduce_all(allowed), [support.message])
    with tf.control_dependencies([check]):
        return tf.cast(x, tf.float32)


def checked_rows(x: Any, units: int, support: Support = BINARY) -> Rows:
    """As `as_rows`, with the values checked too, for arrays that Keras cuts into batches."""
    x = as_rows(x, units, support)
    values = tf.convert_to_tensor(x.values if isinstance(x, tf.SparseTensor) else x)
    if values.dtype != tf.bool:
        _raise_outside(values, support.contains(values), support)
    return x


def _raise_outside(x, allowed, support):
    if not tf.reduce_all(allowed):
        outside = x[~allowed][:5].numpy()
        raise UserError(f"{support.message} Found, among others: {outside.tolist()}.")


def as_rows(x: Any, units: int, support: Support = BINARY) -> Rows:
    """Returns data as a numeric array or tensor `[N, units]`, with their own dtype.

    Args:
        x: An array, a tensor or a list of rows of any numeric dtype, a data frame, a sparse
            matrix (SciPy's or TensorFlow's, which stays sparse), or a dict of one of these.
            Images, `[N, ...]` of `units` values each, are flattened.
        units: The expected width.
        support: Which values are allowed, for the messages.

    Raises:
        UserError: If it is none of these, has no rows, or another width.
    """
    x = _as_numbers(_only_entry(x), support)
    shape = tf.TensorShape(x.shape)
    if shape.rank is None:  # in a graph alone
        return _flattened(x, units)
    if shape.rank < 2:
        raise UserError(
            f"Expected data of shape [N, {units}], got {shape}. Batch a dataset of single rows "
            "first: dataset.batch(100); give a single row as x[None]."
        )
    if shape.rank > 2:
        if shape[1:].num_elements() not in (None, units):
            raise UserError(_wrong_width(shape, units))
        x = _flattened(x, units)
    elif shape[1] not in (None, units):
        raise UserError(_wrong_width(shape, units))
    if shape[0] == 0 and tf.executing_eagerly():
        raise UserError(f"The data is empty: shape {shape}. At least one row is needed.")
    return x


def _flattened(x, units):
    if isinstance(x, tf.SparseTensor):
        return tf.sparse.reshape(x, [-1, units])
    if not tf.is_tensor(x):
        return x.reshape(-1, units)
    shape = tf.shape(x)
    return tf.reshape(x, tf.stack([shape[0], tf.reduce_prod(shape[1:])]))


def _wrong_width(shape, units):
    single = " If this is a single row, batch the dataset first: dataset.batch(100)."
    return (
        f"Expected data of shape [N, {units}], because the machine has {units} visible units; "
        f"got {shape}.{single if shape.num_elements() == units else ''}"
    )


def _only_entry(x):
    """The only entry of a dict, as TFDS yields the features of a row."""
    if not isinstance(x, dict) or scipy.sparse.issparse(x):
        return x
    if len(x) != 1:
        raise UserError(
            f"Expected data, got a dict of {len(x)} entries ({', '.join(map(str, x)) or 'none'}). "
            "Choose the entry with the data: x['image'], or dataset.map(lambda row: row['image'])."
        )
    return next(iter(x.values()))


def _as_numbers(x, support):
    if isinstance(x, tf.RaggedTensor):
        raise UserError(
            f"{support.message} The data are a ragged tensor, whose rows differ in length: "
            "x.to_tensor() pads them."
        )
    if isinstance(x, np.ma.MaskedArray):
        if support.missing:
            x = np.ma.filled(x.astype(np.float32), np.nan)
        elif np.ma.is_masked(x):
            raise UserError(
                f"{support.message} The data are a masked array with masked values "
                f"({np.ma.count_masked(x)}): remove their rows, or fill them with x.filled."
            )
        x = np.ma.getdata(x)
    if scipy.sparse.issparse(x):
        x = x.tocsr(copy=True)
        x.sum_duplicates()
        x = x.tocoo()
        return tf.SparseTensor(
            np.stack([x.row, x.col], axis=1).astype(np.int64), _numeric(x.data, support), x.shape
        )
    if isinstance(x, tf.SparseTensor) or tf.is_tensor(x):
        _check_dtype(tf.as_dtype(x.dtype).as_numpy_dtype, support)
        return x
    if x is None:
        raise UserError(f"{support.message} Got no data (None).")
    if is_source(x):
        raise UserError(
            f"Expected a whole array, got batches ({type(x).__name__}); only `fit`, `evaluate` and "
            "`predict` accept batches."
        )
    return _numeric(x, support)


def _numeric(x, support):
    """An array of numbers, as NumPy reads them."""
    try:
        if support.missing and hasattr(x, "to_numpy"):  # a data frame, whose NA is no number
            x = x.to_numpy(np.float32, na_value=np.nan)
        x = np.asarray(x)
        if x.dtype.kind in "OUS":
            x = x.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{support.message} The data cannot be read as numbers: {str(error).rstrip('.')}."
        ) from error
    _check_dtype(x.dtype, support)
    return x


def _check_dtype(dtype, support):
    dtype = np.dtype(dtype)
    # NumPy does not recognise bfloat16 as a number.
    if dtype.kind not in "biuf" and dtype.name != "bfloat16":
        kinds = {"c": "complex numbers", "O": "text"}
        raise UserError(
            f"{support.message} The data are {kinds.get(dtype.kind, f'of dtype {dtype}')}: "
            "convert them to numbers first, for instance with x.astype('float32')."
        )


def check_sample_weight(sample_weight: Any, num_data: int | None = None) -> tf.Tensor:
    """Returns the weights of rows as a float32 tensor `[N]`.

    Args:
        sample_weight: Numbers `[N]` or `[N, 1]`.
        num_data: N, where it is known.

    Raises:
        UserError: If they are not of that shape, negative or not finite. In a graph the latter
            two are a `tf.errors.InvalidArgumentError`.
    """
    message = "Expected `sample_weight` to be a finite number of at least 0 for each row"
    try:
        if not tf.is_tensor(sample_weight):
            if np.ma.is_masked(sample_weight):
                raise TypeError("some are masked")
            sample_weight = np.asarray(sample_weight)
            if sample_weight.dtype.kind == "c":
                raise TypeError("they are complex")
            sample_weight = sample_weight.astype(np.float32)
        weight = tf.cast(sample_weight, tf.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{message}; it cannot be read as numbers: {error}.") from error
    if weight.shape.rank == 2 and weight.shape[1] == 1:
        weight = weight[:, 0]
    if weight.shape.rank not in (None, 1) or (num_data and weight.shape[0] not in (None, num_data)):
        rows = "N" if num_data is None else num_data
        raise UserError(f"{message}: shape [{rows}], got {weight.shape}.")
    allowed = tf.math.is_finite(weight) & (weight >= 0.0)
    if not tf.executing_eagerly():
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(allowed), [message])]):
            return tf.identity(weight)
    if not tf.reduce_all(allowed):
        raise UserError(f"{message}; found, among others: {weight[~allowed][:5].numpy()}.")
    return weight


def is_source(x: Any) -> bool:
    """Whether data come in batches rather than as a whole in memory."""
    of_batches = (
        tf.data.Dataset,
        tf.data.Iterator,
        tf.distribute.DistributedDataset,
        keras.utils.PyDataset,
        types.GeneratorType,
    )
    return isinstance(x, of_batches) or type(x).__module__.startswith(("torch.utils", "grain"))
