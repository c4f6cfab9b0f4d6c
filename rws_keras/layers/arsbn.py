"""Autoregressive sigmoid belief layer (DARN, FVSBN)."""

from __future__ import annotations

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.layers.bernoulli import DECISIVE, BinaryDistribution
from rws_keras.layers.parameters import (
    as_matrix,
    as_parameter,
    last_axis,
    parameter_dtype,
    size,
    strictly_upper,
)
from rws_keras.layers.registry import register_family
from rws_keras.layers.rows import flatten_rows, unflatten_rows
from rws_keras.layers.stochastic_layer import StochasticLayer, affine

# Units drawn in one turn of the sampling loop. Within a block each unit updates only the
# rest of the block; the units beyond it are brought up to date by one matrix product.
_BLOCK = 16


class AutoregressiveBernoulli(BinaryDistribution):
    """Units that depend linearly on the units before them.

    `p(x_i = 1 | x_<i) = σ(s_i + Σ_{j<i} W_ji x_j)`.

    Args:
        shift: Tensor, array or variable `[..., D]`, the part of the logits that is known
            beforehand.
        kernel: Tensor, array or variable `[D, D]`, the same for the whole batch; the entry
            `[j, i]` leads from unit j to unit i, and only the entries with j < i are used.
        validate_args: Whether to check that values are binary.
        name: Name of the distribution.
    """

    def __init__(
        self,
        shift: tf.Tensor,
        kernel: tf.Tensor,
        validate_args: bool = False,
        name: str = "AutoregressiveBernoulli",
    ):
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            dtype = parameter_dtype(shift, kernel)
            self.shift = as_parameter(shift, dtype, "shift")
            self.kernel = as_matrix(kernel, dtype, "kernel", 2 * last_axis(self.shift).as_list())
            super().__init__(parameters, validate_args, name, dtype)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {
            "shift": tfp.util.ParameterProperties(event_ndims=1),
            # It has no batch: a slice of the batch leaves it as it is.
            "kernel": tfp.util.ParameterProperties(event_ndims=None),
        }

    def _event_shape(self):
        return last_axis(self.shift)

    def _event_shape_tensor(self):
        return tf.shape(self.shift)[-1:]

    def _masked_kernel(self):
        return strictly_upper(tf.cast(self.kernel, self.dtype))

    def conditional_logits(self, value: tf.Tensor) -> tf.Tensor:
        shift = tf.cast(self.shift, self.dtype)
        return shift + tf.tensordot(self._vector(value), self._masked_kernel(), 1)

    def _ancestral_sample(self, noise, groups=None):
        shift, kernel = tf.cast(self.shift, self.dtype), self._masked_kernel()
        if groups is not None:
            # A weight so large that it determines the unit; it acts only on units that are already
            # determined.
            shift += DECISIVE * tf.cast(groups.last, self.dtype)
            kernel -= 2.0 * DECISIVE * tf.cast(groups.earlier, self.dtype)
        batch = tf.broadcast_dynamic_shape(tf.shape(noise)[:-1], self.batch_shape_tensor())
        noise, shift = flatten_rows(batch, noise, shift)
        logits = _logits_in_order(noise, shift, kernel, size(kernel, 0))
        value = tf.cast(noise < tf.sigmoid(logits), self.dtype)
        return unflatten_rows(batch, value), unflatten_rows(batch, logits)


@tf.function(autograph=False, reduce_retracing=True)
def _logits_in_order(noise, shift, kernel, units):
    """Logits `[R, D]` on the path of a sample that uniform noise `[R, D]` drives.

    All sizes but R are static (as a rule), all slices of static size: XLA compiles the loops. The
    number of units is an argument too, so that calls with other numbers of rows share a trace and
    layers of other sizes do not.
    """
    dtype = noise.dtype
    blocks = -(-units // _BLOCK)
    padding = blocks * _BLOCK - units
    # The unit's axis comes first: a unit's row is then contiguous. A padding unit has no weights,
    # so its value does not matter.
    noise = tf.pad(tf.transpose(noise), [[0, padding], [0, 0]])
    shift = tf.pad(tf.transpose(shift), [[0, padding], [0, 0]])
    kernel = tf.pad(kernel, [[0, padding], [0, padding]])

    def draw_block(block, logits, path):
        start = block * _BLOCK
        block_noise = tf.slice(noise, [start, 0], [_BLOCK, -1])
        to_all = tf.slice(kernel, [start, 0], [_BLOCK, -1])
        to_block = tf.slice(to_all, [0, start], [_BLOCK, _BLOCK])

        def draw_unit(i, block_logits):
            value = tf.cast(block_noise[i] < tf.sigmoid(block_logits[i]), dtype)
            # The kernel's row i is zero up to unit i itself: its logit stays as it was.
            return i + 1, block_logits + to_block[i][:, None] * value

        _, block_logits = tf.while_loop(
            lambda i, _: i < _BLOCK,
            draw_unit,
            (0, tf.slice(logits, [start, 0], [_BLOCK, -1])),
            maximum_iterations=_BLOCK,
        )
        values = tf.cast(block_noise < tf.sigmoid(block_logits), dtype)
        logits += tf.matmul(to_all, values, transpose_a=True)
        return block + 1, logits, path.write(block, block_logits)

    _, _, path = tf.while_loop(
        lambda block, *_: block < blocks,
        draw_block,
        (0, shift, tf.TensorArray(dtype, blocks, element_shape=[_BLOCK, noise.shape[1]])),
        maximum_iterations=blocks,
    )
    return tf.transpose(tf.reshape(path.stack(), tf.shape(noise))[:units])


@register_family("arsbn", label="AR-SBN")
@keras.saving.register_keras_serializable(package="rws_keras")
class ARSBN(StochasticLayer):
    """Autoregressive sigmoid belief layer: `σ(U_i y + W_{i,<i} x_{<i} + b_i)`.

    Also known as a DARN layer (deep autoregressive network) and, without a parent, as a
    fully visible sigmoid belief network (FVSBN).

    Args:
        units: Positive integer, the number of binary units.
        kernel_initializer: Initializer of `U` and `W`.
        bias_initializer: Initializer of `b`.

    References:
        - [Frey, 1998](https://mitpress.mit.edu/9780262062022/)
        - [Gregor et al., 2014](https://arxiv.org/abs/1310.8499)
    """

    def _build(self, given_units):
        if given_units is not None:
            self.kernel = self._add_kernel("kernel", given_units, self.units)
        self.autoregressive_kernel = self._add_kernel(
            "autoregressive_kernel", self.units, self.units
        )
        self.bias = self._add_bias("bias", self.units)

    def _distribution(self, given):
        kernel = None if given is None else self.kernel
        return AutoregressiveBernoulli(affine(given, kernel, self.bias), self.autoregressive_kernel)
