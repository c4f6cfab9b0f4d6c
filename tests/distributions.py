"""Our distributions beside the same ones built of TFP's, for the contract tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras import layers

tfd = tfp.distributions

UNITS, BATCH = 5, (3, 2)


class Kind(NamedTuple):
    """A distribution of ours, the same one built of TFP's, and its parameters.

    `first` names the parameter that shifts the units, of shape `... D`; `shapes` are those of the
    others: `...` is the batch, D the number of units, H of hidden ones, a number itself.
    """

    ours: Callable
    theirs: Callable
    first: str
    shapes: dict
    binary: bool = True

    def parameters(self, batch=BATCH, units=UNITS, seed=0):
        """Random parameters by name."""
        random = np.random.default_rng(seed)
        sizes = {"...": batch, "D": (units,), "H": (3,)}
        drawn = {}
        for name, shape in {self.first: "... D", **self.shapes}.items():
            axes = (sizes[axis] if axis in sizes else (int(axis),) for axis in shape.split())
            shape = sum(axes, ())
            drawn[name] = random.normal(size=shape).astype(np.float32)
        if "scale" in drawn:
            drawn["scale"] = np.exp(drawn["scale"])
        return drawn

    def values(self, *batch, units=UNITS, seed=1):
        """Random values `[*batch, units]`."""
        random = np.random.default_rng(seed)
        drawn = random.normal(size=(*batch, units))
        return (drawn > 0.0 if self.binary else drawn).astype(np.float32)


def bernoullis(logits):
    return tfd.Independent(tfd.Bernoulli(logits=logits, dtype=logits.dtype), 1)


def autoregressive(logits_of, first):
    """Bernoulli units of logits `first + logits_of(x)`, where a unit sees those before it."""
    first = tf.convert_to_tensor(first)
    return tfd.Autoregressive(lambda x: bernoullis(first + logits_of(x)), tf.zeros_like(first))


def linear(shift, kernel):
    kernel = tf.convert_to_tensor(kernel)
    mask = np.triu(np.ones([UNITS, UNITS]), 1)
    return autoregressive(lambda x: tf.tensordot(x, kernel * tf.cast(mask, kernel.dtype), 1), shift)


def neural(shift, hidden_shift, encoder, decoder):
    def logits(x):
        hidden, units = hidden_shift + tf.zeros_like(x[..., :1]), []
        for i in range(UNITS):
            units.append(tf.reduce_sum(tf.sigmoid(hidden) * decoder[i], axis=-1))
            hidden += x[..., i, None] * encoder[i]
        return tf.stack(units, axis=-1)

    return autoregressive(logits, shift)


def masked(shift, hidden_shift, encoder, decoder, direct):
    seen = [hidden * UNITS // 3 for hidden in range(3)]

    def logits(x):
        units = []
        for i in range(UNITS):
            through = [
                decoder[i, k]
                * tf.nn.relu(
                    hidden_shift[..., k] + sum(x[..., j] * encoder[j, k] for j in range(seen[k]))
                )
                for k in range(3)
                if seen[k] <= i
            ]
            before = [x[..., j] * direct[j, i] for j in range(i)]
            units.append(sum(through) + sum(before) + 0.0 * x[..., 0])
        return tf.stack(units, axis=-1)

    return autoregressive(logits, shift)


def convolutional(shift, image_kernel, image_bias, kernels, biases, readout):
    """On an image of one row: a pixel sees the last row of the filters, up to its middle."""
    image_kernel, image_bias, kernels, biases, readout = map(
        tf.convert_to_tensor, (image_kernel, image_bias, kernels, biases, readout)
    )

    def left(features, kernel, itself):
        side = kernel.shape[1] // 2
        return tf.stack(
            [
                sum(
                    tf.tensordot(features[..., j, :], kernel[-1, j - i + side], 1)
                    for j in range(max(0, i - side), i + itself)
                )
                + tf.zeros_like(features[..., :1, 0]) * tf.zeros_like(kernel[-1, 0, 0])
                for i in range(UNITS)
            ],
            axis=-2,
        )

    def logits(x):
        features = left(x[..., None], image_kernel, itself=False) + image_bias[0]
        for b in range(kernels.shape[0]):
            features += left(tf.nn.relu(features), kernels[b], itself=True) + biases[b]
        return tf.tensordot(tf.nn.relu(features), readout, 1)

    return autoregressive(logits, shift)


KINDS = {
    "factorized": Kind(
        layers.FactorizedBernoulli,
        lambda logits: bernoullis(tf.convert_to_tensor(logits)),
        "logits",
        {},
    ),
    "autoregressive": Kind(layers.AutoregressiveBernoulli, linear, "shift", {"kernel": "D D"}),
    "nade": Kind(
        layers.NeuralAutoregressiveBernoulli,
        neural,
        "shift",
        {"hidden_shift": "... H", "encoder": "D H", "decoder": "D H"},
    ),
    "made": Kind(
        layers.MaskedAutoregressiveBernoulli,
        masked,
        "shift",
        {"hidden_shift": "... H", "encoder": "D H", "decoder": "D H", "direct": "D D"},
    ),
    "pixelcnn": Kind(
        layers.ConvolutionalAutoregressiveBernoulli,
        convolutional,
        "shift",
        {
            "image_kernel": "2 3 1 H",
            "image_bias": "1 D H",
            "kernels": "2 2 3 H H",
            "biases": "2 H",
            "readout": "H",
        },
    ),
    "gaussian": Kind(
        layers.DiagonalGaussian,
        lambda loc, scale: tfd.MultivariateNormalDiag(loc, scale),
        "loc",
        {"scale": "... D"},
        binary=False,
    ),
}


def of(*names):
    """A test of some of the kinds."""
    return pytest.mark.parametrize("kind", [KINDS[name] for name in names], ids=names)


of_all = of(*KINDS)
of_binary = of("factorized", "autoregressive", "nade", "made", "pixelcnn")
of_closed = of("factorized", "gaussian")  # those whose statistics have closed forms


def both(kind, **changed):
    """Ours and TFP's, of the same parameters."""
    parameters = {**kind.parameters(), **changed}
    return kind.ours(**parameters), kind.theirs(**parameters)


def close(ours, theirs, rtol=1e-5, atol=1e-5):
    """Compares two results, of tensors or arrays."""
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=rtol, atol=atol)
