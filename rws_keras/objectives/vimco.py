"""VIMCO: the score function estimator whose particles are each other's baselines."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf

from rws_keras.checks import check_integer
from rws_keras.objectives.objective import register
from rws_keras.objectives.reinforce import REINFORCE

# In place of the logarithm of zero: mean weights of the others would be NaN or -inf.
_LEAST_LOG_WEIGHT = -1e30


def _check_num_particles(value: Any, name: str) -> int:
    return check_integer(value, name, minimum=2)


@register
class VIMCO(REINFORCE):
    """Variational inference for Monte Carlo objectives.

    Maximises the bound `E[log (1/K Σ_k ω_k)]` as `REINFORCE` does, with a separate signal for each
    particle: `L - L_{-k}`, where in `L_{-k}` the geometric mean of the other weights replaces
    `ω_k`. `L_{-k}` does not depend on `h_k`, so that the gradient stays unbiased; the difference is
    the contribution of `h_k` to L.

    Args:
        num_particles: K, an integer of at least 2. A step takes memory in proportion to K².

    Example:
    ```python
    machine.compile("adam", rws_keras.objectives.VIMCO(num_particles=5))
    ```

    Reference:
        - [Mnih & Rezende, 2016](https://arxiv.org/abs/1602.06725)
    """

    settings: ClassVar = {**REINFORCE.settings, "num_particles": _check_num_particles}

    def __init__(self, num_particles: int = 5, **kwargs):
        super().__init__(num_particles, **kwargs)

    def signals(self, log_weights: tf.Tensor) -> tf.Tensor:
        log_weights = tf.maximum(log_weights, _LEAST_LOG_WEIGHT)
        num_particles = tf.shape(log_weights)[0]
        others = 1.0 - tf.eye(num_particles)
        mean_of_others = tf.matmul(others, log_weights) / tf.cast(num_particles - 1, tf.float32)
        # Row k has the weights of all but particle k, `[K, K, N]`.
        is_self = tf.eye(num_particles, dtype=tf.bool)[:, :, None]
        without = tf.where(is_self, mean_of_others[:, None], log_weights[None])
        return tf.reduce_logsumexp(log_weights, axis=0) - tf.reduce_logsumexp(without, axis=1)
