"""How probable each column of a row is, given the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from rws_keras.arrays import is_missing
from rws_keras.layers.noise import uniform_noise
from rws_keras.models.imputation import draw_gaps, noise_shapes

_ROWS_AT_ONCE = 4


class Columns:
    """The columns of binary data: single units, and choices of several.

    Args:
        sizes: How many units each column has, in the order of the units.

    Attributes:
        values: `[M, D]`: all values of all columns, one after the other.
        member: Bools `[M, D]`, which units belong to the value's column.
        of: Integers `[M]`, the columns that the values are of.
    """

    def __init__(self, sizes: Sequence[int]):
        self.count, units = len(sizes), sum(sizes)
        values, member, of = [], [], []
        start = 0
        for column, size in enumerate(sizes):
            inside = np.zeros(units, bool)
            inside[start : start + size] = True
            for each in np.eye(size) if size > 1 else np.array([[0.0], [1.0]]):
                row = np.zeros(units, np.float32)
                row[inside] = each
                values.append(row)
                member.append(inside)
                of.append(column)
            start += size
        self.values, self.member, self.of = np.stack(values), np.stack(member), np.array(of)


def conditional_log_probs(
    machine: Any, x: tf.Tensor, guess: tf.Tensor, num_particles: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """`log p(x_c | x_others)` of each column c in nats, `[N, C]`; NaN of one that is missing.

    It is `p(x)` divided by the sum of p over all values of the column, all estimated from the same
    particles, so that most of the error cancels.

    Args:
        machine: A `HelmholtzMachine` of binary data.
        x: Float32 data `[N, visible]`, NaN where a value is missing.
        guess: `[N, visible]`, the values that replace missing ones in the input of a Q that was
            trained on complete rows only.
        num_particles: K.
        seed: int32 tensor `[2]`.
    """
    columns = Columns(machine.p_layers[0].choices or [1] * machine.visible_units)
    noise = uniform_noise(noise_shapes(machine, num_particles, 1)["rounds"][0], seed)

    def of_row(arguments):
        row, guess_of_row = arguments
        observed = ~is_missing(row)
        drawn = draw_gaps(machine, row[None], observed[None], guess_of_row, noise)
        visible = drawn.visible

        def log_weights(changed):
            """Of the row with another value of a column."""
            if visible.marginalizes:
                log_p = visible.observed_log_prob(changed, observed)
            else:  # over the probability of the gaps that were drawn
                log_p = visible.log_prob(changed) - visible.log_prob(drawn.x) + drawn.log_known
            return tf.reduce_logsumexp(log_p + drawn.log_ratio)

        log_joint = tf.map_fn(
            lambda each: log_weights(tf.where(each[1], each[0], drawn.x)),
            (tf.constant(columns.values), tf.constant(columns.member)),
            fn_output_signature=tf.float32,
            parallel_iterations=_ROWS_AT_ONCE,
        )
        # Over the values of each column: their maximum, and the sum over it.
        most = tf.math.unsorted_segment_max(log_joint, columns.of, columns.count)
        total = tf.math.unsorted_segment_sum(
            tf.exp(log_joint - tf.gather(most, columns.of)), columns.of, columns.count
        )
        is_own = tf.reduce_all(tf.equal(columns.values, row) | ~columns.member, axis=1)
        own = tf.math.unsorted_segment_sum(
            tf.where(is_own, log_joint, 0.0), columns.of, columns.count
        )
        known = tf.math.unsorted_segment_max(tf.cast(is_own, tf.int32), columns.of, columns.count)
        return tf.where(known > 0, own - most - tf.math.log(total), float("nan"))

    return tf.map_fn(
        of_row, (x, guess), fn_output_signature=tf.float32, parallel_iterations=_ROWS_AT_ONCE
    )
