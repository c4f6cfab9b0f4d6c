"""Batches of any shape as one axis of rows."""

from __future__ import annotations

import tensorflow as tf


def flatten_rows(batch: tf.Tensor, *tensors: tf.Tensor) -> list[tf.Tensor]:
    """Broadcasts tensors `[..., n]` to the batch shape and joins it to one axis."""
    rows = []
    for tensor in tensors:
        shape = tf.concat([batch, tf.shape(tensor)[-1:]], axis=0)
        rows.append(tf.reshape(tf.broadcast_to(tensor, shape), [-1, shape[-1]]))
    return rows


def unflatten_rows(batch: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """The rows `[R, n]` of a batch, `[..., n]`."""
    return tf.reshape(rows, tf.concat([batch, tf.shape(rows)[-1:]], axis=0))
