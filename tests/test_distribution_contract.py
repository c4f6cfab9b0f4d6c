"""What TFP promises of every distribution, held by ours: TFP's own are the referee."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from distributions import BATCH, KINDS, UNITS, both, close, of, of_all, of_closed

from rws_keras import layers

tfd = tfp.distributions


@of_closed
def test_statistics(kind):
    ours, theirs = both(kind)
    for name in ("entropy", "mean", "mode", "variance", "stddev"):
        close(getattr(ours, name)(), getattr(theirs, name)())
    close(ours.covariance(), tf.linalg.diag(theirs.variance()))
    parameters = {name: tf.constant(value) for name, value in kind.parameters().items()}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(parameters)
        entropies = [d.entropy() for d in both(kind, **parameters)]
    gradients = [tape.gradient(e, parameters, unconnected_gradients="zero") for e in entropies]
    for name in parameters:
        close(*(gradient[name] for gradient in gradients))


@of("autoregressive", "nade", "made", "pixelcnn")
@pytest.mark.parametrize("name", ["mean", "mode", "variance", "stddev", "entropy", "covariance"])
def test_what_has_no_closed_form(kind, name):
    with pytest.raises(NotImplementedError):
        getattr(both(kind)[0], name)()


@of_all
@pytest.mark.parametrize("name", ["cdf", "log_cdf", "survival_function", "quantile"])
def test_vectors_have_no_cumulative_distribution(kind, name):
    with pytest.raises(NotImplementedError):
        getattr(both(kind)[0], name)(kind.values(*BATCH))


@of_all
def test_nature(kind):
    ours, theirs = both(kind)
    assert ours.reparameterization_type == theirs.reparameterization_type
    assert ours.event_shape == [UNITS]
    assert ours.batch_shape == BATCH
    np.testing.assert_array_equal(ours.batch_shape_tensor(), theirs.batch_shape_tensor())
    bijectors = [d.experimental_default_event_space_bijector() for d in (ours, theirs)]
    assert type(bijectors[0]) is type(bijectors[1])


@of_closed
def test_kullback_leibler_divergence(kind):
    p, theirs_p = both(kind)
    q, theirs_q = both(kind, **kind.parameters(batch=(4, 1, 2), seed=5))
    expected = tfd.kl_divergence(theirs_p, theirs_q)
    assert expected.shape == [4, 3, 2]
    for a, b in ((p, q), (p, theirs_q), (theirs_p, q)):
        close(tfd.kl_divergence(a, b), expected)
        close(a.kl_divergence(b), expected)
    close(p.cross_entropy(q), theirs_p.entropy() + expected)
    close(tfd.kl_divergence(p, p), np.zeros(BATCH), atol=1e-6)


def test_other_divergences():
    gaussian = layers.DiagonalGaussian([0.0, 1.0], [1.0, 2.0])
    normals = tfd.Independent(tfd.Normal([1.0, 1.0], [2.0, 1.0]), 1)
    full = tfd.MultivariateNormalTriL([1.0, 1.0], [[2.0, 0.0], [0.5, 1.0]])
    diagonal = tfd.MultivariateNormalDiag([0.0, 1.0], [1.0, 2.0])
    close(tfd.kl_divergence(gaussian, normals), tfd.kl_divergence(
        diagonal, tfd.MultivariateNormalDiag([1.0, 1.0], [2.0, 1.0])))  # fmt: skip
    close(tfd.kl_divergence(gaussian, full), tfd.kl_divergence(diagonal, full))
    close(tfd.kl_divergence(full, gaussian), tfd.kl_divergence(full, diagonal))
    for other in (gaussian, normals, both(KINDS["autoregressive"])[0]):
        with pytest.raises(NotImplementedError):
            tfd.kl_divergence(layers.FactorizedBernoulli([0.0, 1.0]), other)


def test_divergence_at_infinite_logits():
    cases = [
        (np.inf, np.inf, 0.0),
        (-np.inf, -np.inf, 0.0),
        (0.0, np.inf, np.inf),
        (np.inf, -np.inf, np.inf),
        (np.inf, 0.0, np.log(2.0)),
        (-np.inf, 0.0, np.log(2.0)),
        (1e30, -1e30, 1e30),
    ]
    for p, q, expected in cases:
        p, q = (layers.FactorizedBernoulli([logit]) for logit in (p, q))
        np.testing.assert_allclose(tfd.kl_divergence(p, q), expected, rtol=1e-6)


# Batches.


SLICES = [
    1,
    -1,
    slice(1, None),
    (slice(None), 0),
    (0, 1),
    (..., 0, tf.newaxis),
    (tf.newaxis, slice(None, None, -1)),
    (..., slice(1, None)),
]


@of_all
@pytest.mark.parametrize("index", SLICES, ids=str)
def test_slices(kind, index):
    ours, theirs = both(kind)
    value = kind.values(*BATCH)
    index = index if isinstance(index, tuple) else (index,)
    # Of a value the batch is sliced, not the units.
    of_value = (*index, slice(None)) if ... in index else index
    expected = theirs.log_prob(value).numpy()[index]
    sliced = ours[index]
    assert sliced.batch_shape == expected.shape
    assert sliced.event_shape == [UNITS]
    close(sliced.log_prob(value[of_value]), expected)
    assert sliced.sample(7, seed=0).shape == [7, *expected.shape, UNITS]
    # A slice of a slice, and a slice of a copy.
    close(ours.copy()[index][tf.newaxis].log_prob(value[of_value]), expected[np.newaxis])


@of_all
def test_copies(kind):
    ours, _ = both(kind)
    other = kind.parameters(seed=9)[kind.first]
    value = kind.values(*BATCH)
    close(ours.copy().log_prob(value), ours.log_prob(value), rtol=0, atol=0)
    changed = ours.copy(**{kind.first: other}, name="another")
    close(changed.log_prob(value), both(kind, **{kind.first: other})[1].log_prob(value))
    assert changed.name == "another"
    parameters = ours.parameters
    assert set(parameters) == set(inspect.signature(kind.ours).parameters)
    close(kind.ours(**parameters).log_prob(value), ours.log_prob(value), rtol=0, atol=0)


@of_all
def test_parameters_broadcast(kind):
    first = kind.parameters()[kind.first][:, :1]
    ours, theirs = both(kind, **{kind.first: np.stack([first, first + 1.0])})
    value = kind.values(*BATCH)
    batch = (2,) if any("..." in shape for shape in kind.shapes.values()) else ()
    assert ours.batch_shape == [2, 3, *(batch or (1,))]
    close(ours.log_prob(value), theirs.log_prob(value + np.zeros([2, 1, 1, 1], np.float32)))
    assert ours.sample(seed=0).shape == [*ours.batch_shape, UNITS]


@of_all
def test_distributions_of_tfp_around_ours(kind):
    ours, theirs = both(kind)
    value = kind.values(4, *BATCH)
    expected = theirs.log_prob(value)
    close(tfd.BatchReshape(ours, [6]).log_prob(value.reshape(4, 6, UNITS)),
          tf.reshape(expected, [4, 6]))  # fmt: skip
    wide = tfd.BatchBroadcast(ours, [4, 3, 2])
    close(wide.log_prob(value), expected)
    assert wide.sample(seed=0).shape == [4, 3, 2, UNITS]
    close(tfd.Independent(ours, 1).log_prob(value), tf.reduce_sum(expected, axis=-1))
    repeated = tfd.Sample(ours, 4)
    close(repeated.log_prob(np.moveaxis(value, 0, 2)), tf.reduce_sum(expected, axis=0))
    assert repeated.sample(2, seed=0).shape == [2, 3, 2, 4, UNITS]
    mixture = tfd.MixtureSameFamily(tfd.Categorical(logits=[0.0, 1.0]), ours)
    weights = np.log([1.0, np.e]) - np.log(1.0 + np.e)
    components = theirs.log_prob(np.repeat(value[:, :, :1], 2, axis=2)) + weights
    close(mixture.log_prob(value[:, :, 0]), tf.reduce_logsumexp(components, axis=-1))
    assert mixture.sample(2, seed=0).shape == [2, 3, UNITS]


@of_all
def test_a_layer_with_a_network_inside_hands_them_out(kind):
    parameters = kind.parameters(batch=())

    class Deep(layers.StochasticLayer):
        def __init__(self, units):
            super().__init__(units)
            self.network = keras.layers.Dense(units)

        def _distribution(self, given):
            return kind.ours(**{**parameters, kind.first: self.network(given)})

    given = np.random.default_rng(0).normal(size=(4, *BATCH, 7)).astype(np.float32)
    layer = Deep(UNITS)
    distribution = layer.distribution(given)
    assert distribution.batch_shape == [4, *BATCH]
    value = kind.values(4, *BATCH)
    theirs = kind.theirs(**{**parameters, kind.first: layer.network(given)})
    close(distribution.log_prob(value), theirs.log_prob(value))
