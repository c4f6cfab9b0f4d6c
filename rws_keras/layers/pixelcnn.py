"""Autoregressive layer for images, with a masked convolutional network (PixelCNN)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.checks import check_integer, check_positive_integer
from rws_keras.errors import UserError
from rws_keras.layers.bernoulli import BinaryDistribution
from rws_keras.layers.parameters import as_matrix, as_parameter, last_axis, parameter_dtype
from rws_keras.layers.registry import register_family
from rws_keras.layers.rows import flatten_rows, unflatten_rows
from rws_keras.layers.stochastic_layer import StochasticLayer, affine


class ConvolutionalAutoregressiveBernoulli(BinaryDistribution):
    """Pixels that depend on the pixels before them through a masked convolutional network.

    The pixels of an image of height `R` and width `C` are in reading order, row by row. Each has
    `F` features in each of `1 + B` levels of the network, of which a pixel's logit uses the last:

    - `a_0 = c_0 + W_0 * x`, where the convolution sees only pixels before this one;
    - `a_b = a_{b-1} + c_b + W_b * relu(a_{b-1})`, where it sees those before and this one;
    - `p(x_i = 1 | x_<i) = σ(s_i + v · relu(a_B)_i)`.

    The network does not depend on the batch of the parameters: with a value `[N, D]` and a shift
    `[K, N, D]` it is computed once for all K.

    Args:
        shift: Tensor, array or variable `[..., D]`, with D = R C: the part of the logits that is
            known beforehand.
        image_kernel: Tensor, array or variable `[k + 1, 2 k + 1, 1, F]`: the filters `W_0`. Their
            last row lies on the pixel's own row, with the pixel in the middle. Entries that are
            not before it are not used.
        image_bias: Tensor, array or variable `[R, C, F]`: `c_0`, of each pixel.
        kernels: Tensor, array or variable `[B, k + 1, 2 k + 1, F, F]` (k may be another one): the
            filters `W_1 … W_B`. Entries behind the pixel are not used.
        biases: Tensor, array or variable `[B, F]`: `c_1 … c_B`.
        readout: Tensor, array or variable `[F]`: `v`.
        validate_args: Whether to check that values are binary.
        name: Name of the distribution.

    Raises:
        UserError: If the shapes do not fit, or those of the network are not known statically.
    """

    takes_choices = False

    def __init__(
        self,
        shift: tf.Tensor,
        image_kernel: tf.Tensor,
        image_bias: tf.Tensor,
        kernels: tf.Tensor,
        biases: tf.Tensor,
        readout: tf.Tensor,
        validate_args: bool = False,
        name: str = "ConvolutionalAutoregressiveBernoulli",
    ):
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            dtype = parameter_dtype(shift, image_kernel, image_bias, kernels, biases, readout)
            self.shift = as_parameter(shift, dtype, "shift")
            self.readout = as_matrix(readout, dtype, "readout", [None])
            filters = last_axis(self.readout)[0]
            self.image_bias = as_matrix(image_bias, dtype, "image_bias", [None, None, filters])
            self.image_kernel = as_matrix(
                image_kernel, dtype, "image_kernel", [None, None, 1, filters]
            )
            self.kernels = as_matrix(
                kernels, dtype, "kernels", [None, None, None, filters, filters]
            )
            _check_filters(self.image_kernel, "image_kernel")
            _check_filters(self.kernels, "kernels")
            self.biases = as_matrix(biases, dtype, "biases", [self.kernels.shape[0], filters])
            units = self.image_bias.shape[:2].num_elements()
            if units is None:
                raise UserError("The shape of `image_bias` must be known statically.")
            self._units = units
            if not last_axis(self.shift).is_compatible_with([units]):
                raise UserError(
                    f"`shift` must have one unit for each of the {units} pixels of `image_bias`, "
                    f"got {last_axis(self.shift)[0]}."
                )
            super().__init__(parameters, validate_args, name, dtype)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        # The network has no batch: a slice of the batch leaves it as it is.
        network = ("image_kernel", "image_bias", "kernels", "biases", "readout")
        return {
            "shift": tfp.util.ParameterProperties(event_ndims=1),
            **{name: tfp.util.ParameterProperties(event_ndims=None) for name in network},
        }

    def _event_shape(self):
        return tf.TensorShape([self._units])

    def _event_shape_tensor(self):
        return tf.constant([self._units])

    def conditional_logits(self, value: tf.Tensor) -> tf.Tensor:
        value = self._vector(value)
        image_kernel, image_bias, kernels, biases, readout = self._network()
        images = tf.reshape(value, [-1, *image_bias.shape[:2], 1])
        features = _causal(_not_empty(images), image_kernel) + image_bias
        for kernel, bias in zip(tf.unstack(kernels), tf.unstack(biases), strict=True):
            features += _causal(tf.nn.relu(features), kernel) + bias
        logits = tf.tensordot(tf.nn.relu(features), readout, 1)[: tf.shape(images)[0]]
        return tf.cast(self.shift, self.dtype) + tf.reshape(logits, tf.shape(value))

    def _ancestral_sample(self, noise, groups=None):
        del groups  # it cannot be the base of choices
        shift = tf.cast(self.shift, self.dtype)
        batch = tf.broadcast_dynamic_shape(tf.shape(noise)[:-1], self.batch_shape_tensor())
        rows, shift = flatten_rows(batch, noise, shift)
        network = self._network()
        shapes = tuple(tuple(parameter.shape) for parameter in network)
        logits = _logits_in_order(_not_empty(rows), _not_empty(shift), *network, shapes)
        logits = logits[: tf.shape(rows)[0]]
        value = tf.cast(rows < tf.sigmoid(logits), self.dtype)
        return unflatten_rows(batch, value), unflatten_rows(batch, logits)

    def _network(self):
        """The parameters of the network; entries that the order forbids are zero."""
        kept = (self.image_kernel, self.image_bias, self.kernels, self.biases, self.readout)
        image_kernel, image_bias, kernels, biases, readout = (
            tf.cast(parameter, self.dtype) for parameter in kept
        )
        image_kernel = tf.where(_before(image_kernel, with_itself=False), image_kernel, 0.0)
        kernels = tf.where(_before(kernels, with_itself=True), kernels, 0.0)
        return image_kernel, image_bias, kernels, biases, readout


def _check_filters(kernel, name):
    shape = kernel.shape
    if not shape.is_fully_defined():
        raise UserError(f"The shape of `{name}` must be known statically, got {shape}.")
    if shape[-4] < 2 or shape[-3] % 2 == 0:
        raise UserError(
            f"The filters of `{name}` must have at least two rows, and a middle column; got "
            f"{shape[-4]} rows and {shape[-3]} columns."
        )


def _before(kernel, with_itself):
    """Which entries of filters `[..., k + 1, 2 k + 1, in, out]` lie before the pixel."""
    rows, columns = kernel.shape[-4:-2]
    mask = np.ones([rows, columns, 1, 1], bool)
    mask[-1, columns // 2 + with_itself :] = False
    return tf.constant(mask)


def _not_empty(tensor):
    """The tensor, with one more row if it has none: TensorFlow's convolutions need one."""
    missing = tf.cast(tf.equal(tf.shape(tensor)[0], 0), tf.int32)
    return tf.pad(tensor, [[0, missing], *[[0, 0]] * (tensor.shape.rank - 1)])


def _causal(image, kernel):
    """Convolves images `[N, R, C, in]` with filters that lie above and around each pixel."""
    above, side = kernel.shape[0] - 1, kernel.shape[1] // 2
    padded = tf.pad(image, [[0, 0], [above, 0], [side, side], [0, 0]])
    return tf.nn.conv2d(padded, kernel, strides=1, padding="VALID")


@tf.function(autograph=False, reduce_retracing=True)
def _logits_in_order(noise, shift, image_kernel, image_bias, kernels, biases, readout, shapes):
    """Logits `[N, D]` on the path of samples that uniform noise `[N, D]` drives.

    Row by row: what the rows above contribute to a row is one convolution a level; only within the
    row the pixels follow each other. All sizes but N are static: XLA compiles the loops. The shapes
    are an argument too, so that calls with other numbers of rows share a trace and layers of other
    sizes do not.
    """
    del shapes
    dtype = noise.dtype
    rows, columns, filters = image_bias.shape
    levels = [image_kernel, *tf.unstack(kernels)]
    from_above = [kernel[:-1] for kernel in levels]
    sides = [kernel.shape[1] // 2 for kernel in levels]
    # In the pixel's own row: from the pixels to its left, and in the blocks from the pixel itself.
    from_left = [
        tf.reshape(kernel[-1, : side + (level > 0)], [-1, filters])
        for level, (kernel, side) in enumerate(zip(levels, sides, strict=True))
    ]
    # The unit's axis comes first: a unit's row is then contiguous.
    noise, shift = tf.transpose(noise), tf.transpose(shift)
    batch = tf.shape(noise)[1]

    def draw_row(row, strips, path):
        """`strips`: the rows above as each level sees them, `[N, k, C, in]`."""
        bases = []
        for strip, kernel, side in zip(strips, from_above, sides, strict=True):
            padded = tf.pad(strip, [[0, 0], [0, 0], [side, side], [0, 0]])
            base = tf.nn.conv2d(padded, kernel, strides=1, padding="VALID")
            bases.append(tf.transpose(base[:, 0], [1, 0, 2]))
        bases[0] += image_bias[row][:, None]
        bases[1:] = [base + bias for base, bias in zip(bases[1:], tf.unstack(biases), strict=True)]
        row_noise = tf.slice(noise, [row * columns, 0], [columns, -1])
        row_shift = tf.slice(shift, [row * columns, 0], [columns, -1])

        def draw_pixel(i, windows, activations, row_path):
            """`windows`: what each level sees to the left of the pixel, `[N, k in]`."""
            features = bases[0][i] + tf.matmul(windows[0], from_left[0])
            windows, activations = list(windows), list(activations)
            for b in range(1, len(levels)):
                activation = tf.nn.relu(features)
                activations[b - 1] = activations[b - 1].write(i, activation)
                seen = tf.concat([windows[b], activation], axis=1)
                # Not a sum of three, whose order TensorFlow would choose.
                terms = [features, bases[b][i], tf.matmul(seen, from_left[b])]
                features = tf.reduce_sum(tf.stack(terms), axis=0)
                windows[b] = seen[:, filters:]
            logit = row_shift[i] + tf.linalg.matvec(tf.nn.relu(features), readout)
            value = tf.cast(row_noise[i] < tf.sigmoid(logit), dtype)
            windows[0] = tf.concat([windows[0], value[:, None]], axis=1)[:, 1:]
            return i + 1, windows, activations, row_path.write(i, logit)

        def of_pixels(shape):
            return tf.TensorArray(dtype, columns, element_shape=shape)

        _, _, activations, row_path = tf.while_loop(
            lambda i, *_: i < columns,
            draw_pixel,
            (
                0,
                [
                    tf.zeros([batch, side * kernel.shape[2]], dtype)
                    for side, kernel in zip(sides, levels, strict=True)
                ],
                [of_pixels([noise.shape[1], filters]) for _ in levels[1:]],
                of_pixels(noise.shape[1:]),
            ),
            maximum_iterations=columns,
        )
        row_path = row_path.stack()
        values = tf.cast(row_noise < tf.sigmoid(row_path), dtype)
        drawn = [values[:, :, None], *(activation.stack() for activation in activations)]
        strips = [
            tf.concat([strip, tf.transpose(new, [1, 0, 2])[:, None]], axis=1)[:, 1:]
            for strip, new in zip(strips, drawn, strict=True)
        ]
        return row + 1, strips, path.write(row, row_path)

    strips = [
        tf.zeros([batch, kernel.shape[0] - 1, columns, kernel.shape[2]], dtype) for kernel in levels
    ]
    _, _, path = tf.while_loop(
        lambda row, *_: row < rows,
        draw_row,
        (0, strips, tf.TensorArray(dtype, rows, element_shape=[columns, noise.shape[1]])),
        maximum_iterations=rows,
    )
    return tf.transpose(tf.reshape(path.stack(), tf.shape(noise)))


@register_family("pixelcnn", label="PixelCNN")
@keras.saving.register_keras_serializable(package="rws_keras")
class PixelCNN(StochasticLayer):
    """Conditional PixelCNN layer: an autoregressive layer for the pixels of images.

    `p(x_i = 1 | x_<i, y) = σ(b_i + U_i y + f_i(x_<i))`, where `f` is a masked convolutional network
    of residual blocks that sees only the pixels before `i`, row by row. What is known of
    neighbouring pixels then need not be in the latents, and the network has few weights: it is the
    family for the visible layer of image machines. `f` is computed once for all particles of a
    datum. Samples are drawn pixel by pixel. On a CPU the convolutions are faster without XLA, so
    that `compile` uses it for such a machine only with `jit_compile=True`; on a GPU, try that.

    Args:
        units: Positive integer, the number of pixels `D`.
        image_shape: Height and width of the images, whose product is `units`; a square by default.
        filters: Positive integer, the number of features of a pixel in the network.
        blocks: Positive integer, the number of residual blocks.
        image_kernel_size: Odd integer of at least 3, how wide the first convolution is; it looks
            as far up as to either side.
        kernel_size: Likewise for the convolutions in the blocks.
        kernel_initializer: Initializer of `U` and of the network's weights, but for the last ones:
            they are zero, so that a new layer is an `SBN`.
        bias_initializer: Initializer of `b` and of the network's biases.

    Raises:
        UserError: If `image_shape` does not have `units` pixels, an argument is not such an
            integer, or `choices` are given: pixels are binary.

    Example:
    ```python
    machine = rws_keras.HelmholtzMachine.from_sizes(
        784, [200, 100], p=[{"family": "pixelcnn", "filters": 16, "blocks": 2}, "sbn"], q="sbn"
    )
    ```

    References:
        - [van den Oord et al., 2016](https://arxiv.org/abs/1601.06759)
        - [Gulrajani et al., 2017](https://arxiv.org/abs/1611.05013), who put it over latents
    """

    def __init__(
        self,
        units: int,
        image_shape: Sequence[int] | None = None,
        filters: int = 32,
        blocks: int = 4,
        image_kernel_size: int = 7,
        kernel_size: int = 3,
        **kwargs,
    ):
        super().__init__(units, **kwargs)
        # XLA's convolutions on a CPU take twice to three times as long as TensorFlow's.
        self.supports_jit = False
        if self.choices is not None:
            raise UserError("`PixelCNN` takes no `choices`: its pixels are binary.")
        self.image_shape = _image_shape(image_shape, self.units)
        self.filters = check_positive_integer(filters, "filters")
        self.blocks = check_positive_integer(blocks, "blocks")
        self.image_kernel_size = _odd(image_kernel_size, "image_kernel_size")
        self.kernel_size = _odd(kernel_size, "kernel_size")

    def _build(self, given_units):
        if given_units is not None:
            self.kernel = self._add_kernel("kernel", given_units, self.units)
        seen = _entries(self.image_kernel_size)
        self.image_kernel = self._add_kernel("image_kernel", seen, self.filters)
        seen = _entries(self.kernel_size) * self.filters
        self.block_kernels = [
            self._add_kernel(f"block_kernel_{block}", seen, self.filters)
            for block in range(self.blocks)
        ]
        # Zero, so that a machine can learn to use its latents before the network does without them.
        self.readout = self.add_weight(
            name="readout",
            shape=(self.filters, 1),
            initializer="zeros",
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.image_bias = self._add_bias("image_bias", self.units * self.filters)
        self.block_biases = [
            self._add_bias(f"block_bias_{block}", self.filters) for block in range(self.blocks)
        ]
        self.bias = self._add_bias("bias", self.units)

    def _distribution(self, given):
        height = self.kernel_size // 2 + 1
        kernels = tf.stack([tf.convert_to_tensor(kernel) for kernel in self.block_kernels])
        return ConvolutionalAutoregressiveBernoulli(
            affine(given, None if given is None else self.kernel, self.bias),
            tf.reshape(
                self.image_kernel,
                [self.image_kernel_size // 2 + 1, self.image_kernel_size, 1, self.filters],
            ),
            tf.reshape(self.image_bias, [*self.image_shape, self.filters]),
            tf.reshape(
                kernels, [self.blocks, height, self.kernel_size, self.filters, self.filters]
            ),
            tf.stack([tf.convert_to_tensor(bias) for bias in self.block_biases]),
            tf.reshape(self.readout, [self.filters]),
        )

    def get_config(self) -> dict:
        return {**super().get_config(), "image_shape": list(self.image_shape)}


def _entries(size):
    """The number of pixels that a filter of this width lies on."""
    return (size // 2 + 1) * size


def _odd(value, name):
    value = check_integer(value, name, minimum=3)
    if value % 2 == 0:
        raise UserError(f"`{name}` must be odd, so that the filters have a middle; got {value}.")
    return value


def _image_shape(shape, units):
    if shape is None:
        side = math.isqrt(units)
        if side * side != units:
            raise UserError(
                f"A PixelCNN of {units} units, which are no square image, needs their "
                "`image_shape`: [height, width]."
            )
        return side, side
    is_list = isinstance(shape, Sequence | np.ndarray) and not isinstance(shape, str)
    if not is_list or len(shape) != 2:
        raise UserError(f"`image_shape` must be [height, width], got {shape!r}.")
    height, width = (check_positive_integer(size, "image_shape") for size in shape)
    if height * width != units:
        raise UserError(
            f"`image_shape` {list(shape)} has {height * width} pixels, but the layer has {units} "
            "units."
        )
    return height, width
