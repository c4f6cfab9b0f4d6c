"""A stack of stochastic layers: a chain of conditional distributions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf

from rws_keras.errors import UserError
from rws_keras.layers.stochastic_layer import StochasticLayer


class Stack:
    """Stochastic layers, each conditioned on the state of its neighbour.

    P draws from the top down, `p(s_L) Π p(s_{l-1} | s_l)`: its chain begins with the prior, which
    has no parent. Q draws from the bottom up, `Π q(s_l | s_{l-1})`: its chain begins with the
    lowest latents, conditioned on the data. Layers, states and log-probabilities are listed
    from the bottom up in both. A slice of a stack is a stack.

    Args:
        layers: The layers, bottom first.
        top_down: Whether a layer's parent is the one above it, or the one below.

    Example:
    ```python
    q = Stack(machine.q_layers, top_down=False)
    noise = uniform_noise(q.noise_shapes(5, len(x)), seed=0)  # K = 5 particles of each datum
    latents, log_q = q.sample(noise, given=x)                 # [5, N, units], [5, N]
    log_q = q.log_prob(latents, given=x)                      # the same
    ```
    """

    def __init__(self, layers: Sequence[StochasticLayer], top_down: bool):
        self.layers = list(layers)
        self.top_down = top_down

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, levels: slice) -> Stack:
        return Stack(self.layers[levels], self.top_down)

    @property
    def units(self) -> list[int]:
        """The layers' numbers of units, bottom first."""
        return [layer.units for layer in self.layers]

    def build(self, given_units: int | None = None) -> None:
        """Builds each layer for the parent it has, and checks that it keeps its contract.

        Args:
            given_units: The number of units that the chain begins from, `None` for nothing.
        """
        for layer, parents in zip(self.layers, self._parents(self.units, given_units), strict=True):
            layer.build(None if parents is None else (None, parents))
            layer.check_contract()

    def noise_shapes(self, *leading: int | tf.Tensor) -> list[tuple]:
        """Shapes `(*leading, units)` of the noise that `sample` takes, one for each layer."""
        return [(*leading, units) for units in self.units]

    def sample(
        self, noise: list[tf.Tensor], given: tf.Tensor | None = None
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Draws the states of all layers.

        Args:
            noise: Uniform numbers in (0, 1) for each layer, `[..., units]`; along an axis of size 1
                the same noise is broadcast.
            given: What the chain begins from, `[..., units]`, or `None`.

        Returns:
            The states `[..., units]` and their log-probabilities `[...]` in nats, bottom first.
        """
        states, log_probs = list(noise), list(noise)
        levels = range(len(self))
        for level in reversed(levels) if self.top_down else levels:
            distribution = self.layers[level].distribution(given)
            given, log_prob = distribution.sample_from_noise(noise[level])
            states[level], log_probs[level] = given, log_prob
        return states, log_probs

    def log_prob(self, states: list[tf.Tensor], given: tf.Tensor | None = None) -> list[tf.Tensor]:
        """Log-probability of each layer's state given its parent, `[...]` in nats, bottom first.

        Args:
            states: `[..., units]` for each layer, bottom first.
            given: What the chain begins from, or `None`.
        """
        return [
            layer.distribution(parent).log_prob(state)
            for layer, state, parent in zip(
                self.layers, states, self._parents(states, given), strict=True
            )
        ]

    def _parents(self, states, given):
        """The parent of each state: the only place that defines the order of the chain."""
        return [*states[1:], given] if self.top_down else [given, *states[:-1]]


def check_layers(layers: Iterable, name: str) -> list[StochasticLayer]:
    """Returns the layers as a list.

    Raises:
        UserError: If one is not a stochastic layer; the message has the argument's name.
    """
    if not isinstance(layers, Iterable) or isinstance(layers, StochasticLayer):
        raise UserError(f"`{name}` takes a list of stochastic layers, got {layers!r}.")
    layers = list(layers)
    for layer in layers:
        if not isinstance(layer, StochasticLayer):
            raise UserError(f"`{name}` takes stochastic layers (rws_keras.layers), got {layer!r}.")
    return layers
