"""The Helmholtz machine: a generative stack P and an inference stack Q."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from rws_keras import layers
from rws_keras.checks import check_binary, check_positive_integer
from rws_keras.errors import UserError
from rws_keras.layers.distribution import draw_noise, split_noise, stateless_seed
from rws_keras.models import pretrained
from rws_keras.models.particles import LikelihoodEstimate, Particles, Samples
from rws_keras.models.streaming import stream_particles
from rws_keras.models.trainer import MachineTrainer

Data = np.ndarray | tf.Tensor
Seed = int | tf.Tensor | None


@keras.saving.register_keras_serializable(package="rws_keras")
class HelmholtzMachine(MachineTrainer):
    """A deep directed model of binary data with binary latents.

    The generative model is `p(x, h) = p(h_L) Π p(h_{l-1} | h_l)` with `h_0 = x`, the
    inference model `q(h | x) = Π q(h_l | h_{l-1})`.

    Args:
        p_layers: Stochastic layers of P, bottom first: the first gives the visible units,
            the last is the prior of the top latents.
        q_layers: Stochastic layers of Q, bottom first, one for each latent layer.
        seed: Integer that seeds the sampling in `fit`. The initial weights come from
            their initializers, which `keras.utils.set_random_seed` seeds.
        name: Name of the model.

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
        seed: int | None = None,
        name: str | None = None,
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.p_layers = list(p_layers)
        self.q_layers = list(q_layers)
        self._build_layers()
        self.seed = seed
        self._prepare_training(len(self.q_layers), seed)
        self._estimate = tf.function(self._stream, reduce_retracing=True, autograph=False)
        self.built = True

    @classmethod
    def from_sizes(
        cls,
        visible: int,
        latents: Sequence[int],
        p: str | dict | Sequence = "sbn",
        q: str | dict | Sequence = "sbn",
        prior: str | dict | None = None,
        seed: int | None = None,
        name: str | None = None,
    ) -> HelmholtzMachine:
        """Makes a machine from the sizes of its layers.

        Args:
            visible: The number of visible units.
            latents: The sizes of the latent layers, bottom first.
            p: Family of the conditional P layers: `"sbn"`, `"dsbn"`, `"arsbn"` or
                `"nade"`, a dict with further arguments (see `layers.get`), or a list with
                one of these for each layer, bottom first.
            q: Family of the Q layers, likewise.
            prior: Family of the prior; P's (of its top layer) by default.
            seed: Seeds the sampling in `fit`.
            name: Name of the model.

        Returns:
            A built `HelmholtzMachine`.

        Raises:
            ValueError: If a size is not a positive integer or a family is unknown.

        Example:
        ```python
        HelmholtzMachine.from_sizes(784, [200, 200, 200])
        HelmholtzMachine.from_sizes(784, [250], p="nade", q="nade")
        ```
        """
        if isinstance(latents, int):
            latents = [latents]
        if not latents:
            raise UserError("`latents` must name at least one latent layer, got none.")
        sizes = [
            check_positive_integer(size, name)
            for size, name in [(visible, "visible"), *((size, "latents") for size in latents)]
        ]
        p, q = (_one_per_layer(spec, len(latents), name) for spec, name in [(p, "p"), (q, "q")])
        p = [*p, p[-1] if prior is None else prior]
        return cls(
            [layers.get(family, size) for family, size in zip(p, sizes, strict=True)],
            [layers.get(family, size) for family, size in zip(q, sizes[1:], strict=True)],
            seed=seed,
            name=name,
        )

    @classmethod
    def from_preset(cls, preset: str | os.PathLike) -> HelmholtzMachine:
        """Loads a pretrained machine.

        A preset consists of a configuration and arrays: loading one from an untrusted place
        runs no code of that place.

        Args:
            preset: A name from `rws_keras.presets()`, the path of a preset's folder, or its
                http(s) address. What is downloaded is checked by its SHA-256 and kept under
                the Keras home.

        Returns:
            The machine, not compiled.

        Raises:
            PresetError: If there is no such preset, or it is damaged or cannot be had. (It is
                a `ValueError`.)

        Example:
        ```python
        machine = rws_keras.HelmholtzMachine.from_preset("digits-sbn-64-32")
        machine.log_likelihood(x, num_particles=1000)
        ```
        """
        folder = pretrained.locate(preset)
        try:
            config = json.loads((folder / pretrained.CONFIG).read_text())
            machine = keras.saving.deserialize_keras_object(config, safe_mode=True)
            if not isinstance(machine, cls):
                raise TypeError(f"it describes a {type(machine).__name__}, not a {cls.__name__}")
            machine.load_weights(folder / pretrained.WEIGHTS)
        except Exception as error:  # json, Keras and h5py each have errors of their own
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise pretrained.PresetError(f"{folder} does not hold a machine: {reason}.") from error
        return machine

    def _build_layers(self) -> None:
        for stack, name in [(self.p_layers, "p_layers"), (self.q_layers, "q_layers")]:
            for layer in stack:
                if not isinstance(layer, layers.StochasticLayer):
                    raise UserError(
                        f"`{name}` takes stochastic layers (rws_keras.layers), got {layer!r}."
                    )
        if len(self.p_layers) != len(self.q_layers) + 1 or not self.q_layers:
            raise UserError(
                "Q needs one layer for each latent layer of P, and P one layer more, its "
                f"prior; got {len(self.p_layers)} P layers and {len(self.q_layers)} Q layers."
            )
        p_sizes = [layer.units for layer in self.p_layers]
        q_sizes = [layer.units for layer in self.q_layers]
        if p_sizes[1:] != q_sizes:
            raise UserError(
                f"The layers' sizes do not meet: the latent layers have {p_sizes[1:]} units "
                f"in P and {q_sizes} in Q (bottom first)."
            )
        parents = [*((None, size) for size in p_sizes[1:]), None]
        for layer, given_shape in zip(self.p_layers, parents, strict=True):
            layer.build(given_shape)
        for layer, given in zip(self.q_layers, p_sizes[:-1], strict=True):
            layer.build((None, given))

    @property
    def visible_units(self) -> int:
        """The number of visible units."""
        return self.p_layers[0].units

    @property
    def latent_units(self) -> list[int]:
        """The sizes of the latent layers, bottom first."""
        return [layer.units for layer in self.q_layers]

    # The two stacks.

    def particle_shapes(self, num_particles: int, num_data: int | tf.Tensor) -> list:
        """Shapes `[K, N, units]` of the noise that `infer` takes, one for each Q layer."""
        return [[num_particles, num_data, units] for units in self.latent_units]

    def infer(
        self, x: tf.Tensor, noise: list[tf.Tensor]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Draws `h ~ q(h | x)`.

        Args:
            x: Binary float32 data `[N, visible]`.
            noise: Uniform numbers in (0, 1) for each Q layer, `[K, N, units]`, or
                `[K, 1, units]` to drive all data by the same noise.

        Returns:
            The latents, `[K, N, units]` for each layer, and `log q` of each, `[K, N]`.
        """
        latents, log_q, below = [], [], x
        for layer, layer_noise in zip(self.q_layers, noise, strict=True):
            below, log_prob = layer.distribution(below).sample_from_noise(layer_noise)
            latents.append(below)
            log_q.append(log_prob)
        return latents, log_q

    def dream_shapes(self, num_samples: int | tf.Tensor) -> list:
        """Shapes `[N, units]` of the noise that `dream` takes, one for each P layer."""
        return [[num_samples, layer.units] for layer in self.p_layers]

    def dream(self, noise: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Draws `(x, h) ~ p(x, h)`.

        Args:
            noise: Uniform numbers in (0, 1) for each P layer, `[N, units]`, bottom first.

        Returns:
            The visible vectors `[N, visible]` and the latents `[N, units]`, bottom first.
        """
        states, above = [], None
        for layer, layer_noise in zip(self.p_layers[::-1], noise[::-1], strict=True):
            above, _ = layer.distribution(above).sample_from_noise(layer_noise)
            states.append(above)
        *latents, x = states
        return x, latents[::-1]

    def log_p(self, x: tf.Tensor, latents: list[tf.Tensor]) -> list[tf.Tensor]:
        """`log p(h_{l-1} | h_l)` of each P layer in nats, bottom first, the prior's last.

        Args:
            x: Binary float32 data `[N, visible]`.
            latents: `[..., N, units]` for each latent layer.
        """
        values, parents = [x, *latents], [*latents, None]
        return [
            layer.distribution(parent).log_prob(value)
            for layer, value, parent in zip(self.p_layers, values, parents, strict=True)
        ]

    def log_q(self, x: tf.Tensor, latents: list[tf.Tensor]) -> list[tf.Tensor]:
        """`log q(h_l | h_{l-1})` of each Q layer in nats, bottom first; shapes as `log_p`."""
        parents = [x, *latents[:-1]]
        return [
            layer.distribution(parent).log_prob(value)
            for layer, value, parent in zip(self.q_layers, latents, parents, strict=True)
        ]

    def sample_posterior(self, x: Data, num_particles: int, seed: Seed = None) -> Particles:
        """Draws K particles from Q with their log-weights.

        Args:
            x: Binary data `[N, visible]`.
            num_particles: K.
            seed: An int, an int32 tensor `[2]`, or `None` for a fresh seed.

        Returns:
            `Particles` with shapes `[K, N, …]`.
        """
        if not tf.is_tensor(num_particles):
            num_particles = check_positive_integer(num_particles, "num_particles")
        x = check_binary(x, self.visible_units)
        shapes = self.particle_shapes(num_particles, tf.shape(x)[0])
        latents, log_q = self.infer(x, split_noise(draw_noise(shapes, seed), shapes))
        return Particles(latents, self.log_p(x, latents), log_q)

    # What a user asks of a trained machine.

    def sample(self, num_samples: int, seed: Seed = None) -> Samples:
        """Draws from P.

        Args:
            num_samples: N.
            seed: An int, an int32 tensor `[2]`, or `None` for a fresh seed.

        Returns:
            `Samples`: `x` `[N, visible]`, the latents of all layers, and the visible means.
        """
        num_samples = check_positive_integer(num_samples, "num_samples")
        shapes = self.dream_shapes(num_samples)
        x, latents = self.dream(split_noise(draw_noise(shapes, seed), shapes))
        mean = self.p_layers[0].distribution(latents[0]).conditional_probs(x)
        return Samples(x, latents, tf.broadcast_to(mean, tf.shape(x)))

    def log_likelihood(
        self, x: Data, num_particles: int = 100, seed: Seed = None
    ) -> LikelihoodEstimate:
        """Estimates `log p(x)` of each datum by importance sampling from Q.

        The memory needed does not grow with `num_particles`.

        Args:
            x: Binary data `[N, visible]`.
            num_particles: K, the number of particles a datum.
            seed: An int, an int32 tensor `[2]`, or `None` for a fresh seed.

        Returns:
            A `LikelihoodEstimate` of three tensors `[N]`, in nats.

        Raises:
            ValueError: If `x` is not binary data of the machine's width, or K < 1.
        """
        num_particles = check_positive_integer(num_particles, "num_particles")
        x = check_binary(x, self.visible_units)
        seed = stateless_seed(seed)
        statistics, _ = self._estimate(x, tf.constant(num_particles), seed)
        return statistics.likelihood

    def posterior_mean(
        self, x: Data, num_particles: int = 100, seed: Seed = None
    ) -> list[tf.Tensor]:
        """Estimates `E[h_l | x]` under P's posterior, by importance-weighted particles.

        Args:
            x: Binary data `[N, visible]`.
            num_particles: K, the number of particles a datum.
            seed: An int, an int32 tensor `[2]`, or `None` for a fresh seed.

        Returns:
            A tensor `[N, units]` for each latent layer, bottom first.
        """
        return self._posterior_expectation(x, num_particles, seed, "latents")

    def reconstruct(self, x: Data, num_particles: int = 100, seed: Seed = None) -> tf.Tensor:
        """Estimates the visible means `E[p(x' = 1 | h_1)]` over the posterior of `x`.

        Args:
            x: Binary data `[N, visible]`.
            num_particles: K, the number of particles a datum.
            seed: An int, an int32 tensor `[2]`, or `None` for a fresh seed.

        Returns:
            Probabilities `[N, visible]`.
        """
        return self._posterior_expectation(x, num_particles, seed, "visible")[0]

    def _posterior_expectation(self, x, num_particles, seed, what):
        num_particles = check_positive_integer(num_particles, "num_particles")
        x = check_binary(x, self.visible_units)
        seed = stateless_seed(seed)
        return self._estimate(x, tf.constant(num_particles), seed, what)[1]

    def _stream(self, x, num_particles, seed, what=None):
        def visible_mean(latents, seed):
            # Drawn anew: an autoregressive layer must not look at the datum itself.
            visible = self.p_layers[0].distribution(latents[0])
            return [visible.conditional_probs(visible.sample(seed=seed))]

        expectation_of = {
            None: None,
            "latents": lambda latents, seed: latents,
            "visible": visible_mean,
        }[what]
        return stream_particles(self, x, num_particles, seed, expectation_of)

    # Saving.

    def get_config(self) -> dict:
        return {
            "name": self.name,
            "seed": self.seed,
            "p_layers": keras.saving.serialize_keras_object(self.p_layers),
            "q_layers": keras.saving.serialize_keras_object(self.q_layers),
        }

    @classmethod
    def from_config(cls, config: dict) -> HelmholtzMachine:
        stacks = {
            key: keras.saving.deserialize_keras_object(config[key])
            for key in ("p_layers", "q_layers")
        }
        return cls(**{**config, **stacks})

    def save_own_variables(self, store) -> None:
        store["seed_state"] = self.noise_seed.numpy()

    def load_own_variables(self, store) -> None:
        self.noise_seed.assign(np.asarray(store["seed_state"], np.int32))

    def get_build_config(self):
        # The layers carry their own: a machine is built as soon as it is made.
        return None


def _one_per_layer(spec, count: int, name: str) -> list:
    if isinstance(spec, str | dict):
        return [spec] * count
    spec = list(spec)
    if len(spec) != count:
        raise UserError(
            f"`{name}` names {len(spec)} families for {count} latent layers; give one family, "
            "or one for each layer."
        )
    return spec
