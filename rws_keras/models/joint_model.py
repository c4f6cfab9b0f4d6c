"""The joint model p(x, h) and its inference q(h | x), for data that may have missing values."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from rws_keras.arrays import Rows, Support, is_missing, with_missing
from rws_keras.errors import UserError
from rws_keras.layers.noise import Seed, uniform_noise
from rws_keras.layers.stack import Stack
from rws_keras.layers.stochastic_layer import StochasticLayer
from rws_keras.models.particles import Particles

MARGINALIZE = "marginalize"


def check_missing(missing: str | None) -> str | None:
    """Returns the argument `missing` of a machine.

    Raises:
        UserError: If it is neither `None` nor `"marginalize"`.
    """
    if missing not in (None, MARGINALIZE):
        raise UserError(f"`missing` must be None or '{MARGINALIZE}', got {missing!r}.")
    return missing


class JointModel:
    """The two stacks of a machine, and the treatment of missing values.

    If `missing` is `"marginalize"`, NaN is a missing value, and p(x) is the probability of the
    observed values. The input of Q is the data with zeros in place of missing values, followed by
    an indicator of which are missing. A visible layer of independent units leaves the missing ones
    out. In an autoregressive one they affect the units after them: P draws them in order, so that a
    particle has values for them in addition to its latents, and `p(x, h) / q(h | x)`, divided by
    the probability of the drawn values, is the product over the observed units alone.
    """

    p_layers: list[StochasticLayer]
    q_layers: list[StochasticLayer]
    missing: str | None

    @property
    def p(self) -> Stack:
        """The generative stack: `p.sample(noise)` draws `[x, h_1, …, h_L]` from the top down."""
        return Stack(self.p_layers, top_down=True)

    @property
    def q(self) -> Stack:
        """The inference stack: `q.sample(noise, given=q_input(x))` draws `[h_1, …, h_L]`."""
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

    @property
    def q_input_units(self) -> int:
        """The width of `q_input`."""
        return self.visible_units if self.missing is None else 2 * self.visible_units

    @property
    def draws_gaps(self) -> bool:
        """Whether missing values are drawn, because the visible layer cannot leave them out."""
        return self.missing is not None and not self._visible_layer_marginalizes()

    def _visible_layer_marginalizes(self):
        layer = self.p_layers[0]
        return layer.distribution(tf.zeros([1, layer.given_units])).marginalizes

    # Data.

    @property
    def support(self) -> Support:
        """The values that data may have."""
        support = self.p_layers[0].support
        return support if self.missing is None else with_missing(support)

    def check_data(self, x: object) -> tf.Tensor:
        """Returns data as a float32 tensor `[N, visible]`.

        Raises:
            UserError: If the shape is wrong, or there are values that the visible layer does not
                model, such as NaN unless values may be missing.
        """
        return self.p_layers[0].check_data(x, missing=self.missing is not None)

    def checked_rows(self, x: object) -> Rows:
        """As `check_data`, without a conversion to float32: sparse data stay sparse."""
        return self.p_layers[0].checked_rows(x, missing=self.missing is not None)

    def q_input(self, x: tf.Tensor) -> tf.Tensor:
        """The input of Q for data `[..., visible]`.

        This is the data itself. If values may be missing, it has zeros in their place, followed by
        ones for missing units and zeros for the others, `[..., 2 visible]`.
        """
        return x if self.missing is None else self.q_input_of(x, is_missing(x))

    def q_input_of(self, x: tf.Tensor, gaps: tf.Tensor) -> tf.Tensor:
        """As `q_input`, for a given mask of missing values, whatever `x` has in their place."""
        return tf.concat([tf.where(gaps, 0.0, x), tf.cast(gaps, x.dtype)], axis=-1)

    def copy_gaps(self, x: tf.Tensor, source: tf.Tensor) -> tf.Tensor:
        """Data `[M, visible]` with the missing values of other data `[N, visible]`, row by row.

        If there are more rows than the other data have, those are repeated from the first.
        """
        if self.missing is None:
            return x
        rows = tf.math.floormod(tf.range(tf.shape(x)[0]), tf.shape(source)[0])
        return tf.where(tf.gather(is_missing(source), rows), math.nan, x)

    def fill(self, x: tf.Tensor, latents: list[tf.Tensor], noise: tf.Tensor) -> tf.Tensor:
        """Data with the missing values drawn from P, each given those before it.

        Args:
            x: Float32 data `[N, visible]`.
            latents: `[..., N, units]` for each latent layer.
            noise: Uniform numbers in (0, 1), `[..., N, visible]`.

        Returns:
            `[..., N, visible]`.
        """
        visible = self.p_layers[0].distribution(latents[0])
        gaps = is_missing(x)
        return visible.complete(tf.where(gaps, 0.0, x), ~gaps, noise)

    # Probabilities.

    def log_p(
        self, x: tf.Tensor, latents: list[tf.Tensor], filled: tf.Tensor | None = None
    ) -> list[tf.Tensor]:
        """`log p(h_{l-1} | h_l)` of each P layer in nats, bottom first, the prior's last.

        Args:
            x: Float32 data `[..., N, visible]`. The first log-probability is that of the values
                that are not missing.
            latents: `[..., N, units]` for each latent layer.
            filled: The data with the missing values drawn, `[..., N, visible]`: needed where the
                visible layer is autoregressive and there are any, see `fill`.
        """
        if self.missing is None:
            return self.p.log_prob([x, *latents])
        gaps = is_missing(x)
        if filled is None:
            filled = tf.where(gaps, 0.0, x)
        visible = self.p_layers[0].distribution(latents[0])
        return [visible.observed_log_prob(filled, ~gaps), *self.p[1:].log_prob(latents)]

    def log_q(self, x: tf.Tensor, latents: list[tf.Tensor]) -> list[tf.Tensor]:
        """`log q(h_l | h_{l-1})` of each Q layer in nats, bottom first; shapes as `log_p`."""
        return self.q.log_prob(latents, given=self.q_input(x))

    # Particles.

    def particle_noise(self, num_particles: int | tf.Tensor, num_data: int | tf.Tensor) -> dict:
        """Shapes of the noise of K particles of each of N data, by what it is for."""
        shapes: dict = {"particles": self.q.noise_shapes(num_particles, num_data)}
        if self.draws_gaps:
            shapes["gaps"] = (num_particles, num_data, self.visible_units)
        return shapes

    def particles(self, x: tf.Tensor, noise: dict) -> Particles:
        """The particles of data from given noise.

        Args:
            x: Float32 data `[N, visible]`, checked.
            noise: Uniform numbers in (0, 1), as `particle_noise` names them.
        """
        latents, log_q = self.q.sample(noise["particles"], given=self.q_input(x))
        filled = self.fill(x, latents, noise["gaps"]) if self.draws_gaps else None
        return Particles(latents, self.log_p(x, latents, filled), log_q)

    def draw_particles(self, x: tf.Tensor, num_particles: int | tf.Tensor, seed: Seed) -> Particles:
        """As `sample_posterior`, for data that have been checked, inside a graph too."""
        shapes = self.particle_noise(num_particles, tf.shape(x)[0])
        return self.particles(x, uniform_noise(shapes, seed))
