"""Training and evaluating a model of data the Keras way."""

from __future__ import annotations

import inspect
import itertools
import random
import threading
import types
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rws_keras.checks import check_positive_integer
from rws_keras.errors import UserError
from rws_keras.layers.noise import Seed
from rws_keras.models.evaluation import Evaluating
from rws_keras.models.metrics import MachineMetrics
from rws_keras.models.particles import Statistics, statistics_of
from rws_keras.models.progress import with_progress_bar
from rws_keras.models.step_seeds import next_seed, seed_variable

_X_ONLY = (
    "A Helmholtz machine models the data alone: pass `x` only, without targets or sample weights."
)


class Trainer(keras.Model):
    """`compile`, `fit`, `evaluate` and `predict`.

    It owns the objective, the optimizers, the noise and the metrics, and knows the model that it
    trains only by the four members that raise `NotImplementedError` here. The model, which is
    the subclass, uses nothing of the trainer's.

    Args:
        num_latent_layers: The number of latent layers, for the metrics.
        seed: Seeds the noise of the training, see `layers.noise.stateless_seed`; a random one
            if `None`.
        name: Name of the model.
    """

    def __init__(self, num_latent_layers: int, seed: Seed = None, name: str | None = None):
        super().__init__(name=name)
        # Counted up step by step, and saved: training goes on with the noise it would have
        # had without an interruption.
        self.noise_seed = seed_variable(random.randrange(2**31) if seed is None else seed)
        self.statistics = MachineMetrics(num_latent_layers)
        self._objective: Any = None
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

    train_function: Any

    # The model.

    def check_data(self, x: object) -> tf.Tensor:
        """Returns data as a float32 tensor `[N, visible]`, or raises a `UserError`."""
        raise NotImplementedError

    def estimate(self, x: tf.Tensor, num_particles: tf.Tensor, seed: tf.Tensor) -> Statistics:
        """The statistics of checked data from so many particles a datum."""
        raise NotImplementedError

    @property
    def q_variables(self) -> list[keras.Variable]:
        """The variables that a `q_optimizer` updates."""
        raise NotImplementedError

    # Compiling.

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "objective":
            raise UserError("Change the objective by compile(optimizer, objective).")
        super().__setattr__(name, value)

    @property
    def objective(self) -> Any:
        """The objective that the machine is compiled with, or `None`."""
        return self._objective

    @property
    def num_particles(self) -> int:
        """K of `evaluate`, `predict` and the validation during `fit`."""
        return self._num_particles

    @num_particles.setter
    def num_particles(self, value: int) -> None:
        self._num_particles = check_positive_integer(value, "num_particles")

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        objective: keras.layers.Layer | None = None,
        q_optimizer: str | keras.optimizers.Optimizer | None = None,
        num_particles: int = 100,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool = True,
    ) -> None:
        """Configures the machine for training and evaluation.

        Args:
            optimizer: Keras optimizer, or its name.
            objective: An `rws_keras.objectives.Objective`. Only `fit` needs it.
            q_optimizer: An optimizer of its own for the Q layers; by default `optimizer`
                updates both stacks.
            num_particles: K of `evaluate`, `predict` and the validation during `fit`.
            run_eagerly: As in Keras.
            steps_per_execution: As in Keras.
            jit_compile: Whether XLA compiles the training step, which takes some seconds for
                each size of batch and each K. The noise of a step is drawn outside of it in
                any case: on many CPUs XLA's random generator is far slower than TensorFlow's.

        Raises:
            UserError: If the objective is not one, or does not fit the machine.
        """
        self.num_particles = num_particles
        self._set_objective(objective)
        # Not a dict, whose layers Keras would track a second time.
        self._compile_arguments = types.SimpleNamespace(
            optimizer=optimizer,
            objective=objective,
            q_optimizer=q_optimizer,
            num_particles=self.num_particles,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
        )
        self._compiled_learn, self._compiled_differentiate = (
            step
            if run_eagerly
            else tf.function(step, jit_compile=jit_compile, reduce_retracing=True, autograph=False)
            for step in (self._learn, self._differentiate)
        )
        super().compile(
            optimizer=self._join_optimizers(optimizer, q_optimizer),
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=False,
        )
        # Now, not in the first step: under a distribution strategy that one runs in replicas.
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)

    def _set_objective(self, objective):
        if objective is not None:
            is_layer = isinstance(objective, keras.layers.Layer)
            if not is_layer or not hasattr(objective, "gradients"):
                raise UserError(
                    "`objective` must be an rws_keras.objectives.Objective, for instance "
                    f"ReweightedWakeSleep(num_particles=5); got {objective!r}."
                )
            objective.prepare(self)
        if self._objective is not None:
            # Keras does not do so where an attribute is replaced.
            self._tracker.untrack(self._objective)
        self._objective = objective

    def _join_optimizers(self, p_optimizer, q_optimizer):
        p_optimizer = keras.optimizers.get(p_optimizer)
        if q_optimizer is None:
            return p_optimizer
        everywhere = [variable.path for variable in self.trainable_variables]
        if len(set(everywhere)) < len(everywhere):
            raise UserError("With a `q_optimizer` the layers need names of their own.")
        paths = [variable.path for variable in self.q_variables]
        q_optimizer = keras.optimizers.get(q_optimizer)
        return keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(p_optimizer, dict.fromkeys(paths, q_optimizer))
        )

    def get_compile_config(self) -> dict | None:
        if not self.compiled:
            return None
        return keras.saving.serialize_keras_object(vars(self._compile_arguments))

    def compile_from_config(self, config: dict) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))

    def save_own_variables(self, store) -> None:
        store["seed_state"] = self.noise_seed.numpy()

    def load_own_variables(self, store) -> None:
        self.noise_seed.assign(np.asarray(store["seed_state"], np.int32))

    # What Keras asks for.

    @property
    def metrics(self) -> list:
        return [getattr(self._thread, "metrics", self.statistics)]

    def _maybe_symbolic_build(self, *args, **kwargs):
        """Does nothing: a machine is built as soon as it is made.

        Under a distribution strategy Keras would build it from a batch averaged over the
        replicas, for which they would need equal numbers of rows.
        """

    def _assert_compile_called(self, method_name=None):
        """Lets a machine that is not compiled be evaluated; to train it needs an objective."""
        if method_name in ("evaluate", "test_on_batch"):
            return
        if self.objective is None:
            raise UserError(
                f"`{method_name}` needs an objective: call compile(optimizer, objective) first, "
                "for instance with rws_keras.objectives.ReweightedWakeSleep(num_particles=5)."
            )

    def _is_distributed(self):
        return self._has_strategy or tf.distribute.has_strategy()

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """The log-likelihood of each datum in nats `[N]`, with the compiled K."""
        seed = next_seed(self._evaluation_seed)
        return self.estimate(self._unpack(x), self.num_particles, seed).likelihood.log_likelihood

    def compute_output_shape(self, input_shape):
        return (input_shape[0],)

    # Training.

    def make_train_function(self, force: bool = False):
        """Makes the function that `fit` calls for each step.

        A step is traced once for each combination of the objective's settings, so that one
        that changes, K for instance, takes effect with the next step.
        """
        if self.train_function is None or force:
            steps: dict = {}

            def train(iterator):
                settings = self.objective.current_settings
                if settings not in steps:
                    self.objective.check_settings()
                    steps[settings] = self._make_step()
                return steps[settings](iterator)

            self.train_function = train
        return self.train_function

    def _make_step(self):
        """Keras's own step, but in the usual case.

        One step at a time without a distribution strategy, it saves a tenth of a small
        machine's time to read the batch outside of the step's graph.
        """
        if not (self._is_distributed() or self.run_eagerly or self.steps_per_execution > 1):
            step = tf.function(self.train_step, reduce_retracing=True, autograph=False)
            return lambda iterator: step(next(iterator))
        usual: Any = self.train_function
        super().make_train_function(force=True)
        step, self.train_function = self.train_function, usual
        return step

    def train_step(self, data):
        """Applies the objective's gradients once."""
        x = self._unpack(data)
        noise = self.objective.noise(self, tf.shape(x)[0], next_seed(self.noise_seed))
        if tf.distribute.has_strategy():
            return self._learn_together(x, noise)
        return self._compiled_learn(x, noise, self.objective.current_settings)

    def _differentiate(self, x, noise, settings):
        """Gradients and particles; the settings are only there to tell traces apart."""
        del settings
        return self.objective.gradients(self, x, noise)

    def _apply(self, x, gradients, particles):
        # TensorFlow's graph optimizer can lose the order between reading a weight for a
        # sample and updating it, where the update does not use the sample. The order is
        # stated here, lest a sample now and then come from a half-updated machine.
        statistics = statistics_of(particles)
        with tf.control_dependencies([*gradients, *tf.nest.flatten(statistics)]):
            self.optimizer.apply(gradients, self.trainable_variables)
            self.objective.update(self, x, particles)
        self.statistics.update_state(statistics, self.objective.num_particles)
        return self._report()

    def _learn(self, x, noise, settings):
        return self._apply(x, *self._differentiate(x, noise, settings))

    def _learn_together(self, x, noise):
        """The step of one of several replicas, whose gradients the optimizer adds up."""
        settings = self.objective.current_settings
        gradients, particles = self._compiled_differentiate(x, noise, settings)
        # They are means over the data of a replica, which may have more or fewer than
        # another: weighted by its share they add up to the mean over all.
        num_data = tf.cast(tf.shape(x)[0], tf.float32)
        replica = tf.distribute.get_replica_context()
        share = num_data / replica.all_reduce(tf.distribute.ReduceOp.SUM, num_data)
        return self._apply(x, [share * gradient for gradient in gradients], particles)

    def _report(self):
        result = self.statistics.result()
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            # Keras averages what the workers report over a first axis.
            result = {name: value[None] for name, value in result.items()}
        return result

    def fit(self, x=None, *args, **kwargs) -> keras.callbacks.History:
        """Trains the machine; arguments as in `keras.Model.fit`, without targets or weights.

        Raises:
            UserError: If the machine is not compiled with an objective, arrays among the data
                are not data of the machine's width and kind (a `tf.data` pipeline is checked
                batch by batch, with a `tf.errors.InvalidArgumentError`), or targets or weights
                are given.
        """
        arguments = self._arguments_of(keras.Model.fit, x, *args, **kwargs)
        self._check_arrays(x, arguments.get("validation_data"))
        return super().fit(**with_progress_bar(arguments))

    def _arguments_of(self, method, *args, **kwargs):
        """The arguments of one of Keras's methods by name; none that would have no effect."""
        arguments = dict(inspect.signature(method).bind(self, *args, **kwargs).arguments)
        del arguments["self"]
        arguments.update(arguments.pop("kwargs", {}))
        for name in ("y", "sample_weight", "class_weight"):
            if arguments.get(name) is not None:
                raise UserError(f"{_X_ONLY} Got `{name}`.")
        return arguments

    # Evaluating.

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
            **kwargs: As in Keras. With `return_dict=True` the result names what it holds:
                `log_likelihood` in nats per datum with `log_likelihood_se`, its standard
                error over the data, `num_particles`, `num_data`, and more.

        Returns:
            A dict or a list of floats, as in Keras.
        """
        arguments = self._arguments_of(keras.Model.evaluate, x, *args, **kwargs)
        self._check_arrays(x)
        with Evaluating(self, num_particles, seed):
            return super().evaluate(**with_progress_bar(arguments))

    def predict(
        self, x, *args, num_particles: int | None = None, seed: Seed = 0, **kwargs
    ) -> np.ndarray:
        """The log-likelihood of each datum; arguments as in `keras.Model.predict`.

        What `evaluate` says of memory, traces, seeds and threads holds here too.

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
        self._check_arrays(x)
        with Evaluating(self, num_particles, seed):
            return super().predict(x, *args, **kwargs)

    def test_on_batch(self, x, *args, **kwargs) -> dict | list:
        """As `evaluate`, for one batch and with the compiled K."""
        with Evaluating(self, None, 0):
            return super().test_on_batch(x, *args, **kwargs)

    def predict_on_batch(self, x) -> np.ndarray:
        """As `predict`, for one batch and with the compiled K."""
        with Evaluating(self, None, 0):
            return super().predict_on_batch(x)

    def make_test_function(self, force: bool = False):
        """Makes the function that `evaluate` calls for each batch, or several."""
        if self._is_distributed():
            return super().make_test_function(force)

        def test(iterator):
            batches = list(itertools.islice(iterator, self.steps_per_execution))
            if not batches:
                raise StopIteration
            for batch in batches:
                self._thread.metrics.update_state(
                    self._estimate_next(batch), self._thread.num_particles
                )
            return self._thread.metrics.result()

        self.test_function = test
        return test

    def make_predict_function(self, force: bool = False):
        """Makes the function that `predict` calls for each batch, or several."""
        if self._is_distributed():
            return super().make_predict_function(force)

        def predict(batches):
            scores = [self._estimate_next(batch).likelihood.log_likelihood for batch in batches]
            return tf.concat(scores, axis=0)

        self.predict_function = predict
        return predict

    def _estimate_next(self, batch):
        """The statistics of the next batch of this thread's evaluation."""
        seed = self._thread.seed
        self._thread.seed = seed + tf.constant([0, 1])
        return self.estimate(self._unpack(batch), self._thread.num_particles, seed)

    def test_step(self, data):
        """Estimates the likelihood of a batch under a distribution strategy."""
        statistics = self._estimate_distributed(data)
        self.statistics.update_state(statistics, self._evaluation_particles)
        return self._report()

    def predict_step(self, data):
        return self._estimate_distributed(data).likelihood.log_likelihood

    def _estimate_distributed(self, data):
        seed = next_seed(self._evaluation_seed)
        return self.estimate(self._unpack(data), self._evaluation_particles, seed)

    def _unpack(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is not None or sample_weight is not None:
            raise UserError(_X_ONLY)
        return self.check_data(x)

    def _check_arrays(self, *data):
        for x in data:
            if isinstance(x, np.ndarray | list | tf.Tensor):
                self.check_data(x)
