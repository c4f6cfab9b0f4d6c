"""What a trained machine computes: likelihoods, posteriors, samples."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from rws_keras.checks import check_positive_integer
from rws_keras.layers.noise import Seed, stateless_seed, uniform_noise
from rws_keras.models import accuracy
from rws_keras.models.calibration import Calibration
from rws_keras.models.evaluator import warn_of_zero_probability
from rws_keras.models.joint_model import JointModel
from rws_keras.models.particles import LikelihoodEstimate, Particles, Samples, Statistics
from rws_keras.models.streaming import Sums, stream_particles

Data: TypeAlias = np.ndarray | tf.Tensor


class Inference(JointModel):
    """Estimates of a `HelmholtzMachine` for whole rows, and samples."""

    _functions: types.SimpleNamespace
    calibration: Calibration | None
    predict: Any  # the evaluator's

    def _make_functions(self):
        signature = (
            tf.TensorSpec([None, self.visible_units], tf.float32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([2], tf.int32),
        )

        def function(python_function, **options):
            return tf.function(python_function, autograph=False, **options)

        # One trace each, for any number of data and of particles. In a namespace, so that
        # TensorFlow does not save them with the machine.
        return types.SimpleNamespace(
            sums=function(
                lambda *arguments: stream_particles(self, *arguments)[1], input_signature=signature
            ),
            latent_means=function(
                functools.partial(stream_particles, self, expectation_of=_latents),
                input_signature=signature,
            ),
            visible_means=function(
                functools.partial(stream_particles, self, expectation_of=self._visible),
                input_signature=signature,
            ),
            more_sums=function(
                lambda x, num_particles, seed, done, sums, stop: stream_particles(
                    self, x, num_particles, seed, start=(done, sums), stop=stop
                )[:2],
                reduce_retracing=True,
            ),
        )

    def estimate(self, x: tf.Tensor, num_particles: int | tf.Tensor, seed: tf.Tensor) -> Statistics:
        """Statistics of K particles per datum; see `Statistics`.

        Args:
            x: Float32 data `[N, visible]`, checked.
            num_particles: K.
            seed: int32 tensor `[2]`.
        """
        return self._functions.sums(x, num_particles, seed).statistics(num_particles)

    def estimate_in_parts(
        self, x: tf.Tensor, num_particles: int, seed: tf.Tensor, part: int
    ) -> Iterator[tuple[int, Statistics]]:
        """As `estimate`, giving way after each part of the particles.

        The last statistics are those of `estimate`, to the last bit.

        Args:
            x: Float32 data `[N, visible]`, checked.
            num_particles: K.
            seed: int32 tensor `[2]`.
            part: About how many particles to draw at a time.

        Yields:
            How many particles have been drawn, and their statistics.
        """
        done, sums = 0, Sums.nothing(self, len(x))
        while done < num_particles:
            stop = tf.constant(min(done + part, num_particles))
            drawn, sums = self._functions.more_sums(
                x, tf.constant(num_particles), seed, tf.constant(done), sums, stop
            )
            done = int(drawn)
            yield done, sums.statistics(done)

    # Public methods of a trained machine.

    def sample_posterior(self, x: Data, num_particles: int, seed: Seed = None) -> Particles:
        """Draws K particles from Q with their log-weights.

        Args:
            x: Data `[N, visible]`.
            num_particles: K.
            seed: An integer, an int32 tensor `[2]`, or `None` for a fresh seed.

        Returns:
            `Particles` with shapes `[K, N, …]`.
        """
        num_particles = check_positive_integer(num_particles, "num_particles")
        return self.draw_particles(self.check_data(x), num_particles, seed)

    def sample(self, num_samples: int, seed: Seed = None) -> Samples:
        """Draws from P.

        Args:
            num_samples: N.
            seed: An integer, an int32 tensor `[2]`, or `None` for a fresh seed.

        Returns:
            `Samples`: `x` `[N, visible]`, the latents of all layers, and the visible means.
        """
        num_samples = check_positive_integer(num_samples, "num_samples")
        noise = uniform_noise(self.p.noise_shapes(num_samples), seed)
        (x, *latents), _ = self.p.sample(noise)
        mean = self.p_layers[0].distribution(latents[0]).conditional_mean(x)
        return Samples(x, latents, tf.broadcast_to(mean, tf.shape(x)))

    def log_likelihood(
        self,
        x: Data,
        num_particles: int = 100,
        seed: Seed = None,
        max_standard_error: float | None = None,
    ) -> LikelihoodEstimate:
        """Estimates `log p(x)` of each datum by importance sampling from Q.

        The memory needed does not grow with `num_particles`, and another number of particles
        needs no new trace.

        With `max_standard_error` particles are drawn, in rounds that double their number, until
        the standard error of a datum is small enough, or `num_particles` is reached. Stopping makes
        the estimate of p(x) biased: a datum whose large weights have not been drawn yet looks more
        certain than it is and stops early, so that its log-likelihood is too low on average, more
        so for a worse Q and a larger allowed error. Without stopping, E p̂(x) = p(x) for every
        number of particles.

        Args:
            x: Data `[N, visible]`.
            num_particles: K, the number of particles per datum; the maximum if `max_standard_error`
                is given.
            seed: An integer, an int32 tensor `[2]`, or `None` for a fresh seed.
            max_standard_error: Positive float, the required standard error in nats of each datum;
                with `None`, `num_particles` are drawn for each.

        Returns:
            A `LikelihoodEstimate` of tensors `[N]`, in nats, with the number of particles that
            each datum took.

        Raises:
            UserError: If `x` is not data of the machine's width and kind, K < 1, or the
                standard error is not positive.

        Example:
        ```python
        estimate = machine.log_likelihood(x, num_particles=10_000, max_standard_error=0.1)
        estimate.log_likelihood, estimate.standard_error, estimate.num_particles   # [N] each
        ```
        """
        num_particles = check_positive_integer(num_particles, "num_particles")
        x, seed = self.check_data(x), stateless_seed(seed)
        if max_standard_error is not None:
            estimate = accuracy.estimate_to_accuracy(
                self._functions.sums, x, num_particles, max_standard_error, seed
            )
        else:
            sums = self._functions.sums(x, tf.constant(num_particles), seed)
            estimate = sums.weights.likelihood(num_particles)
        if tf.executing_eagerly():
            warn_of_zero_probability(estimate.log_likelihood.numpy())
        return estimate

    def posterior_mean(
        self, x: Data, num_particles: int = 100, seed: Seed = None
    ) -> list[tf.Tensor]:
        """Estimates `E[h_l | x]` under P's posterior, with importance-weighted particles.

        Args:
            x: Data `[N, visible]`.
            num_particles: K, the number of particles per datum.
            seed: An integer, an int32 tensor `[2]`, or `None` for a fresh seed.

        Returns:
            A tensor `[N, units]` for each latent layer, bottom first; NaN, with a warning, for
            data of probability zero, which have no posterior.
        """
        return self._expectation(self._functions.latent_means, x, num_particles, seed)

    def reconstruct(self, x: Data, num_particles: int = 100, seed: Seed = None) -> tf.Tensor:
        """Estimates the visible means `E[x' | h_1]` over the posterior of `x`.

        Args:
            x: Data `[N, visible]`.
            num_particles: K, the number of particles per datum.
            seed: An integer, an int32 tensor `[2]`, or `None` for a fresh seed.

        Returns:
            Means `[N, visible]`, for binary units the probabilities that they are on; NaN, with a
            warning, for data of probability zero.
        """
        return self._expectation(self._functions.visible_means, x, num_particles, seed)[0]

    def forget_calibration(self) -> None:
        """Drops the calibration, as training does: it is valid for unchanged weights only."""
        self.calibration = None

    def calibrate(
        self, x: Data, num_particles: int = 100, seed: Seed = 0, batch_size: int = 100
    ) -> Calibration:
        """Keeps the distribution of log-likelihoods of data that are known to be normal.

        `calibration.tail_probability` then says how unusual the log-likelihood of another row is.
        The calibration is stored in the machine's `calibration` and saved with the machine, until
        the machine is trained again; call `forget_calibration` if weights change in another way. An
        exported model returns tail probabilities if its K is that of the calibration.

        Args:
            x: Data `[N, visible]` that the machine was not trained on, such as the validation
                data. They should have missing values as often as the rows that will be scored.
            num_particles: K.
            seed: An integer, an int32 tensor `[2]`, or `None` for a fresh seed.
            batch_size: Rows that are scored together.

        Returns:
            The `Calibration`.

        Raises:
            UserError: If `x` is not data of the machine's width and kind.

        Example:
        ```python
        calibration = machine.calibrate(x_validation, num_particles=100)
        scores = machine.predict(x, num_particles=100)
        calibration.tail_probability(scores)          # [N]: 0.004 is lower than 99.6 % of them
        ```
        """
        num_particles = check_positive_integer(num_particles, "num_particles")
        scores = self.predict(
            x, batch_size=batch_size, num_particles=num_particles, seed=seed, verbose=0
        )
        self.calibration = Calibration(scores, num_particles)
        return self.calibration

    def _expectation(self, estimate, x, num_particles, seed):
        num_particles = check_positive_integer(num_particles, "num_particles")
        _, sums, expectations = estimate(
            self.check_data(x), tf.constant(num_particles), stateless_seed(seed)
        )
        if tf.executing_eagerly():
            warn_of_zero_probability(sums.weights.log_likelihood(num_particles).numpy())
        return expectations

    def _visible(self, latents, seed):
        # Drawn again: an autoregressive layer must not see the datum itself.
        visible = self.p_layers[0].distribution(latents[0])
        return [visible.conditional_mean(visible.sample(seed=seed))]


def _latents(latents, seed):
    return latents
