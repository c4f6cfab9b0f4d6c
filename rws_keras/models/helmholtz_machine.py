"""The Helmholtz machine: a generative stack P and an inference stack Q."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf

from rws_keras import layers
from rws_keras.arrays import Rows
from rws_keras.checks import check_positive_integer, plain_seed
from rws_keras.errors import UserError
from rws_keras.layers.noise import Seed, stateless_seed, uniform_noise
from rws_keras.layers.registry import Family
from rws_keras.layers.stack import Stack, check_layers
from rws_keras.models import accuracy
from rws_keras.models.architecture import check_stacks, name_layers, one_per_layer, with_options
from rws_keras.models.evaluator import warn_of_zero_probability
from rws_keras.models.particles import LikelihoodEstimate, Particles, Samples, Statistics
from rws_keras.models.saving import Saving
from rws_keras.models.streaming import Sums, stream_particles
from rws_keras.models.trainer import Trainer

Data: TypeAlias = np.ndarray | tf.Tensor


@keras.saving.register_keras_serializable(package="rws_keras")
class HelmholtzMachine(Saving, Trainer):
    """A deep directed model of data with latents of one kind or another.

    The generative model is `p(x, h) = p(h_L) Π p(h_{l-1} | h_l)` with `h_0 = x`, the
    inference model `q(h | x) = Π q(h_l | h_{l-1})`. Layers without a name of their own are
    called `p_0 … p_L` and `q_1 … q_L`, after the units that they give: 0 are the visible ones.

    Args:
        p_layers: Stochastic layers of P, bottom first: the first gives the visible units,
            the last is the prior of the top latents.
        q_layers: Stochastic layers of Q, bottom first, one for each latent layer.
        seed: Seeds the sampling in `fit`: an integer, an int32 tensor `[2]`, or `None` for a
            fresh seed. The initial weights come from
            their initializers, which `keras.utils.set_random_seed` seeds.
        name: Name of the model.
        schema: What the visible units stand for, as `datasets.Schema.get_config` gives it;
            `datasets.Schema.of(machine)` reads it.

    Example:
    ```python
    machine = rws_keras.HelmholtzMachine.from_sizes(visible=64, latents=[50, 20])
    machine.compile("adam", rws_keras.objectives.ReweightedWakeSleep(num_particles=5))
    machine.fit(x_train, batch_size=100, epochs=50, validation_data=x_validation)
    machine.evaluate(x_test, num_particles=1000, return_dict=True)
    machine.predict(x_test)                       # log-likelihood of each datum, nats
    ```

    References:
        - [Dayan et al., 1995](https://doi.org/10.1162/neco.1995.7.5.889)
        - [Bornschein & Bengio, 2015](https://arxiv.org/abs/1406.2751)
    """

    def __init__(
        self,
        p_layers: Sequence[layers.StochasticLayer],
        q_layers: Sequence[layers.StochasticLayer],
        seed: Seed = None,
        name: str | None = None,
        schema: dict | None = None,
    ):
        p_layers, q_layers = check_layers(p_layers, "p_layers"), check_layers(q_layers, "q_layers")
        super().__init__(len(q_layers), seed, name)
        self.seed = plain_seed(seed)
        self.schema = schema
        self.p_layers, self.q_layers = p_layers, q_layers
        check_stacks(self.p, self.q)
        name_layers(self.p_layers, "p", first=0)
        name_layers(self.q_layers, "q", first=1)
        self.p.build()
        self.q.build(self.visible_units)
        signature = (
            tf.TensorSpec([None, self.visible_units], tf.float32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([2], tf.int32),
        )

        def function(python_function, **options):
            return tf.function(python_function, autograph=False, **options)

        # One trace each, for any number of data and of particles. In a namespace, lest TensorFlow
        # save them with the machine.
        self._functions = types.SimpleNamespace(
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
        self.built = True

    @classmethod
    def from_sizes(
        cls,
        visible: int,
        latents: int | Sequence[int],
        p: Family | Sequence[Family] = "sbn",
        q: Family | Sequence[Family] = "sbn",
        prior: Family | None = None,
        seed: Seed = None,
        name: str | None = None,
        choices: Sequence[int] | None = None,
        schema: dict | None = None,
    ) -> HelmholtzMachine:
        """Makes a machine from the sizes of its layers.

        Args:
            visible: The number of visible units.
            latents: The sizes of the latent layers, bottom first, or that of the only one.
            p: Family of the conditional P layers: `"sbn"`, `"dsbn"`, `"arsbn"`, `"nade"`,
                `"gaussian"`, a dict with further arguments, a class or a layer (see
                `layers.get`), or a list with one of these for each layer, bottom first.
            q: Family of the Q layers, likewise.
            prior: Family of the prior; P's (of its top layer) by default.
            seed: Seeds the sampling in `fit`.
            name: Name of the model.
            choices: Sizes of groups of visible units, of which those of several are a choice of
                exactly one; see `layers.Choices`, and `datasets.Schema.groups`.
            schema: What the visible units stand for, as `datasets.Schema.get_config` gives it.

        Returns:
            A built `HelmholtzMachine`.

        Raises:
            UserError: If a size is not a positive integer or a family is unknown.

        Example:
        ```python
        rws_keras.HelmholtzMachine.from_sizes(784, [200, 200, 200])
        rws_keras.HelmholtzMachine.from_sizes(784, [250], p="nade", q="nade")
        rws_keras.HelmholtzMachine.from_sizes(784, [50], q="gaussian", prior="gaussian")   # a VAE
        ```
        """
        sizes = np.atleast_1d(np.asarray(latents, object)).tolist()
        if not sizes:
            raise UserError("`latents` must name at least one latent layer, got none.")
        visible = check_positive_integer(visible, "visible")
        latents = [check_positive_integer(size, "latents") for size in sizes]
        p, q = (one_per_layer(spec, len(latents), name) for spec, name in [(p, "p"), (q, "q")])
        p = [*p, p[-1] if prior is None else prior]
        if choices is not None:
            p[0] = with_options(p[0], choices=list(choices))
        return cls(
            [
                layers.get(family, size, f"p_{level}")
                for level, (family, size) in enumerate(zip(p, [visible, *latents], strict=True))
            ],
            [
                layers.get(family, size, f"q_{level}")
                for level, (family, size) in enumerate(zip(q, latents, strict=True), start=1)
            ],
            seed=seed,
            name=name,
            schema=schema,
        )

    # The two stacks.

    @property
    def p(self) -> Stack:
        """The generative stack: `p.sample(noise)` draws `[x, h_1, …, h_L]` from the top down."""
        return Stack(self.p_layers, top_down=True)

    @property
    def q(self) -> Stack:
        """The inference stack: `q.sample(noise, given=x)` draws `[h_1, …, h_L]`."""
        return Stack(self.q_layers, top_down=False)

    @property
    def q_variables(self) -> list[keras.Variable]:
        return [variable for layer in self.q_layers for variable in layer.variables]

    @property
    def visible_units(self) -> int:
        """The number of visible units."""
        return self.p_layers[0].units

    @property
    def latent_units(self) -> list[int]:
        """The sizes of the latent layers, bottom first."""
        return self.q.units

    def log_p(self, x: tf.Tensor, latents: list[tf.Tensor]) -> list[tf.Tensor]:
        """`log p(h_{l-1} | h_l)` of each P layer in nats, bottom first, the prior's last.

        Args:
            x: Float32 data `[N, visible]`.
            latents: `[..., N, units]` for each latent layer.
        """
        return self.p.log_prob([x, *latents])

    def log_q(self, x: tf.Tensor, latents: list[tf.Tensor]) -> list[tf.Tensor]:
        """`log q(h_l | h_{l-1})` of each Q layer in nats, bottom first; shapes as `log_p`."""
        return self.q.log_prob(latents, given=x)

    def draw_particles(self, x: tf.Tensor, num_particles: int | tf.Tensor, seed: Seed) -> Particles:
        """As `sample_posterior`, for data that have been checked, inside a graph too."""
        shapes = self.q.noise_shapes(num_particles, tf.shape(x)[0])
        latents, log_q = self.q.sample(uniform_noise(shapes, seed), given=x)
        return Particles(latents, self.log_p(x, latents), log_q)

    def check_data(self, x: object) -> tf.Tensor:
        """Returns data as a float32 tensor `[N, visible]`.

        Raises:
            UserError: If they are not of that shape, or hold values that the visible layer
                does not model.
        """
        return self.p_layers[0].check_data(x)

    def checked_rows(self, x: object) -> Rows:
        """As `check_data`, without a conversion to float32: sparse data stay sparse."""
        return self.p_layers[0].checked_rows(x)

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
