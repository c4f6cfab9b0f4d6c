"""Conditional neural autoregressive distribution estimator (NADE)."""

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
    size,
    sizes,
)
from rws_keras.layers.registry import register_family
from rws_keras.layers.rows import flatten_rows, unflatten_rows
from rws_keras.layers.stochastic_layer import StochasticLayer, affine
from rws_keras.layers.value_shapes import value_shapes_allowed

# Units evaluated together. The hidden activations of a block take _BLOCK x K x R x H floats,
# those of all units at once would take D x K x R x H: 400 MB for K R = 500, D = 784, H = 250.
# Larger blocks leave the processor's cache, smaller ones do more steps.
_BLOCK = 16

# Particles whose hidden activations are in memory at once where there is one for each run of units.
_MOST_PARTICLES = 100

# The activations of the hidden layer, and their derivatives as functions of their values. The
# backward pass computes these again, where a zero may come out as 1e-7.
_ACTIVATIONS = {
    "sigmoid": (tf.sigmoid, lambda s: s * (1.0 - s)),
    "relu": (tf.nn.relu, lambda s: tf.cast(s > 1e-6, s.dtype)),
}


class NeuralAutoregressiveBernoulli(BinaryDistribution):
    """Units that depend on those before them through one shared hidden layer.

    `a_i = c + Σ_{j<i} W_j x_j`, `p(x_i = 1 | x_<i) = σ(s_i + V_i φ(a_i))`.

    The sums over `x` do not depend on the batch of the parameters: with a value `[N, D]` and
    parameters `[K, N, …]` they are computed once for all K.

    Args:
        shift: Tensor, array or variable `[..., D]`, the biases of the units.
        hidden_shift: Tensor, array or variable `[..., H]`, the biases `c` of the hidden layer.
        encoder: Tensor, array or variable `[D, H]`, the weights `W` into the hidden layer, the
            same for the whole batch.
        decoder: Tensor, array or variable `[D, H]`, the weights `V` out of it.
        activation: φ, `"sigmoid"` or `"relu"`.
        validate_args: Whether to check that values are binary.
        name: Name of the distribution.
    """

    def __init__(
        self,
        shift: tf.Tensor,
        hidden_shift: tf.Tensor,
        encoder: tf.Tensor,
        decoder: tf.Tensor,
        activation: str = "sigmoid",
        validate_args: bool = False,
        name: str = "NeuralAutoregressiveBernoulli",
    ):
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            dtype = parameter_dtype(shift, hidden_shift, encoder, decoder)
            self.shift = as_parameter(shift, dtype, "shift")
            self.hidden_shift = as_parameter(hidden_shift, dtype, "hidden_shift")
            shape = [*last_axis(self.shift), *last_axis(self.hidden_shift)]
            self.encoder = as_matrix(encoder, dtype, "encoder", shape)
            self.decoder = as_matrix(decoder, dtype, "decoder", shape)
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
        }

    def _event_shape(self):
        return last_axis(self.shift)

    def _event_shape_tensor(self):
        return tf.shape(self.shift)[-1:]

    def conditional_logits(self, value: tf.Tensor) -> tf.Tensor:
        shift, hidden_shift, encoder, decoder = self._parameters_as_tensors()
        value = self._vector(value)
        batch = tf.broadcast_dynamic_shape(tf.shape(value)[:-1], tf.shape(hidden_shift)[:-1])
        # The leading axes that only the parameters have: K particles of the same R rows.
        particles = _more_axes(hidden_shift, than=value)
        (value,) = flatten_rows(batch[particles:], value)
        (hidden_shift,) = flatten_rows(batch, hidden_shift)
        leading = [tf.reduce_prod(batch[:particles]), size(value, 0)]
        hidden_shift = tf.reshape(hidden_shift, [*leading, size(hidden_shift, 1)])
        by_runs = particles and value_shapes_allowed()
        logits = (_logits_by_runs if by_runs else _logits_by_blocks)(
            value, hidden_shift, encoder, decoder, self.activation, *sizes(encoder)
        )
        return shift + unflatten_rows(batch, tf.reshape(logits, [-1, size(encoder, 0)]))

    def _ancestral_sample(self, noise, groups=None):
        shift, hidden_shift, encoder, decoder = self._parameters_as_tensors()
        batch = tf.broadcast_dynamic_shape(tf.shape(noise)[:-1], self.batch_shape_tensor())
        noise, shift, hidden_shift = flatten_rows(batch, noise, shift, hidden_shift)
        ends = None if groups is None else (tf.constant(groups.first), tf.constant(groups.last))
        value, logits = _sample_in_order(
            noise, shift, hidden_shift, encoder, decoder, self.activation, *sizes(encoder), ends
        )
        return unflatten_rows(batch, value), unflatten_rows(batch, logits)

    def _parameters_as_tensors(self):
        kept = (self.shift, self.hidden_shift, self.encoder, self.decoder)
        return [tf.cast(parameter, self.dtype) for parameter in kept]


def _more_axes(tensor: tf.Tensor, than: tf.Tensor) -> int:
    ranks = (tensor.shape.rank, than.shape.rank)
    return 0 if None in ranks else max(0, ranks[0] - ranks[1])


@tf.function(autograph=False, reduce_retracing=True)
def _logits_by_blocks(value, hidden_shift, encoder, decoder, activation, units, hidden_units):
    """`V_i φ(c + Σ_{j<i} W_j x_j)` of all units, `[K, R, D]`, block by block.

    The values are `[R, D]`, the hidden shifts `[K, R, H]`; only φ and what follows it is computed
    for each of the K particles. The backward pass recomputes the hidden activations of a block
    instead of keeping them, so both passes hold one block at a time. All sizes but K and R are
    static (as a rule), all slices of static size: XLA compiles the loops. The sizes are arguments
    too, so that calls with other numbers of rows share a trace and layers of other sizes do not.
    """
    dtype = value.dtype
    activate, derivative = _ACTIVATIONS[activation]
    blocks = -(-units // _BLOCK)
    padding = blocks * _BLOCK - units
    earlier = tf.linalg.band_part(tf.ones([_BLOCK, _BLOCK], dtype), -1, 0)
    earlier -= tf.eye(_BLOCK, dtype=dtype)

    @tf.custom_gradient
    def logits_of(value, hidden_shift, encoder, decoder):
        value = tf.pad(value, [[0, 0], [0, padding]])
        encoder = tf.pad(encoder, [[0, padding], [0, 0]])
        decoder = tf.pad(decoder, [[0, padding], [0, 0]])

        def weights(block):
            """The block's units `[R, B]` and their weights, `[B, H]` and `[B, 1, 1, H]`."""
            start = block * _BLOCK
            return (
                tf.slice(value, [0, start], [-1, _BLOCK]),
                tf.slice(encoder, [start, 0], [_BLOCK, -1]),
                tf.slice(decoder, [start, 0], [_BLOCK, -1])[:, None, None, :],
            )

        def activations(x, w, before):
            """The units j of the block before unit i, `[i R, j]`, and φ(a_i), `[i, K, R, H]`."""
            within = tf.reshape(x * earlier[:, None, :], [-1, _BLOCK])
            a = before + tf.reshape(tf.matmul(within, w), [_BLOCK, -1, hidden_units])
            return within, activate(a[:, None] + hidden_shift)

        def forward(block, before, logits):
            x, w, v = weights(block)
            _, s = activations(x, w, before)
            logits = logits.write(block, tf.reduce_sum(s * v, axis=-1))
            return block + 1, before + tf.matmul(x, w), logits

        def per_block(*shape):
            return tf.TensorArray(dtype, blocks, element_shape=[_BLOCK, *shape])

        def joined(array):
            """The entries `[B, ...]` of all blocks as `[D, ...]`."""
            stacked = array.stack()
            shape = tf.concat([[blocks * _BLOCK], tf.shape(stacked)[2:]], axis=0)
            return tf.reshape(stacked, shape)[:units]

        _, after, logits = tf.while_loop(
            lambda block, *_: block < blocks,
            forward,
            (
                0,
                tf.zeros([size(value, 0), hidden_units], dtype),
                per_block(*hidden_shift.shape[:-1]),
            ),
            maximum_iterations=blocks,
            parallel_iterations=1,
        )

        def gradient(upstream):
            upstream = tf.pad(tf.transpose(upstream, [2, 0, 1]), [[0, padding], [0, 0], [0, 0]])

            def backward(block, after, d_shift, d_value, d_encoder, d_decoder):
                x, w, v = weights(block)
                before = after - tf.matmul(x, w)
                within, s = activations(x, w, before)
                g = tf.slice(upstream, [block * _BLOCK, 0, 0], [_BLOCK, -1, -1])[..., None]
                d_a = g * v * derivative(s)
                # W_j acts on every later unit of all particles: those of this block and, through
                # `d_later`, those of the blocks behind it.
                d_rows, d_later = tf.reduce_sum(d_a, axis=1), tf.reduce_sum(d_shift, axis=0)
                d_w = tf.matmul(within, tf.reshape(d_rows, [-1, hidden_units]), transpose_a=True)
                d_w += tf.matmul(x, d_later, transpose_a=True)
                d_within = tf.cumsum(d_rows, axis=0, exclusive=True, reverse=True)
                d_x = tf.reduce_sum((d_within + d_later) * w[:, None, :], axis=-1)
                return (
                    block - 1,
                    before,
                    d_shift + tf.reduce_sum(d_a, axis=0),
                    d_value.write(block, d_x),
                    d_encoder.write(block, d_w),
                    d_decoder.write(block, tf.reduce_sum(g * s, axis=[1, 2])),
                )

            _, _, d_shift, d_value, d_encoder, d_decoder = tf.while_loop(
                lambda block, *_: block >= 0,
                backward,
                (
                    blocks - 1,
                    after,
                    tf.zeros_like(hidden_shift),
                    per_block(value.shape[0]),
                    per_block(encoder.shape[1]),
                    per_block(encoder.shape[1]),
                ),
                maximum_iterations=blocks,
                parallel_iterations=1,
            )
            return tf.transpose(joined(d_value)), d_shift, joined(d_encoder), joined(d_decoder)

        return tf.transpose(joined(logits), [1, 2, 0]), gradient

    return logits_of(value, hidden_shift, encoder, decoder)


@tf.function(autograph=False, reduce_retracing=True)
def _logits_by_runs(value, hidden_shift, encoder, decoder, activation, units, hidden_units):
    """As `_logits_by_blocks`, row by row, with fewer activations.

    The hidden layer changes only behind a unit that is on. So φ is computed once for each run: the
    units from one of these to the next, but not beyond the end of a block. There are at most as
    many runs as blocks and units that are on, a fifth of the units on binarized MNIST. Their number
    depends on the row, so XLA cannot compile this.
    """
    activate, _ = _ACTIVATIONS[activation]
    particles, rows = tf.shape(hidden_shift)[0], tf.shape(hidden_shift)[1]
    # Without particles or rows there is one of each all the same, to be cut off at the end.
    some_particles, some_rows = tf.maximum(1, particles), tf.maximum(1, rows)
    parts = -(-some_particles // _MOST_PARTICLES)
    of_part = -(-some_particles // parts)
    blocks = -(-units // _BLOCK)
    by_block = tf.pad(decoder, [[0, blocks * _BLOCK - units], [0, 0]])
    by_block = tf.transpose(tf.reshape(by_block, [blocks, _BLOCK, hidden_units]), [0, 2, 1])
    unit = tf.range(units)

    def logits_of_row(row):
        x, shift = row
        before = tf.concat([tf.zeros([1], x.dtype), x[:-1]], axis=0)
        begins = (unit % _BLOCK == 0) | (before != 0.0)
        first = tf.boolean_mask(unit, begins)
        steps = tf.gather(before, first)[:, None] * tf.gather(encoder, tf.maximum(first - 1, 0))
        s = activate(tf.cumsum(steps)[:, None, :] + shift)
        # Of each run [B, K] for the units of its block, from which each unit takes its own.
        logits = tf.transpose(tf.matmul(s, tf.gather(by_block, first // _BLOCK)), [0, 2, 1])
        run = tf.cumsum(tf.cast(begins, tf.int32)) - 1
        return tf.transpose(tf.gather_nd(logits, tf.stack([run, unit % _BLOCK], axis=1)))

    @tf.custom_gradient
    def logits_of(*inputs):
        value, hidden_shift, _, _ = inputs
        # The particles of a row in parts of equal size, [parts R, K / parts, H].
        more_rows = [0, some_rows - rows]
        value = tf.pad(value, [more_rows, [0, 0]])
        shift = tf.pad(hidden_shift, [[0, parts * of_part - particles], more_rows, [0, 0]])
        shift = tf.reshape(shift, [parts, of_part, some_rows, hidden_units])
        shift = tf.transpose(shift, [0, 2, 1, 3])
        shift = tf.reshape(shift, [parts * some_rows, of_part, hidden_units])
        logits = tf.map_fn(
            logits_of_row,
            (tf.tile(value, [parts, 1]), shift),
            fn_output_signature=tf.TensorSpec([None, value.shape[1]], value.dtype),
            parallel_iterations=2,
        )
        logits = tf.reshape(logits, [parts, some_rows, of_part, units])
        logits = tf.transpose(logits, [0, 2, 1, 3])
        logits = tf.reshape(logits, [parts * of_part, some_rows, units])[:particles, :rows]

        def gradient(upstream):
            # The weights of units that are off are not read above, but they have a derivative.
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                again = _logits_by_blocks(*inputs, activation, units, hidden_units)
            return tape.gradient(again, inputs, output_gradients=upstream)

        return logits, gradient

    return logits_of(value, hidden_shift, encoder, decoder)


@tf.function(autograph=False, reduce_retracing=True)
def _sample_in_order(
    noise, shift, hidden_shift, encoder, decoder, activation, units, hidden_units, ends=None
):
    """Draws `[R, D]` units in order; returns the sample and the logits on its path.

    `ends` says which units are the first of their group, and the last of several, `[D]` each.
    """
    dtype = noise.dtype
    activate, _ = _ACTIVATIONS[activation]
    noise, shift = tf.transpose(noise), tf.transpose(shift)

    def draw_unit(i, hidden, taken, logits):
        logit = shift[i] + tf.linalg.matvec(activate(hidden), decoder[i])
        if ends is not None:
            first, last = ends
            taken &= ~first[i]
            logit = tf.where(last[i], DECISIVE, logit)
            logit = tf.where(taken, -DECISIVE, logit)
        on = noise[i] < tf.sigmoid(logit)
        hidden += tf.cast(on, dtype)[:, None] * encoder[i]
        return i + 1, hidden, taken | on, logits.write(i, logit)

    _, _, _, logits = tf.while_loop(
        lambda i, *_: i < units,
        draw_unit,
        (
            0,
            hidden_shift,
            tf.zeros(tf.shape(noise)[1:], tf.bool),
            tf.TensorArray(dtype, units, element_shape=noise.shape[1:]),
        ),
        maximum_iterations=units,
    )
    logits = logits.stack()
    value = tf.cast(noise < tf.sigmoid(logits), dtype)
    return tf.transpose(value), tf.transpose(logits)


@register_family("nade", label="NADE")
@keras.saving.register_keras_serializable(package="rws_keras")
class NADE(StochasticLayer):
    """Conditional NADE layer.

    `a_i = c(y) + Σ_{j<i} W_j x_j`, `p(x_i = 1 | x_<i, y) = σ(V_i φ(a_i) + b_i(y))` with
    `c(y) = c + U_c y` and `b(y) = b + U_b y`. Without a parent it is the plain NADE.

    Args:
        units: Positive integer, the number of binary units `D`.
        hidden_units: Positive integer, the size `H` of the shared hidden layer; as many
            as `units` by default.
        activation: `φ`, `"sigmoid"` as in the papers or `"relu"`.
        kernel_initializer: Initializer of `W`, `V`, `U_c` and `U_b`.
        bias_initializer: Initializer of `c` and `b`.

    References:
        - [Larochelle & Murray, 2011](https://proceedings.mlr.press/v15/larochelle11a.html)
        - [Bornschein & Bengio, 2015](https://arxiv.org/abs/1406.2751)
    """

    def __init__(
        self,
        units: int,
        hidden_units: int | None = None,
        activation: str = "sigmoid",
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
        self.hidden_bias = self._add_bias("hidden_bias", self.hidden_units)
        self.bias = self._add_bias("bias", self.units)

    def _distribution(self, given):
        kernel, hidden_kernel = (None, None) if given is None else (self.kernel, self.hidden_kernel)
        return NeuralAutoregressiveBernoulli(
            affine(given, kernel, self.bias),
            affine(given, hidden_kernel, self.hidden_bias),
            self.encoder,
            self.decoder,
            self.activation,
        )
