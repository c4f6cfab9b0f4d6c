"""Autoregressive sigmoid belief layer (DARN, FVSBN)."""

from __future__ import annotations

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.layers.distribution import BinaryDistribution
from rws_keras.layers.stochastic_layer import StochasticLayer, affine

# Units drawn in one turn of the sampling loop. Within a block each unit updates only the
# rest of the block; the units beyond it are brought up to date by one matrix product.
_BLOCK = 16


class AutoregressiveBernoulli(BinaryDistribution):
    """Units that depend linearly on the units before them.

    `p(x_i = 1 | x_<i) = σ(s_i + Σ_{j<i} W_ji x_j)`.

    Args:
        shift: Float tensor `[..., D]`, the part of the logits that is known beforehand.
        kernel: Float tensor `[D, D]`; the entry `[j, i]` leads from unit j to unit i, and
            only the entries with j < i are used.
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
            self.shift = tf.convert_to_tensor(shift, tf.float32, name="shift")
            kernel = tf.convert_to_tensor(kernel, tf.float32, name="kernel")
            # band_part keeps the upper triangle with its diagonal; the second call takes
            # the diagonal away.
            upper = tf.linalg.band_part(kernel, 0, -1)
            self.kernel = upper - tf.linalg.band_part(upper, 0, 0)
            super().__init__(parameters, validate_args, name)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {
            "shift": tfp.util.ParameterProperties(event_ndims=1),
            "kernel": tfp.util.ParameterProperties(event_ndims=2),
        }

    def _event_shape(self):
        return self.shift.shape[-1:]

    def _event_shape_tensor(self):
        return tf.shape(self.shift)[-1:]

    def conditional_logits(self, value: tf.Tensor) -> tf.Tensor:
        return self.shift + tf.tensordot(value, self.kernel, 1)

    def _ancestral_sample(self, noise):
        shape = tf.broadcast_dynamic_shape(tf.shape(noise), tf.shape(self.shift))
        units = shape[-1]
        noise = tf.reshape(tf.broadcast_to(noise, shape), [-1, units])
        shift = tf.reshape(tf.broadcast_to(self.shift, shape), [-1, units])
        value, logits = _sample_in_blocks(noise, shift, self.kernel)
        return tf.reshape(value, shape), tf.reshape(logits, shape)


@tf.function(reduce_retracing=True, autograph=False)
def _sample_in_blocks(noise, shift, kernel):
    """Draws `[R, D]` units in order; returns the sample and the logits on its path."""
    units = tf.shape(shift)[1]
    blocks = (units + _BLOCK - 1) // _BLOCK
    padding = blocks * _BLOCK - units
    # The unit's axis comes first: a unit's row is then contiguous. A padding unit has no
    # weights, so what it draws is of no consequence.
    noise = tf.pad(tf.transpose(noise), [[0, padding], [0, 0]])
    logits = tf.pad(tf.transpose(shift), [[0, padding], [0, 0]])
    kernel = tf.pad(kernel, [[0, padding], [0, padding]])

    def draw_block(block, logits, values, passed):
        start = block * _BLOCK
        rows = slice(start, start + _BLOCK)
        block_logits, block_noise = logits[rows], noise[rows]
        block_kernel = kernel[rows, rows]
        drawn, path = [], []
        for i in range(_BLOCK):
            path.append(block_logits[0])
            drawn.append(tf.cast(block_noise[i] < tf.sigmoid(block_logits[0]), tf.float32))
            block_logits = block_logits[1:] + block_kernel[i, i + 1 :, None] * drawn[-1]
        drawn = tf.stack(drawn)
        logits += tf.matmul(kernel[rows], drawn, transpose_a=True)
        return (
            block + 1,
            logits,
            values.write(block, drawn),
            passed.write(block, tf.stack(path)),
        )

    def collect(array):
        return tf.transpose(tf.reshape(array.stack(), tf.shape(noise))[:units])

    empty = tf.TensorArray(tf.float32, size=blocks)
    _, _, values, passed = tf.while_loop(
        lambda block, *_: block < blocks,
        draw_block,
        (0, logits, empty, tf.TensorArray(tf.float32, size=blocks)),
        maximum_iterations=blocks,
    )
    return collect(values), collect(passed)


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
