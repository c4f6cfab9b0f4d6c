"""Evaluating a model of data the Keras way."""

from __future__ import annotations

import inspect
import itertools
import threading
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rws_keras.arrays import check_sample_weight, is_source
from rws_keras.checks import check_positive_integer, check_precision
from rws_keras.errors import UserError
from rws_keras.layers.noise import Seed
from rws_keras.models.evaluation import Evaluating
from rws_keras.models.metrics import MachineMetrics
from rws_keras.models.particles import Statistics
from rws_keras.models.progress import with_progress_bar
from rws_keras.models.step_seeds import next_seed, seed_variable

NO_TARGETS = (
    "A Helmholtz machine takes no targets: it models only the data. Pass row weights as "
    "`sample_weight`, in `validation_data` as (x, None, sample_weight), and in datasets as a dict "
    "of `x` and `sample_weight`."
)
_NO_CLASSES = "A Helmholtz machine has no classes: it takes no `class_weight`."


class ZeroProbabilityWarning(UserWarning):
    """The machine, or every particle, gives some data the probability zero."""


class Evaluator(keras.Model):
    """`evaluate` and `predict`.

    It owns the noise and the metrics of evaluations, and knows the model that it evaluates only
    by the three members that raise `NotImplementedError` here.

    Args:
        num_latent_layers: The number of latent layers, for the metrics.
        name: Name of the model.
    """

    def __init__(self, num_latent_layers: int, name: str | None = None):
        super().__init__(name=name)
        check_precision(self)
        self.statistics = MachineMetrics(num_latent_layers)
        # K of `evaluate` and `predict`.
        self.num_particles = 100
        self._has_strategy = tf.distribute.has_strategy()
        # The evaluation that is under way in a thread. It is apart from the training:
        # evaluating does not change how training goes on.
        self._thread = threading.local()
        # Where a distribution strategy evaluates, its K and its noise are variables: one thread
        # after the other.
        self._evaluation_lock = threading.RLock()
        self._evaluation_particles = tf.Variable(100, trainable=False, dtype=tf.int32)
        self._evaluation_seed = seed_variable(0)

    # The model.

    def check_data(self, x: object) -> tf.Tensor:
        """Returns data as a float32 tensor `[N, visible]`, or raises a `UserError`."""
        raise NotImplementedError

    def checked_rows(self, x: object) -> Any:
        """Returns data as an array `[N, visible]` of their own dtype, or raises a `UserError`."""
        raise NotImplementedError

    def estimate(self, x: tf.Tensor, num_particles: tf.Tensor, seed: tf.Tensor) -> Statistics:
        """The statistics of checked data from `num_particles` particles per datum."""
        raise NotImplementedError

    @property
    def num_particles(self) -> int:
        """K of `evaluate`, `predict` and the validation during `fit`."""
        return self._num_particles

    @num_particles.setter
    def num_particles(self, value: int) -> None:
        self._num_particles = check_positive_integer(value, "num_particles")

    # What Keras asks for.

    @property
    def metrics(self) -> list:
        return [getattr(self._thread, "metrics", self.statistics)]

    @property
    def metrics_names(self) -> list[str]:
        """Names of what `evaluate` returns as a list, in its order."""
        return list(self.statistics.result())

    def _maybe_symbolic_build(self, *args, **kwargs):
        """Does nothing: a machine is built as soon as it is made.

        Under a distribution strategy Keras would build it from a batch averaged over the
        replicas, for which they would need equal numbers of rows.
        """

    def _is_distributed(self):
        return self._has_strategy or tf.distribute.has_strategy()

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """The log-likelihood of each datum in nats `[N]`, with the compiled K."""
        seed = next_seed(self._evaluation_seed)
        return self.estimate(self._unpack(x)[0], self.num_particles, seed).log_likelihood

    def compute_output_shape(self, input_shape):
        return (input_shape[0],)

    # The public methods.

    def evaluate(
        self, x=None, *args, num_particles: int | None = None, seed: Seed = 0, **kwargs
    ) -> dict | list:
        """Estimates the mean log-likelihood; arguments as in `keras.Model.evaluate`.

        The memory needed does not grow with `num_particles`, and another number of particles
        needs no new trace. The result depends on the seed and the batch size only, not on what
        was trained or evaluated before. The machine need not be compiled. Several threads may
        evaluate at the same time, each with its own K.

        Args:
            x: Data `[N, visible]`, as in Keras.
            *args: As in Keras.
            num_particles: K; the compiled `num_particles` by default.
            seed: Seeds the particles: an integer, an int32 tensor `[2]`, or `None` for a fresh
                seed.
            **kwargs: As in Keras. A row of `sample_weight` w counts as w rows, in the means
                and in the standard error. With `return_dict=True` the result names what it
                holds: `log_likelihood` in nats per datum with `log_likelihood_se`, its standard
                error over the data, `num_particles`, `num_data`, and more.

        Returns:
            A dict, or a list of floats in the order of `metrics_names`, the log-likelihood
            first.

        Raises:
            UserError: If arrays among the data are not data of the machine's width and kind, or
                targets are given.
        """
        arguments = self._arguments_of(keras.Model.evaluate, x, *args, **kwargs)
        return_dict = arguments.pop("return_dict", False)
        in_fit = arguments.get("_use_cached_eval_dataset", False)
        with Evaluating(self, num_particles, seed):
            result = super().evaluate(**with_progress_bar(arguments), return_dict=True)
        if not result["num_data"]:
            raise UserError(
                "All of `sample_weight` is zero: at least one row needs a positive weight."
            )
        if not in_fit:  # which warns once for all epochs
            warn_of_zero_probability([result["log_likelihood"]])
        return result if return_dict else self._in_order(result)

    def predict(
        self, x, *args, num_particles: int | None = None, seed: Seed = 0, **kwargs
    ) -> np.ndarray:
        """The log-likelihood of each datum; arguments as in `keras.Model.predict`.

        What `evaluate` says of memory, traces, seeds and threads holds here too. Where the
        batches have weights, these make no difference to a row's own likelihood.

        Args:
            x: Data `[N, visible]`, as in Keras.
            *args: As in Keras.
            num_particles: K; the compiled `num_particles` by default.
            seed: Seeds the particles: an integer, an int32 tensor `[2]`, or `None` for a fresh
                seed.
            **kwargs: As in Keras.

        Returns:
            A NumPy array `[N]`, in nats.
        """
        arguments = self._arguments_of(keras.Model.predict, x, *args, **kwargs)
        with Evaluating(self, num_particles, seed):
            scores = super().predict(**arguments)
        warn_of_zero_probability(scores)
        return scores

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False) -> dict | list:
        """As `evaluate`, for one batch and with the compiled K."""
        arguments = self._arguments_of(keras.Model.test_on_batch, x, y, sample_weight)
        with Evaluating(self, None, 0):
            result = super().test_on_batch(**arguments, return_dict=True)
        return result if return_dict else self._in_order(result)

    def predict_on_batch(self, x) -> np.ndarray:
        """As `predict`, for one batch and with the compiled K."""
        with Evaluating(self, None, 0):
            return super().predict_on_batch(self._checked(x))

    def _in_order(self, result):
        """The values of `metrics_names`, then what a step of a subclass has added."""
        names = self.metrics_names
        return [result[name] for name in (*names, *sorted(set(result) - set(names)))]

    # Arguments and batches.

    def _arguments_of(self, method, *args, **kwargs):
        """The arguments of one of Keras's methods by name, the data and their weights checked."""
        arguments = dict(inspect.signature(method).bind(self, *args, **kwargs).arguments)
        del arguments["self"]
        arguments.update(arguments.pop("kwargs", {}))
        if arguments.get("y") is not None:
            raise UserError(NO_TARGETS)
        if arguments.get("class_weight") is not None:
            raise UserError(_NO_CLASSES)
        # Again in each epoch of `fit`: the iterator over them is there already.
        if not arguments.get("_use_cached_eval_dataset"):
            weight = arguments.pop("sample_weight", None)
            arguments["x"] = self._with_weight(arguments.get("x"), weight)
        return arguments

    def _checked(self, x):
        """Arrays as `[N, visible]`; a source of batches as it is, if it yields such."""
        if not is_source(x):
            return self.checked_rows(x)
        if isinstance(x, tf.data.Dataset):
            unpack = tf.function(self._unpack, autograph=False)
            unpack.get_concrete_function(x.element_spec)
        return x

    def _with_weight(self, x, sample_weight):
        """Data for Keras, the weights beside them: without targets it would drop these."""
        x = self._checked(x)
        if sample_weight is None:
            return x
        if is_source(x):
            raise UserError(
                "`sample_weight` works only with arrays. Let a dataset yield dicts of `x` and "
                "`sample_weight`."
            )
        sample_weight = check_sample_weight(sample_weight, x.shape[0])
        if not tf.reduce_any(sample_weight > 0.0):
            raise UserError(
                "All of `sample_weight` is zero: at least one row needs a positive weight."
            )
        return {"x": x, "sample_weight": sample_weight}

    def _unpack(self, batch):
        """The data of a batch as `[N, visible]`, and their weights `[N]` or `None`."""
        x, y, sample_weight = map(_present, keras.utils.unpack_x_y_sample_weight(batch))
        if y is not None:
            raise UserError(NO_TARGETS)
        if isinstance(x, dict) and set(x) == {"x", "sample_weight"}:
            x, sample_weight = x["x"], x["sample_weight"]
        x = self.check_data(x)
        return x, None if sample_weight is None else check_sample_weight(sample_weight, x.shape[0])

    # Each batch.

    def make_test_function(self, force: bool = False):
        """Makes the function that `evaluate` calls for each batch, or several."""
        if self._is_distributed():
            return super().make_test_function(force)

        def test(iterator):
            batches = list(itertools.islice(iterator, self.steps_per_execution))
            if not batches:
                raise StopIteration
            for batch in batches:
                x, sample_weight = self._unpack(batch)
                self._thread.metrics.update_state(
                    self._estimate_next(x), self._thread.num_particles, sample_weight
                )
            return self._thread.metrics.result()

        self.test_function = test
        return test

    def make_predict_function(self, force: bool = False):
        """Makes the function that `predict` calls for each batch, or several."""
        if self._is_distributed():
            return super().make_predict_function(force)

        def predict(batches):
            return tf.concat(
                [self._estimate_next(self._unpack(batch)[0]).log_likelihood for batch in batches],
                axis=0,
            )

        self.predict_function = predict
        return predict

    def _estimate_next(self, x):
        """The statistics of the next batch of this thread's evaluation."""
        seed = self._thread.seed
        self._thread.seed = seed + tf.constant([0, 1])
        return self.estimate(x, self._thread.num_particles, seed)

    def test_step(self, data):
        """Estimates the likelihood of a batch under a distribution strategy."""
        x, sample_weight = self._unpack(data)
        statistics = self._estimate_distributed(x)
        self.statistics.update_state(statistics, self._evaluation_particles, sample_weight)
        return self._report()

    def predict_step(self, data):
        return self._estimate_distributed(self._unpack(data)[0]).log_likelihood

    def _estimate_distributed(self, x):
        return self.estimate(x, self._evaluation_particles, next_seed(self._evaluation_seed))

    def _report(self):
        result = self.statistics.result()
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            # Keras averages what the workers report over a first axis.
            result = {name: value[None] for name, value in result.items()}
        return result


def _present(part):
    """Part of a batch; `None` where Keras has put an `Optional` for it, as for generators'."""
    return None if isinstance(part, tf.experimental.Optional) else part


def warn_of_zero_probability(scores: np.ndarray | list[float]) -> None:
    """Warns if there are log-likelihoods of -inf, or means of them."""
    if impossible := int(np.sum(np.equal(scores, -np.inf))):
        warnings.warn(
            f"{impossible} of {len(scores)} log-likelihoods are -inf: no particle gives the datum "
            "a probability above zero. Look for infinite or very large weights in P.",
            ZeroProbabilityWarning,
            stacklevel=3,
        )
