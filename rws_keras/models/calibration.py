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

    A tail probability is the conformal p-value: the share, among the n validation rows and the row
    itself, of rows that are at most as probable as the row. For new rows from the distribution of
    the validation rows, the probability that it is at most α is at most α, for any machine and any
    n: a threshold of 0.01 gives a false-alarm rate of at most 1 %. It is never below 1 / (n + 1).
    (If the same rows were used to choose the epoch to keep, this holds only approximately.)

    Args:
        log_likelihoods: Of validation data that the machine was not trained on, in nats, `[n]`.
        num_particles: K of the estimates. Estimates that are compared with them must have the same
            K, because with fewer particles a log-likelihood is lower on average.

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
        values = np.sort(np.asarray(log_likelihoods, np.float32))
        if values.ndim != 1 or not len(values) or np.isnan(values).any():
            raise UserError(
                "A calibration needs the log-likelihoods of at least one row, none of them NaN; "
                f"got shape {list(values.shape)}."
            )
        values = _finite(values)
        self.num_data, self.num_particles = len(values), num_particles
        self._ranks = _kept_ranks(len(values))
        self._kept = values[self._ranks - 1]

    def tail_probability(self, log_likelihood: tf.Tensor) -> tf.Tensor:
        """The share of normal rows that are at most as probable; float32 `[N]` in (0, 1].

        Args:
            log_likelihood: In nats, `[N]`.
        """
        return self._share(log_likelihood, self._kept, self._ranks)

    def two_sided_probability(self, log_likelihood: tf.Tensor) -> tf.Tensor:
        """As `tail_probability`, of rows that are too improbable or too probable.

        It is also small if a row is more probable than almost all normal ones, as blank images are.
        """
        mirrored = self._share(
            -tf.convert_to_tensor(log_likelihood),
            -self._kept[::-1],
            self.num_data + 1 - self._ranks[::-1],
        )
        both = tf.minimum(self.tail_probability(log_likelihood), mirrored)
        return tf.minimum(2.0 * both, 1.0)

    @property
    def shares(self) -> np.ndarray:
        """What share of the data each of the log-likelihoods in `get_config` stands for.

        Of many data not all are kept: one in the middle stands for its neighbours too.
        """
        return np.diff(self._ranks, prepend=0) / self.num_data

    def _share(self, values, kept, ranks):
        """`(1 + c) / (n + 1)` with c the greatest number of normal rows up to each value."""
        values = tf.cast(values, tf.float32)
        passed = tf.searchsorted(tf.constant(kept), _finite(values), side="right")
        most = tf.gather(tf.constant(np.append(ranks, self.num_data + 1) - 1, tf.float32), passed)
        # The NaN of a row that the machine does not model stays NaN.
        nothing = tf.where(tf.math.is_nan(values), values, 0.0)
        return (1.0 + most) / (self.num_data + 1.0) + nothing

    def get_config(self) -> dict[str, Any]:
        """The calibration in a form for JSON."""
        return {
            "num_particles": self.num_particles,
            "num_data": self.num_data,
            "log_likelihoods": [float(f"{value:.9g}") for value in self._kept],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Calibration:
        """The calibration from what `get_config` returned."""
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
