"""What `fit` and `evaluate` report of a Helmholtz machine."""

from __future__ import annotations

import keras
import tensorflow as tf

from rws_keras.models.particles import Statistics


class MachineMetrics(keras.metrics.Metric):
    """Means over the data of a machine's statistics, all in one vector of sums.

    `result()` is a dict: `log_likelihood`, `log_likelihood_se` (its standard error over the
    data), `loss` (the negative log-likelihood), `elbo`, `ess`, `kl_l` and
    `entropy_l` of each latent layer l (1 is the lowest), `num_particles` and `num_data`. All
    but the effective sample size and the counts are in nats per datum.

    Args:
        num_latent_layers: The number of latent layers.
        name: Name of the metric.
    """

    def __init__(self, num_latent_layers: int, name: str = "machine_metrics"):
        super().__init__(name=name, dtype="float64")
        self.num_latent_layers = num_latent_layers
        layers = range(1, num_latent_layers + 1)
        self.names = [
            "log_likelihood",
            "elbo",
            "ess",
            *(f"kl_{layer}" for layer in layers),
            *(f"entropy_{layer}" for layer in layers),
            "num_particles",
        ]
        self.count = self._add_sum("count", ())
        self.total = self._add_sum("total", (len(self.names),))
        self.squares = self._add_sum("squares", ())

    def _add_sum(self, name, shape):
        # Keras gives a metric's variables `floatx`, whatever the metric's own dtype is.
        return self.add_weight(name=name, shape=shape, initializer="zeros", dtype="float64")

    def fresh(self) -> MachineMetrics:
        """A new metric of the same kind, without any data."""
        return MachineMetrics(self.num_latent_layers, self.name)

    def update_state(
        self,
        statistics: Statistics,
        num_particles: int | tf.Tensor,
        sample_weight: tf.Tensor | None = None,
    ) -> None:
        """Adds a batch whose statistics come from `num_particles` particles per datum.

        A datum of weight w counts as w data; one of weight 0 does not count.
        """
        columns = [
            statistics.log_likelihood,
            statistics.elbo,
            statistics.effective_sample_size,
            *statistics.kl,
            *statistics.entropy,
            tf.fill(tf.shape(statistics.elbo), tf.cast(num_particles, tf.float32)),
        ]
        values = tf.cast(tf.stack(columns), tf.float64)
        count, squares = tf.cast(tf.shape(values)[1], tf.float64), values[0] ** 2
        if sample_weight is not None:
            weight = tf.cast(sample_weight, tf.float64)
            count = tf.reduce_sum(weight)
            values = tf.math.multiply_no_nan(values, weight)
            squares = tf.math.multiply_no_nan(squares, weight)
        self.count.assign_add(count)
        self.total.assign_add(tf.reduce_sum(values, axis=1))
        self.squares.assign_add(tf.reduce_sum(squares))

    def result(self) -> dict[str, tf.Tensor]:
        count = tf.convert_to_tensor(self.count)
        means = tf.unstack(tf.math.divide_no_nan(tf.convert_to_tensor(self.total), count))
        # float64 leaves eight digits to the difference of the squares.
        variance = tf.maximum(tf.math.divide_no_nan(self.squares, count) - means[0] ** 2, 0.0)
        standard_error = tf.sqrt(variance / tf.maximum(count - 1.0, 1.0))
        named = dict(zip(self.names, means, strict=True))
        return {
            "log_likelihood": named["log_likelihood"],
            "log_likelihood_se": standard_error,
            "loss": -named.pop("log_likelihood"),
            **named,
            "num_data": count,
        }
