"""How unusual a log-likelihood is, among those of data that are known to be normal."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from rws_keras.errors import UserError

# Order statistics that are kept: as many as these at either end, and so many in between.
_ENDS, _BETWEEN = 1000, 1000


class Calibration:
    """The distribution of the log-likelihoods of validation data.

    A tail probability is the conformal p-value: the share of n validation rows and the row itself
    that are as improbable as it, or more. Of fresh rows from where the validation rows are from, a
    share of at most α has a tail probability of at most α, whatever the machine and however few
    the rows: a threshold of 0.01 gives a false-alarm rate of at most 1 %. It is never below
    1 / (n + 1). (Where the same rows have chosen the epoch to keep, this holds but approximately.)

    Args:
        log_likelihoods: Of validation data that the machine was not trained on, in nats, `[n]`.
        num_particles: K of the estimates. Those that are compared with them must have the same,
            as a log-likelihood is on average the lower the fewer particles it is from.

    Raises:
        UserError: If there are none, or some are NaN.

    Example:
    ```python
    calibration = machine.calibrate(x_validation)
    scores = machine.predict(x, num_particles=calibration.num_particles)
    calibration.tail_probability(scores) < 0.01                   # [N]: the odd rows
    ```

    Reference:
        - [Bates et al., 2023](https://arxiv.org/abs/2104.08279), conformal p-values for outliers
    """

    def __init__(self, log_likelihoods: np.ndarray, num_particles: int):
        found = np.sort(np.asarray(log_likelihoods, np.float32))
        if found.ndim != 1 or not len(found) or np.isnan(found).any():
            raise UserError(
                "A calibration needs the log-likelihoods of one row or more, none of them NaN; "
                f"got shape {list(found.shape)}."
            )
        found = _finite(found)
        self.num_data, self.num_particles = len(found), num_particles
        self._ranks = _kept_ranks(len(found))
        self._kept = found[self._ranks - 1]

    def tail_probability(self, log_likelihood: tf.Tensor) -> tf.Tensor:
        """The share of normal rows that are as improbable, or more; float32 `[N]` in (0, 1].

        Args:
            log_likelihood: In nats, `[N]`.
        """
        return self._share(log_likelihood, self._kept, self._ranks)

    def two_sided_probability(self, log_likelihood: tf.Tensor) -> tf.Tensor:
        """As `tail_probability`, of rows that are too improbable or too probable.

        It is small also where a row is more probable than almost all normal ones, as blank images
        are.
        """
        mirrored = self._share(
            -tf.convert_to_tensor(log_likelihood),
            -self._kept[::-1],
            self.num_data + 1 - self._ranks[::-1],
        )
        both = tf.minimum(self.tail_probability(log_likelihood), mirrored)
        return tf.minimum(2.0 * both, 1.0)

    def _share(self, values, kept, ranks):
        """`(1 + c) / (n + 1)` with c the greatest number of normal rows up to each value."""
        values = tf.cast(values, tf.float32)
        passed = tf.searchsorted(tf.constant(kept), _finite(values), side="right")
        most = tf.gather(tf.constant(np.append(ranks, self.num_data + 1) - 1, tf.float32), passed)
        # NaN, of a row that the machine does not model, stays NaN.
        nothing = tf.where(tf.math.is_nan(values), values, 0.0)
        return (1.0 + most) / (self.num_data + 1.0) + nothing

    def get_config(self) -> dict[str, Any]:
        """The calibration as JSON can hold it."""
        return {
            "num_particles": self.num_particles,
            "num_data": self.num_data,
            "log_likelihoods": [float(f"{value:.9g}") for value in self._kept],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Calibration:
        """The calibration of what `get_config` gave."""
        made = cls(np.array(config["log_likelihoods"]), config["num_particles"])
        made.num_data = config["num_data"]
        made._ranks = _kept_ranks(made.num_data)
        return made


def _kept_ranks(num_data: int) -> np.ndarray:
    """Ranks, from 1, of the order statistics that are kept: all of few data."""
    ranks = np.arange(1, num_data + 1)
    if num_data <= 2 * _ENDS + _BETWEEN:
        return ranks
    steps = np.arange(1, _BETWEEN) * (num_data - 2 * _ENDS) // _BETWEEN
    return np.concatenate([ranks[:_ENDS], ranks[_ENDS + steps], ranks[-_ENDS:]])


def _finite(values: Any) -> Any:
    """The values with the least and the greatest number for infinite ones, which JSON lacks."""
    most = np.finfo(np.float32).max
    return (
        tf.clip_by_value(values, -most, most) if tf.is_tensor(values) else values.clip(-most, most)
    )
