"""What is exported: a machine's likelihoods, posteriors and samples as graph functions.

Every function takes the batch first and gives the batch first. Each row is computed by itself, in
operations whose shapes do not depend on the batch, and all rows are driven by the same noise
`[K, 1, units]`: so a row's result is the same to the last bit whatever else is in the batch. For
each row the estimate of p(x) stays unbiased; only the errors of different rows are correlated.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf
import tensorflow_probability as tfp

from rws_keras.arrays import BINARY, Support
from rws_keras.checks import check_positive_integer, plain_seed
from rws_keras.errors import UserError
from rws_keras.layers.noise import Seed, stateless_seed, uniform_noise
from rws_keras.models.particles import WeightSums, resample, sum_over_layers

# All particles of a row are in flight at once; four rows of this many take about 500 MB.
MOST_PARTICLES = 10_000
_ROWS_AT_ONCE = 4
_DREAMS = 1000
_ESTIMATE: dict[str, list[int]] = {
    key: [] for key in ("log_likelihood", "standard_error", "effective_sample_size")
}


class Scorer(tf.Module):
    """The graph functions of a machine.

    A row with values that the machine does not model (not binary, say) gives NaN, and leaves
    the other rows as they are.

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
        self.typical = tf.Variable(
            tf.reduce_mean(machine.sample(_DREAMS, seed=seed).mean, axis=0), trainable=False
        )

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
        """`log_likelihood`, `standard_error` (both in nats) and `effective_sample_size`, `[N]`."""
        noise = self._noise(num_particles)

        def score_row(row):
            return _estimate(self._weigh(row, noise)[1])

        return _by_row(score_row, x, _ESTIMATE, self._invalid(x))

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
        noise, visible_noise = self._noise(self.num_particles, with_visible=True)

        def mean_visible(row):
            latents, log_weights = self._weigh(row, noise)
            visible = self._machine().p_layers[0].distribution(latents[0])
            # Drawn anew: an autoregressive layer must not look at the row itself.
            drawn, _ = visible.sample_from_noise(visible_noise)
            weights = tf.nn.softmax(log_weights)
            return {"mean": _weighted_mean(weights, visible.conditional_mean(drawn))}

        return _by_row(mean_visible, x, {"mean": x.shape[1:]}, self._invalid(x))

    def impute(self, x: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
        """Completes rows of which only a part was observed, by importance resampling.

        Q is given the row with its gaps filled by means. A first round of particles finds the
        means that go with what was observed, a second one, with fresh noise, gives the
        results. One particle in four is drawn from P's prior instead of Q, which knows only
        whole rows, and each is weighed by `p(x_observed, h)` over the mixture of both: unbiased
        for any filling, and sound even where nothing was observed. The gaps are drawn from P
        given h and, where the visible layer is autoregressive, the units before; observed
        units count with their probability.

        Reference:
            - [Veach & Guibas, 1995](https://doi.org/10.1145/218380.218498), for the mixture

        Args:
            x: `[N, D]`, of which the unobserved entries are of no consequence.
            mask: `[N, D]`, one where `x` was observed, else zero.

        Returns:
            `completions` `[N, completions, D]` with the observed entries as they were, `mean`
            `[N, D]`, and of the observed part `log_likelihood`, `standard_error` and
            `effective_sample_size`, `[N]`.
        """
        observed = tf.equal(mask, 1.0)
        invalid = _outside(BINARY, mask) | self._invalid(tf.where(observed, x, 0.0))
        first, visible_first = self._noise(self.num_particles, with_visible=True)
        second, visible_second = self._noise(self.num_particles, with_visible=True, part=1)
        position = uniform_noise((1,), self._seed(2))

        def complete(arguments):
            row, known = arguments
            row = tf.where(known, row, self.typical)
            drawn = self._draw_gaps(row, known, first, visible_first)
            row = tf.where(known, row, drawn["mean"])
            drawn = self._draw_gaps(row, known, second, visible_second)
            weights = tf.nn.softmax(drawn["log_weights"])
            (chosen,) = resample([drawn["x"]], weights[:, None], self.num_completions, position)
            return {
                "completions": chosen[:, 0],
                "mean": tf.where(known, row, drawn["mean"]),
                **_estimate(drawn["log_weights"]),
            }

        shapes = {"completions": [self.num_completions, x.shape[1]], "mean": x.shape[1:]}
        return _by_row(complete, (x, observed), {**shapes, **_ESTIMATE}, invalid)

    def sample(self, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """`x`, a sample of P for each seed, and `mean`, its visible means, `[N, D]`.

        The sample of a seed is the one of `machine.sample(1, seed)`.
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

    def _seed(self, part: int) -> tf.Tensor:
        two_words = isinstance(self.seed, list) or (
            isinstance(self.seed, int) and not 0 <= self.seed < 2**31
        )
        if two_words:
            return tf.random.fold_in(stateless_seed(self.seed), part)
        return tf.stack([part, self.seed])

    def _invalid(self, x: tf.Tensor) -> tf.Tensor:
        """Which rows hold values that the visible layer does not model, `[N]`."""
        return _outside(self._machine().p_layers[0].support, x)

    def _noise(self, num_particles, with_visible=False, part=0):
        """Noise of K particles of one row, that of a visible row for each beside it."""
        machine = self._machine()
        shapes: dict = {"particles": machine.q.noise_shapes(num_particles, 1)}
        if with_visible:
            shapes["visible"] = (num_particles, 1, machine.visible_units)
        noise = uniform_noise(shapes, self._seed(part))
        return (noise["particles"], noise["visible"]) if with_visible else noise["particles"]

    def _weigh(self, row, noise):
        """Particles of one row `[D]`: latents `[K, 1, units]` and log-weights `[K]`."""
        machine = self._machine()
        x = row[None]
        latents, log_q = machine.q.sample(noise, given=x)
        log_weights = sum_over_layers(machine.log_p(x, latents)) - sum_over_layers(log_q)
        return latents, log_weights[:, 0]

    def _draw_gaps(self, row, known, noise, visible_noise):
        """Particles of a filled row `[D]` whose gaps P draws, weighed by what is known."""
        machine = self._machine()
        filled = row[None]
        from_p = max(self.num_particles // 4, 1)
        from_q = self.num_particles - from_p
        inferred, _ = machine.q.sample([part[:from_q] for part in noise], given=filled)
        dreamt, _ = machine.p[1:].sample([part[from_q:] for part in noise])
        latents = [tf.concat(pair, axis=0) for pair in zip(inferred, dreamt, strict=True)]
        visible = machine.p_layers[0].distribution(latents[0])
        x = visible.complete(row, known, visible_noise)
        log_known = visible.unit_log_probs(x) * tf.cast(known, tf.float32)
        log_prior = sum_over_layers(machine.p[1:].log_prob(latents))
        log_q = sum_over_layers(machine.log_q(filled, latents))
        log_mixture = tfp.math.log_add_exp(
            log_q + math.log(from_q / self.num_particles),
            log_prior + math.log(from_p / self.num_particles),
        )
        log_weights = (tf.reduce_sum(log_known, -1) + log_prior - log_mixture)[:, 0]
        # Where the units depend on each other a gap bears on the weight by those after it:
        # then only what was drawn may be averaged, not the mean it was drawn around.
        gaps = visible.conditional_mean(x) if visible.units_are_independent else x
        mean = _weighted_mean(tf.nn.softmax(log_weights), gaps)
        return {"x": x, "mean": mean, "log_weights": log_weights}


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
