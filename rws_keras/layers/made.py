"""Conditional masked autoencoder for distribution estimation (MADE)."""

from __future__ import annotations

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.checks import check_one_of, check_positive_integer
from rws_keras.layers.bernoulli import DECISIVE, BinaryDistribution
from rws_keras.layers.parameters import (
    as_matrix,
    as_parameter,
    last_axis,
    parameter_dtype,
    sizes,
    strictly_upper,
)
from rws_keras.layers.registry import register_family
from rws_keras.layers.rows import flatten_rows, unflatten_rows
from rws_keras.layers.stochastic_layer import StochasticLayer, affine

# Units drawn in one turn of the sampling loop. Within a block each unit acts only on the rest of
# the block; all that is beyond it is brought up to date by matrix products.
_BLOCK = 16

# Of the hidden layer; each acts on one hidden unit at a time, as the masks demand.
_ACTIVATIONS = {"relu": tf.nn.relu, "sigmoid": tf.sigmoid, "tanh": tf.tanh}


class MaskedAutoregressiveBernoulli(BinaryDistribution):
    """Units that depend on those before them through one masked hidden layer, and directly.

    `p(x_i = 1 | x_<i) = σ(s_i + Σ_{j<i} A_ji x_j + Σ_k V_ik φ(c_k + Σ_j W_jk x_j))`, where the
    hidden unit k sees the first `d_k` units only, and acts on those behind them. The numbers `d_k`
    are spread evenly over 0 … D - 1.

    The products with `x` do not depend on the batch of the parameters: with a value `[N, D]` and
    parameters `[K, N, …]` they are computed once for all K.

    Args:
        shift: Tensor, array or variable `[..., D]`, the biases of the units.
        hidden_shift: Tensor, array or variable `[..., H]`, the biases `c` of the hidden layer.
        encoder: Tensor, array or variable `[D, H]`, the weights `W` into the hidden layer, the
            same for the whole batch. Those that the order of the units forbids are not used.
        decoder: Tensor, array or variable `[D, H]`, the weights `V` out of it; the same holds.
        direct: Tensor, array or variable `[D, D]`, the weights `A`; only entries with j < i are
            used.
        activation: φ, `"relu"`, `"sigmoid"` or `"tanh"`.
        validate_args: Whether to check that values are binary.
        name: Name of the distribution.
    """

    def __init__(
        self,
        shift: tf.Tensor,
        hidden_shift: tf.Tensor,
        encoder: tf.Tensor,
        decoder: tf.Tensor,
        direct: tf.Tensor,
        activation: str = "relu",
        validate_args: bool = False,
        name: str = "MaskedAutoregressiveBernoulli",
    ):
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            dtype = parameter_dtype(shift, hidden_shift, encoder, decoder, direct)
            self.shift = as_parameter(shift, dtype, "shift")
            self.hidden_shift = as_parameter(hidden_shift, dtype, "hidden_shift")
            units, hidden_units = last_axis(self.shift), last_axis(self.hidden_shift)
            self.encoder = as_matrix(encoder, dtype, "encoder", [*units, *hidden_units])
            self.decoder = as_matrix(decoder, dtype, "decoder", [*units, *hidden_units])
            self.direct = as_matrix(direct, dtype, "direct", [*units, *units])
            self.activation = check_one_of(activation, "activation", _ACTIVATIONS)
            super().__init__(parameters, validate_args, name, dtype)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {
            "shift": tfp.util.ParameterProperties(event_ndims=1),
            "hidden_shift": tfp.util.ParameterProperties(event_ndims=1),
            # These have no batch: a slice of the batch leaves them as they are.
            "encoder": tfp.util.ParameterProperties(event_ndims=None),
            "decoder": tfp.util.ParameterProperties(event_ndims=None),
            "direct": tfp.util.ParameterProperties(event_ndims=None),
        }

    def _event_shape(self):
        return last_axis(self.shift)

    def _event_shape_tensor(self):
        return tf.shape(self.shift)[-1:]

    def conditional_logits(self, value: tf.Tensor) -> tf.Tensor:
        shift, hidden_shift, encoder, decoder, direct = self._parameters_as_tensors()
        value = self._vector(value)
        hidden = _ACTIVATIONS[self.activation](hidden_shift + tf.tensordot(value, encoder, 1))
        through_hidden = tf.tensordot(hidden, decoder, [[-1], [1]])
        return shift + tf.tensordot(value, direct, 1) + through_hidden

    def _ancestral_sample(self, noise, groups=None):
        shift, hidden_shift, encoder, decoder, direct = self._parameters_as_tensors()
        if groups is not None:
            # A weight so large that it determines the unit; it acts only on units that are already
            # determined.
            shift += DECISIVE * tf.cast(groups.last, self.dtype)
            direct -= 2.0 * DECISIVE * tf.cast(groups.earlier, self.dtype)
        batch = tf.broadcast_dynamic_shape(tf.shape(noise)[:-1], self.batch_shape_tensor())
        noise, shift, hidden_shift = flatten_rows(batch, noise, shift, hidden_shift)
        logits = _logits_in_order(
            noise, shift, hidden_shift, encoder, decoder, direct, self.activation, *sizes(encoder)
        )
        value = tf.cast(noise < tf.sigmoid(logits), self.dtype)
        return unflatten_rows(batch, value), unflatten_rows(batch, logits)

    def _parameters_as_tensors(self):
        """The parameters; weights that the order of the units forbids are zero."""
        kept = (self.shift, self.hidden_shift, self.encoder, self.decoder, self.direct)
        shift, hidden_shift, encoder, decoder, direct = (tf.cast(p, self.dtype) for p in kept)
        units, hidden_units = sizes(encoder)
        seen = _seen(units, hidden_units)
        before = tf.range(units)[:, None] < seen
        encoder = tf.where(before, encoder, 0.0)
        decoder = tf.where(~before, decoder, 0.0)
        return shift, hidden_shift, encoder, decoder, strictly_upper(direct)


def _seen(units, hidden_units):
    """How many units each hidden unit sees, `[H]`, in ascending order."""
    return tf.range(hidden_units) * units // hidden_units


@tf.function(autograph=False, reduce_retracing=True)
def _logits_in_order(
    noise, shift, hidden_shift, encoder, decoder, direct, activation, units, hidden_units
):
    """Logits `[R, D]` on the path of a sample that uniform noise `[R, D]` drives.

    A hidden unit is complete when all units that it sees are drawn. Those that are completed within
    a block of units are followed unit by unit; the others wait, or have had their effect.

    All sizes but R are static (as a rule), all slices of static size: XLA compiles the loops. The
    sizes are arguments too, so that calls with other numbers of rows share a trace and layers of
    other sizes do not.
    """
    dtype = noise.dtype
    blocks = -(-units // _BLOCK)
    padding = blocks * _BLOCK - units
    # The most hidden units that one block completes.
    most = -(-hidden_units * _BLOCK // units)
    # The unit's axis comes first: a unit's row is then contiguous. Padding has no weights, so its
    # values do not matter.
    noise = tf.pad(tf.transpose(noise), [[0, padding], [0, 0]])
    encoder = tf.pad(encoder, [[0, padding], [0, most]])
    decoder = tf.pad(decoder, [[0, padding], [0, most]])
    direct = tf.pad(direct, [[0, padding], [0, padding]])
    activate = _ACTIVATIONS[activation]
    hidden = tf.pad(tf.transpose(hidden_shift), [[0, most], [0, 0]])
    seen = tf.pad(_seen(units, hidden_units), [[0, most]], constant_values=units)
    # Some see nothing and are complete from the beginning.
    from_parents = tf.where(seen[:, None] == 0, activate(hidden), 0.0)
    logits = tf.pad(tf.transpose(shift), [[0, padding], [0, 0]]) + tf.matmul(decoder, from_parents)

    def draw_block(block, logits, hidden, path):
        start = block * _BLOCK
        first = (start * hidden_units + hidden_units + units - 1) // units
        block_noise = tf.slice(noise, [start, 0], [_BLOCK, -1])
        to_hidden = tf.slice(encoder, [start, 0], [_BLOCK, -1])
        to_units = tf.slice(direct, [start, 0], [_BLOCK, -1])
        from_followed = tf.slice(decoder, [0, first], [-1, most])
        to_followed = tf.slice(to_hidden, [0, first], [-1, most])
        to_block = tf.slice(to_units, [0, start], [_BLOCK, _BLOCK])
        into_block = tf.slice(from_followed, [start, 0], [_BLOCK, -1])

        def draw_unit(i, block_logits, followed, block_path):
            through = tf.reduce_sum(into_block[i][:, None] * activate(followed), axis=0)
            logit = block_logits[i] + through
            value = tf.cast(block_noise[i] < tf.sigmoid(logit), dtype)
            return (
                i + 1,
                block_logits + to_block[i][:, None] * value,
                followed + to_followed[i][:, None] * value,
                block_path.write(i, logit),
            )

        _, _, _, block_path = tf.while_loop(
            lambda i, *_: i < _BLOCK,
            draw_unit,
            (
                0,
                tf.slice(logits, [start, 0], [_BLOCK, -1]),
                tf.slice(hidden, [first, 0], [most, -1]),
                tf.TensorArray(dtype, _BLOCK, element_shape=noise.shape[1:]),
            ),
            maximum_iterations=_BLOCK,
        )
        block_path = block_path.stack()
        values = tf.cast(block_noise < tf.sigmoid(block_path), dtype)
        hidden += tf.matmul(to_hidden, values, transpose_a=True)
        complete = tf.slice(seen, [first], [most])[:, None] <= start + _BLOCK
        followed = activate(tf.slice(hidden, [first, 0], [most, -1]))
        effects = tf.concat([tf.transpose(to_units), from_followed], axis=1)
        causes = tf.concat([values, tf.where(complete, followed, 0.0)], axis=0)
        logits += tf.matmul(effects, causes)
        return block + 1, logits, hidden, path.write(block, block_path)

    _, _, _, path = tf.while_loop(
        lambda block, *_: block < blocks,
        draw_block,
        (0, logits, hidden, tf.TensorArray(dtype, blocks, element_shape=[_BLOCK, noise.shape[1]])),
        maximum_iterations=blocks,
    )
    return tf.transpose(tf.reshape(path.stack(), tf.shape(noise))[:units])


@register_family("made", label="MADE")
@keras.saving.register_keras_serializable(package="rws_keras")
class MADE(StochasticLayer):
    """Conditional MADE layer: an autoregressive layer with a masked hidden layer.

    `p(x_i = 1 | x_<i, y) = σ(b_i(y) + Σ_{j<i} A_ji x_j + Σ_k V_ik φ(a_k))` with
    `a_k = c_k(y) + Σ_j W_jk x_j`, `c(y) = c + U_c y` and `b(y) = b + U_b y`. The hidden unit k sees
    the first `d_k` units only, and acts on those behind them; the `d_k` are spread evenly over
    0 … D - 1. Log-probabilities of all units take a few matrix products, of which those with `x`
    are shared by all particles of a datum; samples are drawn unit by unit.

    Args:
        units: Positive integer, the number of binary units `D`.
        hidden_units: Positive integer, the size `H` of the hidden layer; as many as `units` by
            default.
        activation: Activation `φ` of the hidden layer: `"relu"`, `"sigmoid"` or `"tanh"`.
        kernel_initializer: Initializer of `W`, `V`, `A`, `U_c` and `U_b`.
        bias_initializer: Initializer of `c` and `b`.

    References:
        - [Germain et al., 2015](https://proceedings.mlr.press/v37/germain15.html)
    """

    def __init__(
        self,
        units: int,
        hidden_units: int | None = None,
        activation: str = "relu",
        **kwargs,
    ):
        super().__init__(units, **kwargs)
        self.hidden_units = (
            self.units
            if hidden_units is None
            else check_positive_integer(hidden_units, "hidden_units")
        )
        self.activation = check_one_of(activation, "activation", _ACTIVATIONS)

    def _build(self, given_units):
        if given_units is not None:
            self.hidden_kernel = self._add_kernel("hidden_kernel", given_units, self.hidden_units)
            self.kernel = self._add_kernel("kernel", given_units, self.units)
        self.encoder = self._add_kernel("encoder", self.units, self.hidden_units)
        self.decoder = self._add_kernel("decoder", self.units, self.hidden_units)
        self.autoregressive_kernel = self._add_kernel(
            "autoregressive_kernel", self.units, self.units
        )
        self.hidden_bias = self._add_bias("hidden_bias", self.hidden_units)
        self.bias = self._add_bias("bias", self.units)

    def _distribution(self, given):
        kernel, hidden_kernel = (None, None) if given is None else (self.kernel, self.hidden_kernel)
        return MaskedAutoregressiveBernoulli(
            affine(given, kernel, self.bias),
            affine(given, hidden_kernel, self.hidden_bias),
            self.encoder,
            self.decoder,
            self.autoregressive_kernel,
            self.activation,
        )
