"""Missing values and conditional probabilities, by importance sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.arrays import is_missing
from rws_keras.layers.noise import Seed, uniform_noise
from rws_keras.models.particles import (
    LikelihoodEstimate,
    WeightSums,
    resample,
    scaled_weights,
    sum_over_layers,
)

# Particles times data drawn at a time.
ROWS_IN_FLIGHT = 10_000

_DREAMS = 1000


class Imputation(NamedTuple):
    """Estimates of the missing values of N data, given the others.

    Attributes:
        completions: `[C, N, visible]`: the data with the missing values drawn together from
            p(x_missing | x_observed), for multiple imputation.
        mean: `E[x | x_observed]`, `[N, visible]`, for a binary unit the probability that it is
            on; observed values as they are.
        standard_error: Standard errors of the means, `[N, visible]`; zero for observed values, NaN
            with a single particle, and too small where the effective sample size is near one.
        likelihood: The estimate of `log p(x_observed)`, see `LikelihoodEstimate`.
    """

    completions: tf.Tensor
    mean: tf.Tensor
    standard_error: tf.Tensor
    likelihood: LikelihoodEstimate


class Conditional(NamedTuple):
    """Conditional expectations `E[x_t | x_others]` of T units for each of N data.

    Attributes:
        mean: `[N, T]`, for a binary unit the probability that it is on.
        standard_error: Standard errors of the means, `[N, T]`.
        effective_sample_size: Of the particles, `[N]`; where it is small, the mean is unreliable.
    """

    mean: tf.Tensor
    standard_error: tf.Tensor
    effective_sample_size: tf.Tensor


def noise_shapes(machine: Any, num_particles: int | tf.Tensor, num_data: int | tf.Tensor) -> dict:
    """Shapes of the noise that `impute` takes, for K particles of each of N data."""
    particles = {
        "particles": machine.q.noise_shapes(num_particles, num_data),
        "gaps": (num_particles, num_data, machine.visible_units),
    }
    rounds = 2 if machine.missing is None else 1
    return {"rounds": [particles] * rounds, "resampling": (num_data,)}


def impute(
    machine: Any,
    x: tf.Tensor,
    observed: tf.Tensor,
    guess: tf.Tensor,
    noise: dict,
    num_completions: int | tf.Tensor,
) -> Imputation:
    """Completes partly observed rows, by importance resampling.

    One particle in four is drawn from P's prior instead of Q, and each is weighted by
    `p(x_observed, h)` over the mixture of both: unbiased whatever Q is, and sound even where
    nothing was observed. The gaps are drawn from P given h and, where the visible layer is
    autoregressive, the units before; observed units contribute their probability.

    A Q that was not trained with missing values needs complete rows. Its input is the row with
    guesses in place of missing values; a first round of particles estimates their means given the
    observed values, and a second round, with new noise and these means as guesses, gives the
    results.

    Args:
        machine: A `HelmholtzMachine`.
        x: Float32 data `[N, visible]`.
        observed: Bools `[N, visible]`: which of them count.
        guess: `[visible]`, or `[N, visible]`, the first guess.
        noise: Uniform numbers in (0, 1), in the shapes of `noise_shapes`.
        num_completions: C.

    Reference:
        - [Veach & Guibas, 1995](https://doi.org/10.1145/218380.218498), for the mixture
    """
    for each in noise["rounds"]:
        drawn = draw_gaps(machine, x, observed, guess, each)
        log_weights = drawn.log_known + drawn.log_ratio
        weights, _ = scaled_weights(log_weights)
        weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=0))
        mean = tf.einsum("kn,kn...->n...", weights, drawn.mean + tf.zeros_like(drawn.x))
        guess = mean
    error = tf.einsum("kn,kn...->n...", tf.square(weights), tf.square(drawn.mean - mean))
    sums = WeightSums.of(tf.cast(log_weights, tf.float64))
    likelihood = sums.likelihood(tf.shape(log_weights)[0])
    (completions,) = resample([drawn.x], weights, num_completions, noise["resampling"])
    # Data with probability zero have no conditional distribution.
    possible = tf.cast(likelihood.effective_sample_size > 0.0, tf.float32)[:, None]
    # One particle has no spread.
    several = tf.cast(tf.shape(log_weights)[0] > 1, tf.float32)
    unknown = 0.0 * (several / several)
    factor = possible / possible  # 1, or 0 / 0: the NaN is made for those rows alone
    return Imputation(
        tf.where(observed, x, completions * factor),
        tf.where(observed, x, mean * factor),
        tf.where(observed, 0.0, tf.sqrt(error) * factor + unknown),
        likelihood,
    )


class Drawn(NamedTuple):
    """Particles of N data whose gaps P draws.

    Attributes:
        visible: The distribution of the visible units given the particles, batch `[K, N]`.
        x: The data, the gaps drawn, `[K, N, visible]`.
        mean: The same but for the gaps, which have the means that may be averaged over.
        log_known: `log p(x_observed | h)`, where the visible layer is autoregressive given the
            gaps before each unit, `[K, N]`.
        log_ratio: `log p(h)` over what h was drawn from, `[K, N]`. With `log_known` it is the
            logarithm of the weight.
    """

    visible: Any
    x: tf.Tensor
    mean: tf.Tensor
    log_known: tf.Tensor
    log_ratio: tf.Tensor


def draw_gaps(
    machine: Any, x: tf.Tensor, observed: tf.Tensor, guess: tf.Tensor, noise: dict
) -> Drawn:
    """Draws particles, three in four from Q and the others from P's prior, and the gaps.

    Args:
        machine: A `HelmholtzMachine`.
        x: Float32 data `[N, visible]`.
        observed: Bools `[N, visible]`: which of them count.
        guess: `[visible]` or `[N, visible]`, the values that replace missing ones in the input of a
            Q that was trained on complete rows only.
        noise: Uniform numbers in (0, 1): `particles` of the latents, `gaps` `[K, N, visible]`.
    """
    num_particles = tf.shape(noise["gaps"])[0]
    from_p = tf.maximum(num_particles // 4, 1)
    from_q = num_particles - from_p
    filled = tf.where(observed, x, guess)
    given = filled if machine.missing is None else machine.q_input_of(x, ~observed)
    inferred, _ = machine.q.sample([part[:from_q] for part in noise["particles"]], given=given)
    dreamt, _ = machine.p[1:].sample([part[from_q:] for part in noise["particles"]])
    latents = [tf.concat(pair, axis=0) for pair in zip(inferred, dreamt, strict=True)]
    visible = machine.p_layers[0].distribution(latents[0])
    drawn = visible.complete(filled, observed, noise["gaps"])
    log_prior = sum_over_layers(machine.p[1:].log_prob(latents))
    log_q = sum_over_layers(machine.q.log_prob(latents, given=given))
    log_from_q, log_from_p, log_all = (
        tf.math.log(tf.cast(number, tf.float32)) for number in (from_q, from_p, num_particles)
    )
    log_mixture = tfp.math.log_add_exp(log_q + log_from_q, log_prior + log_from_p) - log_all
    # If the units depend on each other, a missing unit affects the weight through the units after
    # it: then only the drawn values may be averaged, not their means.
    mean = visible.conditional_mean(drawn) if visible.units_are_independent else drawn
    log_known = visible.observed_log_prob(drawn, observed)
    return Drawn(visible, drawn, mean, log_known, log_prior - log_mixture)


def typical_means(machine: Any, seed: Seed) -> tf.Tensor:
    """Means `[visible]` of the visible units over samples from P: a first guess at any gap."""
    return tf.reduce_mean(machine.sample(_DREAMS, seed=seed).mean, axis=0)


def impute_with_seed(
    machine: Any,
    x: tf.Tensor,
    guess: tf.Tensor,
    num_completions: tf.Tensor,
    num_particles: tf.Tensor,
    seed: tf.Tensor,
) -> Imputation:
    """As `impute`, of data with NaN in their gaps, with the noise of an int32 seed `[2]`."""
    noise = uniform_noise(noise_shapes(machine, num_particles, tf.shape(x)[0]), seed)
    return impute(machine, x, ~is_missing(x), guess, noise, num_completions)


def impute_in_parts(
    impute_part: Callable[..., Imputation],
    x: tf.Tensor,
    guess: tf.Tensor,
    num_completions: int,
    num_particles: int,
    seed: tf.Tensor,
) -> Imputation:
    """Imputes a few rows at a time, in bounded memory; arguments as of `impute_with_seed`."""
    step = max(1, ROWS_IN_FLIGHT // num_particles)
    counts = tf.constant(num_completions), tf.constant(num_particles)
    parts = [
        impute_part(x[start : start + step], guess, *counts, tf.random.fold_in(seed, start))
        for start in range(0, len(x), step)
    ]
    completions, means, errors, likelihoods = zip(*parts, strict=True)
    return Imputation(
        tf.concat(completions, axis=1),
        tf.concat(means, axis=0),
        tf.concat(errors, axis=0),
        LikelihoodEstimate(*(tf.concat(each, axis=0) for each in zip(*likelihoods, strict=True))),
    )
