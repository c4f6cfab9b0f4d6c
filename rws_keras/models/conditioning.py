"""Questions about parts of a row: missing values, and columns given others."""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from rws_keras.arrays import BINARY
from rws_keras.checks import check_integer, check_positive_integer
from rws_keras.errors import UserError
from rws_keras.layers.noise import Seed, stateless_seed
from rws_keras.models import conditionals, imputation
from rws_keras.models.evaluator import warn_of_zero_probability
from rws_keras.models.imputation import Conditional, Imputation
from rws_keras.models.inference import Data, Inference


class Conditioning(Inference):
    """What a `HelmholtzMachine` says about some values of a row, given others."""

    def _make_functions(self):
        def function(python_function):
            return tf.function(
                functools.partial(python_function, self), autograph=False, reduce_retracing=True
            )

        return types.SimpleNamespace(
            **vars(super()._make_functions()),
            conditional_log_probs=function(conditionals.conditional_log_probs),
            impute=function(imputation.impute_with_seed),
        )

    def impute(
        self, x: Data, num_completions: int = 10, num_particles: int = 100, seed: Seed = None
    ) -> Imputation:
        """Imputes missing values (NaN) of data from p(x_missing | x_observed).

        The machine need not have been made with `missing`. One that was trained with missing values
        needs fewer particles, because its Q was trained for them.

        Args:
            x: Data `[N, visible]`, NaN where a value is missing; in a choice, all or none.
            num_completions: C, how many completions to draw.
            num_particles: K, the number of particles per datum.
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
        imputed.mean                    # [N, 64]: if missing, the probability of a one
        imputed.completions             # [5, N, 64]: joint samples of the missing values
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
            targets: The units whose probability is estimated, given all units that are not targets;
                in a choice, all or none.
            num_particles: K, the number of particles per datum.
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
                    f"`targets` has only {inside} of the choice with units {start} to "
                    f"{start + size - 1}; include all of them."
                )
            start += size
        others = np.isin(np.arange(self.visible_units), targets, invert=True)
        imputed = self.impute(tf.where(others, x, math.nan), 1, num_particles, seed)
        return Conditional(
            tf.gather(imputed.mean, targets, axis=1),
            tf.gather(imputed.standard_error, targets, axis=1),
            imputed.likelihood.effective_sample_size,
        )

    def conditional_log_probs(
        self, x: Data, num_particles: int = 100, seed: Seed = None
    ) -> tf.Tensor:
        """Estimates `log p(x_c | x_others)` of each column, to find unusual values of a row.

        A column is a binary unit, or a choice of several units. The time per row grows with the
        square of the number of units, because each value of each column is evaluated.

        Args:
            x: Data `[N, visible]`, NaN where a value is missing.
            num_particles: K, the number of particles per datum.
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
            raise UserError(
                "Conditional log-probabilities need binary data: the visible units are not binary."
            )
        x, seed = self.p_layers[0].check_data(x, missing=True), stateless_seed(seed)
        guess = tf.zeros_like(x)
        if self.missing is None and np.isnan(x).any():
            guess = self.impute(x, 1, num_particles, seed).mean
        return self._functions.conditional_log_probs(x, guess, tf.constant(num_particles), seed)
