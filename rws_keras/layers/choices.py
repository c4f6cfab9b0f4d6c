"""Choices: groups of units of which exactly one is on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.arrays import is_missing
from rws_keras.errors import UserError
from rws_keras.layers.bernoulli import BinaryDistribution


class Groups:
    """Units in groups: one unit alone is binary, several are a choice of exactly one of them.

    Args:
        sizes: How many units each group has, in the order of the units.

    Attributes:
        sizes: The sizes.
        first: Bools `[D]`, whether a unit is the first of its group.
        earlier: `[D, D]`, one at `[j, i]` where unit j is before unit i in its group, else zero.
        last: Bools `[D]`, whether a unit is the last of several.
    """

    def __init__(self, sizes: Iterable[int]):
        self.sizes = tuple(int(size) for size in sizes)
        group = np.repeat(np.arange(len(self.sizes)), self.sizes)
        same = group[:, None] == group[None, :]
        self.earlier = np.triu(same, 1).astype(np.float32)
        self.first = np.append(True, group[1:] != group[:-1])
        ends = np.cumsum(self.sizes) - 1
        self.last = np.zeros(len(group), bool)
        self.last[ends[np.array(self.sizes) > 1]] = True
        self._member = (group[:, None] == np.flatnonzero(np.array(self.sizes) > 1)).astype(
            np.float32
        )

    def wrong(self, x: tf.Tensor) -> tf.Tensor:
        """Bools `[N, choices]`: choices with neither exactly one unit on nor all missing."""
        missing = is_missing(x)
        values = tf.where(missing, tf.zeros_like(x), x)
        on = tf.matmul(tf.cast(values, tf.float32), self._member)
        gaps = tf.matmul(tf.cast(missing, tf.float32), self._member)
        sizes = tf.reduce_sum(self._member, axis=0)
        return tf.where(tf.equal(gaps, 0.0), tf.not_equal(on, 1.0), tf.not_equal(gaps, sizes))

    def check(self, x: tf.Tensor) -> tf.Tensor:
        """Returns data `[N, D]` if each choice has exactly one unit on, or all missing.

        Raises:
            UserError: If this does not hold for a row. In a graph it is a
                `tf.errors.InvalidArgumentError`.
        """
        wrong = self.wrong(x)
        message = (
            "Expected exactly one unit of each choice to be on, or all of them to be missing (NaN)"
        )
        if not tf.executing_eagerly():
            check = tf.debugging.Assert(~tf.reduce_any(wrong), [f"{message}."])
            with tf.control_dependencies([check]):
                return tf.identity(x)
        if tf.reduce_any(wrong):
            row, choice = tf.where(wrong)[0].numpy().tolist()
            first, *_, last = np.flatnonzero(self._member[:, choice]).tolist()
            raise UserError(
                f"{message}; in row {row} units {first} to {last} are "
                f"{np.asarray(x[row, first : last + 1]).tolist()}."
            )
        return x


class Choices(BinaryDistribution):
    """Binary units, some of which are the values of choices: exactly one of a group is on.

    The units of a choice are drawn in order, with the base distribution's probabilities: the first
    is on, or else the second, and so on; the last one is on if no other is. So the k values of a
    choice have the probabilities `σ(a_1)`, `(1 - σ(a_1)) σ(a_2)`, …, which can be arbitrary and sum
    to one. A vector with no unit of a choice on, or several, has probability zero.

    Args:
        base: One of the library's distributions over binary vectors.
        sizes: How many units each group has, in the order of the units; 1 for a binary unit.
        validate_args: Whether to check that values are binary.
        name: Name of the distribution.

    Raises:
        UserError: If the sizes do not sum to the number of units.

    Example:
    ```python
    units = rws_keras.layers.FactorizedBernoulli([0.0, 0.0, 0.0, 1.0])
    answers = rws_keras.layers.Choices(units, [3, 1])          # a choice of three, and yes or no
    answers.prob([0.0, 1.0, 0.0, 1.0])                         # 1/2 · 1/2 · σ(1)
    ```

    Reference:
        - [Tutz, 1991](https://doi.org/10.1016/0167-9473(91)90001-0), sequential logits
    """

    def __init__(
        self,
        base: BinaryDistribution,
        sizes: Iterable[int],
        validate_args: bool = False,
        name: str = "Choices",
    ):
        sizes = tuple(int(size) for size in sizes)
        parameters = dict(locals())
        if not isinstance(base, BinaryDistribution) or isinstance(base, Choices):
            raise UserError(f"Choices need binary units; got a {type(base).__name__}.")
        if not base.takes_choices:
            raise UserError(f"The units of a {type(base).__name__} cannot be choices.")
        units = base.event_shape[0]
        if any(size < 1 for size in sizes) or (units is not None and sum(sizes) != units):
            raise UserError(
                f"The sizes of the groups must be positive and sum to the {units} units, got "
                f"{list(sizes)}."
            )
        with tf.name_scope(name) as name:
            self.base, self.sizes = base, sizes
            self._groups = Groups(sizes)
            super().__init__(parameters, validate_args, name, base.dtype)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {"base": tfp.util.BatchedComponentProperties()}

    @property
    def marginalizes(self) -> bool:
        # Units depend only on others in their group, which is observed completely or not at all.
        return self.base.marginalizes

    def _event_shape(self):
        return self.base.event_shape

    def _event_shape_tensor(self):
        return self.base.event_shape_tensor()

    def conditional_logits(self, value: tf.Tensor) -> tf.Tensor:
        return self._decided(self.base.conditional_logits(value), self._vector(value))

    def _ancestral_sample(self, noise, groups=None):
        del groups  # it cannot be the base of another
        value, logits = self.base._ancestral_sample(noise, self._groups)
        return value, self._decided(logits, value)

    def _decided(self, logits, value):
        """The logits, infinite where the units before determine the unit."""
        taken = tf.tensordot(value, tf.cast(self._groups.earlier, self.dtype), 1) > 0.5
        certain = tf.cast(np.inf, self.dtype)
        logits = tf.where(self._groups.last, certain, logits)
        return tf.where(taken, -certain, logits)
