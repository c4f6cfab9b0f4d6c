"""What is exported: a machine's likelihoods, posteriors and samples as graph functions.

The first axis of all inputs and outputs is the batch. Each row is computed separately, in
operations whose shapes do not depend on the batch, and all rows use the same noise `[K, 1, units]`:
so a row's result is the same to the last bit whatever else is in the batch. For each row the
estimate of p(x) stays unbiased; only the errors of different rows are correlated.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from rws_keras.arrays import BINARY, Support, is_missing
from rws_keras.checks import check_positive_integer, plain_seed
from rws_keras.errors import UserError
from rws_keras.layers.choices import Groups
from rws_keras.layers.noise import Seed, stateless_seed, uniform_noise
from rws_keras.layers.value_shapes import allow_value_shapes
from rws_keras.models import imputation
from rws_keras.models.particles import WeightSums

# All particles of a row are in memory at once; four rows with this many take about 500 MB.
MOST_PARTICLES = 10_000
_ROWS_AT_ONCE = 4
_ESTIMATE: dict[str, list[int]] = {
    key: [] for key in ("log_likelihood", "standard_error", "effective_sample_size")
}


class Scorer(tf.Module):
    """The graph functions of a machine.

    A row with values that the machine does not model (not binary, say) gives NaN; other rows are
    not affected.

    Args:
        machine: The `HelmholtzMachine`.
        num_particles: K of `score`, `posterior`, `reconstruct` and `impute`; 2 to 10,000.
        fast: K of `score_fast`.
        accurate: K of `score_accurate`.
        num_completions: How many completions `impute` draws.
        seed: Seed of all noise: an integer, an int32 tensor `[2]`, or `None` for a fresh seed.

    Example:
    ```python
    scorer = rws_keras.models.Scorer(machine, num_particles=100)
    scorer.signatures()["serving_default"](x)["log_likelihood"]      # [N], nats
    ```
    """

    def __init__(
        self,
        machine,
        num_particles: int = 100,
        fast: int = 10,
        accurate: int = 1000,
        num_completions: int = 10,
        seed: Seed = 0,
    ):
        super().__init__(name="scorer")
        options = {"num_particles": num_particles, "fast": fast, "accurate": accurate}
        for name, value in options.items():
            if not 2 <= check_positive_integer(value, name) <= MOST_PARTICLES:
                raise UserError(f"`{name}` must be from 2 to {MOST_PARTICLES:,}, got {value:,}.")
        self.num_particles = check_positive_integer(num_particles, "num_particles")
        self.tiers = {
            "serving_default": num_particles,
            "score_fast": fast,
            "score_accurate": accurate,
        }
        self.num_completions = check_positive_integer(num_completions, "num_completions")
        self.seed = plain_seed(stateless_seed(None) if seed is None else seed)
        # Not an attribute that TensorFlow would follow: its variables alone are to be saved.
        self._machine = lambda: machine
        self.weights = [
            variable.value
            for layer in (*machine.p_layers, *machine.q_layers)
            for variable in layer.variables
        ]
        self.typical = tf.Variable(imputation.typical_means(machine, seed), trainable=False)

    def signatures(self) -> dict[str, tf.types.experimental.GenericFunction]:
        """The functions by the names of their signatures."""
        units = self._machine().visible_units
        x = tf.TensorSpec([None, units], tf.float32, name="x")
        mask = tf.TensorSpec([None, units], tf.float32, name="mask")
        seed = tf.TensorSpec([None], tf.int64, name="seed")

        def function(python_function, *specs):
            return tf.function(python_function, input_signature=specs, autograph=False)

        def score_with(num_particles):
            return lambda x: self.score(x, num_particles)

        return {
            **{name: function(score_with(k), x) for name, k in self.tiers.items()},
            "posterior": function(lambda x: self.posterior(x), x),
            "reconstruct": function(lambda x: self.reconstruct(x), x),
            "impute": function(lambda x, mask: self.impute(x, mask), x, mask),
            "sample": function(lambda seed: self.sample(seed), seed),
        }

    def score(self, x: tf.Tensor, num_particles: int) -> dict[str, tf.Tensor]:
        """`log_likelihood`, `standard_error` (both in nats) and `effective_sample_size`, `[N]`.

        Also `tail_probability`, if the machine was calibrated with this number of particles.
        """
        noise = self._noise(num_particles)

        def score_row(row):
            return _estimate(self._weigh(row, noise)[1])

        scores = _by_row(score_row, x, _ESTIMATE, self._invalid(x))
        calibration = self._machine().calibration
        if calibration is not None and calibration.num_particles == num_particles:
            tail = calibration.tail_probability(scores["log_likelihood"])
            scores["tail_probability"] = tail
        return scores

    def posterior(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """`latent_1`, `latent_2`, …: `E[h_l | x]`, `[N, units]`, bottom first."""
        noise = self._noise(self.num_particles)

        def mean_latents(row):
            latents, log_weights = self._weigh(row, noise)
            weights = tf.nn.softmax(log_weights)
            return {
                f"latent_{level}": _weighted_mean(weights, latent)
                for level, latent in enumerate(latents, start=1)
            }

        units = self._machine().latent_units
        shapes = {f"latent_{level}": [size] for level, size in enumerate(units, start=1)}
        return _by_row(mean_latents, x, shapes, self._invalid(x))

    def reconstruct(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """`mean`: `E[p(x' = 1 | h_1)]` over the posterior, `[N, D]`."""
        machine, num_particles = self._machine(), self.num_particles
        shapes: dict = machine.particle_noise(num_particles, 1)
        shapes["visible"] = (num_particles, 1, machine.visible_units)
        noise = uniform_noise(shapes, self._seed)

        def mean_visible(row):
            latents, log_weights = self._weigh(row, noise)
            visible = machine.p_layers[0].distribution(latents[0])
            # Drawn again: an autoregressive layer must not see the row itself.
            drawn, _ = visible.sample_from_noise(noise["visible"])
            weights = tf.nn.softmax(log_weights)
            return {"mean": _weighted_mean(weights, visible.conditional_mean(drawn))}

        return _by_row(mean_visible, x, {"mean": x.shape[1:]}, self._invalid(x))

    def impute(self, x: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
        """Completes partly observed rows, by importance resampling.

        See `rws_keras.models.imputation`.

        Args:
            x: `[N, D]`; the values of unobserved entries do not matter.
            mask: `[N, D]`, one where `x` was observed, else zero.

        Returns:
            `completions` `[N, completions, D]` with the observed entries as they were, `mean`
            `[N, D]`, and of the observed part `log_likelihood`, `standard_error` and
            `effective_sample_size`, `[N]`.
        """
        observed = tf.equal(mask, 1.0)
        support = self._machine().support
        invalid = _outside(BINARY, mask) | _outside(support, tf.where(observed, x, 0.0))
        if self._machine().missing is not None:
            observed &= ~is_missing(x)
        machine = self._machine()
        shapes = imputation.noise_shapes(machine, self.num_particles, 1)
        noise = uniform_noise(shapes, self._seed)

        def complete(arguments):
            row, known = arguments
            drawn = imputation.impute(
                machine, row[None], known[None], self.typical, noise, self.num_completions
            )
            return {
                "completions": drawn.completions[:, 0],
                "mean": drawn.mean[0],
                **{key: getattr(drawn.likelihood, key)[0] for key in _ESTIMATE},
            }

        results = {"completions": [self.num_completions, x.shape[1]], "mean": x.shape[1:]}
        return _by_row(
            complete, (tf.where(observed, x, 0.0), observed), {**results, **_ESTIMATE}, invalid
        )

    def sample(self, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """`x`, a sample from P for each seed, and `mean`, its visible means, `[N, D]`.

        The sample for a seed is that of `machine.sample(1, seed)`.
        """
        machine = self._machine()
        shapes = machine.p.noise_shapes(1)

        def sample_row(seed):
            # The high and the low half: small seeds are those of Python's ints.
            halves = tf.reverse(tf.bitcast(seed, tf.int32), [0])
            (x, above, *_), _ = machine.p.sample(uniform_noise(shapes, halves))
            mean = machine.p_layers[0].distribution(above).conditional_mean(x)
            return {"x": x[0], "mean": mean[0]}

        results = {key: [machine.visible_units] for key in ("x", "mean")}
        return _by_row(sample_row, seed, results, tf.zeros_like(seed, tf.bool))

    @property
    def _seed(self) -> tf.Tensor:
        two_words = isinstance(self.seed, list) or (
            isinstance(self.seed, int) and not 0 <= self.seed < 2**31
        )
        return stateless_seed(self.seed) if two_words else tf.stack([0, self.seed])

    def _invalid(self, x: tf.Tensor) -> tf.Tensor:
        """Which rows hold values that the visible layer does not model, `[N]`."""
        machine = self._machine()
        choices, outside = machine.p_layers[0].choices, _outside(machine.support, x)
        if choices is None:
            return outside
        return outside | tf.reduce_any(Groups(choices).wrong(x), axis=1)

    def _noise(self, num_particles: int) -> dict:
        """Noise of K particles of one row."""
        return uniform_noise(self._machine().particle_noise(num_particles, 1), self._seed)

    def _weigh(self, row, noise):
        """Particles of one row `[D]`: latents `[K, 1, units]` and log-weights `[K]`."""
        with allow_value_shapes():  # Each row has a turn of `map_fn`, which runs without XLA.
            particles = self._machine().particles(row[None], noise)
        return particles.latents, particles.log_weights[:, 0]


def _by_row(function: Callable, rows, shapes: dict, invalid: tf.Tensor) -> dict[str, tf.Tensor]:
    """Maps rows one by one to results of the given shapes; those of invalid rows are NaN."""
    results = tf.map_fn(
        function,
        rows,
        fn_output_signature={
            key: tf.TensorSpec(shape, tf.float32) for key, shape in shapes.items()
        },
        parallel_iterations=_ROWS_AT_ONCE,
    )

    # 1, or 0 / 0: the NaN is made for those rows alone.
    valid = tf.cast(~invalid, tf.float32)
    factor = valid / valid

    def spoil(result):
        return result * tf.reshape(factor, [-1] + [1] * (result.shape.rank - 1))

    return {key: spoil(result) for key, result in results.items()}


def _estimate(log_weights: tf.Tensor) -> dict[str, tf.Tensor]:
    log_weights = tf.cast(log_weights, tf.float64)
    estimate = WeightSums.of(log_weights).likelihood(log_weights.shape[0])
    return {key: getattr(estimate, key) for key in _ESTIMATE}


def _weighted_mean(weights: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """`Σ_k w_k v_k` for weights `[K]` and values `[K, 1, units]`."""
    return tf.linalg.matvec(values[:, 0], weights, transpose_a=True)


def _outside(support: Support, x: tf.Tensor) -> tf.Tensor:
    """Which rows of `x` hold values outside the support, `[N]`."""
    return tf.reduce_any(~support.contains(x), axis=1)
