"""Tensors of TF Serving's gRPC API as arrays."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from rws_keras.serving.errors import invalid, too_large
from rws_keras.serving.predictor import Limits
from rws_keras.serving.servable import Signature

# The field of a `TensorProto` that holds the values of a dtype.
_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int32: "int_val",
    tf.int64: "int64_val",
    tf.bool: "bool_val",
}


def to_array(
    proto: tensor_pb2.TensorProto, name: str, signature: Signature, limits: Limits
) -> np.ndarray:
    """An input as an array. Its shape is checked before any memory is taken for it.

    As in TensorFlow, values beyond the shape are ignored and the last one stands for those that
    lack; without any all are zeros.

    Raises:
        ServingError: If it does not fit the signature.
    """
    dtype, _ = signature.inputs[name]
    if proto.dtype != dtype.as_datatype_enum:
        known = proto.dtype in types_pb2.DataType.values()
        got = types_pb2.DataType.Name(proto.dtype) if known else proto.dtype
        wanted = types_pb2.DataType.Name(dtype.as_datatype_enum)
        raise invalid(f"The input `{name}` must be of {wanted}, got {got}.")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise invalid(f"The input `{name}` has no definite shape.")
    signature.check_shape(name, shape, limits.rows)
    size, numpy_dtype = math.prod(shape), np.dtype(dtype.as_numpy_dtype)
    if size * numpy_dtype.itemsize > limits.body_bytes:
        raise too_large(f"The input `{name}` has {size:,} values, too many for a request.")
    for field in (*_FIELDS.values(), "half_val", "uint32_val", "uint64_val"):
        del getattr(proto, field)[size:]
    try:
        return tf.make_ndarray(proto)
    except (ValueError, TypeError, OverflowError) as error:
        raise invalid(f"The input `{name}` does not hold the values of its shape.") from error


def from_array(array: np.ndarray) -> tensor_pb2.TensorProto:
    """An output, in the field of its dtype: many clients do not read `tensor_content`."""
    dtype = tf.as_dtype(array.dtype)
    if dtype not in _FIELDS:
        return tf.make_tensor_proto(array)
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if dtype in (tf.float32, tf.float64):
        # Its bytes are those of the array, little-endian: no Python objects for millions of values.
        field = proto.DESCRIPTOR.fields_by_name[_FIELDS[dtype]].number
        content = np.ascontiguousarray(array).tobytes()
        proto.MergeFromString(bytes([field << 3 | 2]) + _varint(len(content)) + content)
    else:
        getattr(proto, _FIELDS[dtype]).extend(array.ravel().tolist())
    return proto


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
