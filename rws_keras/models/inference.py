"""What one asks of a trained machine: likelihoods, posteriors, samples, what is missing."""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from rws_keras.arrays import BINARY
from rws_keras.checks import check_integer, check_positive_integer
from rws_keras.errors import UserError
from rws_keras.layers.noise import Seed, stateless_seed, uniform_noise
from rws_keras.models import accuracy, conditionals, imputation
from rws_keras.models.calibration import Calibration
from rws_keras.models.evaluator import warn_of_zero_probability
from rws_keras.models.imputation import Conditional, Imputation
from rws_keras.models.joint_model import JointModel
from rws_keras.models.particles import LikelihoodEstimate, Particles, Samples, Statistics
from rws_keras.models.streaming import Sums, stream_particles

Data: TypeAlias = np.ndarray | tf.Tensor


class Inference(JointModel):
    """What a `HelmholtzMachine` does with data beside training."""

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

        # One trace each, for any number of data and of particles. In a namespace, lest TensorFlow
        # save them with the machine.
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
            conditional_log_probs=function(
                functools.partial(conditionals.conditional_log_probs, self), reduce_retracing=True
            ),
            impute=function(
                functools.partial(imputation.impute_with_seed, self), reduce_retracing=True
            ),
            more_sums=function(
                lambda x, num_particles, seed, done, sums, stop: stream_particles(
                    self, x, num_particles, seed, start=(done, sums), stop=stop
                )[:2],
                reduce_retracing=True,
            ),
        )

    def estimate(self, x: tf.Tensor, num_particles: int | tf.Tensor, seed: tf.Tensor) -> Statistics:
        """Statistics of K particles a datum; see `Statistics`.

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

    # What a user asks of a trained machine.

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
        the standard error of a datum is small enough, or `num_particles` is reached. Stopping
        costs the estimate of p(x) its unbiasedness: a datum whose large weights have not come
        yet looks more certain than it is and stops early, so that its log-likelihood is on
        average too low, the more so the worse Q is and the larger the error allowed. Without
        stopping, E p̂(x) = p(x) for every number of particles.

        Args:
            x: Data `[N, visible]`.
            num_particles: K, the number of particles a datum; the most of them where
                `max_standard_error` is given.
            seed: An integer, an int32 tensor `[2]`, or `None` for a fresh seed.
            max_standard_error: Positive float, the standard error in nats that is wanted of
                each datum; `None` draws `num_particles` of each.

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
        """Estimates `E[h_l | x]` under P's posterior, by importance-weighted particles.

        Args:
            x: Data `[N, visible]`.
            num_particles: K, the number of particles a datum.
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
            num_particles: K, the number of particles a datum.
            seed: An integer, an int32 tensor `[2]`, or `None` for a fresh seed.

        Returns:
            Means `[N, visible]`, for binary units the probabilities that they are on; NaN, with a
            warning, for data of probability zero.
        """
        return self._expectation(self._functions.visible_means, x, num_particles, seed)[0]

    def impute(
        self, x: Data, num_completions: int = 10, num_particles: int = 100, seed: Seed = None
    ) -> Imputation:
        """Completes data with missing values (NaN) from p(x_missing | x_observed).

        The machine need not have been made with `missing`. One that was trained with missing
        values needs fewer particles, as its Q knows of them.

        Args:
            x: Data `[N, visible]`, NaN where a value is missing; of a choice, all or none.
            num_completions: C, how many completions to draw.
            num_particles: K, the number of particles a datum.
            seed: An integer, an int32 tensor `[2]`, or `None` for a fresh seed.

        Returns:
            An `Imputation`: `completions` `[C, N, visible]`, `mean` and `standard_error`
            `[N, visible]`, and `likelihood`, that of the observed values. Missing values of data
            of probability zero stay NaN, with a warning.

        Raises:
            UserError: If `x` is not data of the machine's width and kind, or a number is not
                positive.

        Example:
        ```python
        rows = np.array(x, np.float32)
        rows[:, :8] = np.nan            # the first eight units are missing
        imputed = machine.impute(rows, num_completions=5, seed=0)
        imputed.mean                    # [N, 64]: at the gaps the probabilities of a one
        imputed.completions             # [5, N, 64]: the gaps drawn together
        ```

        Reference:
            - [Rubin, 1987](https://doi.org/10.1002/9780470316696), for multiple imputation
        """
        num_completions = check_positive_integer(num_completions, "num_completions")
        num_particles = check_positive_integer(num_particles, "num_particles")
        x = self.p_layers[0].check_data(x, missing=True)
        seed = stateless_seed(seed)
        guess = imputation.typical_means(self, seed)
        imputed = imputation.impute_in_parts(
            self._functions.impute, x, guess, num_completions, num_particles, seed
        )
        warn_of_zero_probability(imputed.likelihood.log_likelihood.numpy())
        return imputed

    def conditional(
        self, x: Data, targets: Sequence[int], num_particles: int = 100, seed: Seed = None
    ) -> Conditional:
        """Estimates `E[x_t | x_others]`: how probable some units are, given the others.

        Args:
            x: Data `[N, visible]`, NaN where a value is missing. Values of the targets make no
                difference.
            targets: The units asked for, each given all that are not among them; of a choice,
                all or none.
            num_particles: K, the number of particles a datum.
            seed: An integer, an int32 tensor `[2]`, or `None` for a fresh seed.

        Returns:
            A `Conditional`: `mean` and `standard_error` `[N, T]` in the order of the targets, and
            the `effective_sample_size` `[N]` of the particles.

        Raises:
            UserError: As `impute`, or if a target is not a unit of the data.

        Example:
        ```python
        machine.conditional(x, targets=[2]).mean         # [N, 1]: p(x_2 = 1 | the other units)
        ```
        """
        targets = [check_integer(target, "targets", minimum=0) for target in targets]
        if not targets or max(targets) >= self.visible_units:
            raise UserError(
                f"`targets` must be units from 0 to {self.visible_units - 1}, got {targets}."
            )
        x = self.p_layers[0].check_data(x, missing=True)
        start = 0
        for size in self.p_layers[0].choices or ():
            inside = [unit for unit in range(start, start + size) if unit in targets]
            if 0 < len(inside) < size:
                raise UserError(
                    f"`targets` has {inside} of the choice of units {start} to {start + size - 1}; "
                    "ask for all of them."
                )
            start += size
        others = np.isin(np.arange(self.visible_units), targets, invert=True)
        imputed = self.impute(tf.where(others, x, math.nan), 1, num_particles, seed)
        return Conditional(
            tf.gather(imputed.mean, targets, axis=1),
            tf.gather(imputed.standard_error, targets, axis=1),
            imputed.likelihood.effective_sample_size,
        )

    def forget_calibration(self) -> None:
        """Drops the calibration, as training does: it is that of the weights of its time."""
        self.calibration = None

    def conditional_log_probs(
        self, x: Data, num_particles: int = 100, seed: Seed = None
    ) -> tf.Tensor:
        """Estimates `log p(x_c | x_others)` of each column: which values of a row are odd.

        A column is a binary unit, or a choice of several. The time for a row grows with the square
        of the number of units, as each value of each column is tried.

        Args:
            x: Data `[N, visible]`, NaN where a value is missing.
            num_particles: K, the number of particles a datum.
            seed: An integer, an int32 tensor `[2]`, or `None` for a fresh seed.

        Returns:
            A tensor `[N, C]` in nats, with one column for each binary unit and for each choice,
            in their order; NaN of one that is missing.

        Raises:
            UserError: If `x` is not data of the machine's width and kind, or its visible units
                are not binary.

        Example:
        ```python
        log_probs = machine.conditional_log_probs(x, seed=0)      # [N, C], nats
        np.argsort(log_probs, axis=1)[:, :3]                      # the three oddest columns
        ```

        Reference:
            - [Geisser & Eddy, 1979](https://doi.org/10.1080/01621459.1979.10481632)
        """
        num_particles = check_positive_integer(num_particles, "num_particles")
        if self.p_layers[0].support is not BINARY:
            raise UserError("Conditional log-probabilities are of binary data.")
        x, seed = self.p_layers[0].check_data(x, missing=True), stateless_seed(seed)
        guess = tf.zeros_like(x)
        if self.missing is None and np.isnan(x).any():
            guess = self.impute(x, 1, num_particles, seed).mean
        return self._functions.conditional_log_probs(x, guess, tf.constant(num_particles), seed)

    def calibrate(
        self, x: Data, num_particles: int = 100, seed: Seed = 0, batch_size: int = 100
    ) -> Calibration:
        """Keeps the distribution of log-likelihoods of data that are known to be normal.

        `calibration.tail_probability` then tells how unusual the log-likelihood of another row
        is. It is kept in the machine's `calibration`, wherever the machine is saved, until the
        machine is trained again; `forget_calibration` drops it where weights change otherwise. A
        model that is exported returns tail probabilities where its K is that of the calibration.

        Args:
            x: Data `[N, visible]` that the machine was not trained on, such as the validation
                data. Their log-likelihoods are compared with those of other rows whatever is
                missing: let gaps be as frequent as in these.
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
        # Drawn anew: an autoregressive layer must not look at the datum itself.
        visible = self.p_layers[0].distribution(latents[0])
        return [visible.conditional_mean(visible.sample(seed=seed))]


def _latents(latents, seed):
    return latents
