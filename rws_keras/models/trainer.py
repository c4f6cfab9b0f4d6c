"""Training and evaluating a machine the Keras way."""

from __future__ import annotations

import random

import keras
import numpy as np
import tensorflow as tf

from rws_keras.checks import check_binary, check_positive_integer
from rws_keras.errors import UserError
from rws_keras.models.metrics import MachineMetrics
from rws_keras.models.particles import statistics_of


class MachineTrainer(keras.Model):
    """`compile`, `fit`, `evaluate` and `predict` of a machine.

    The machine itself, with its layers and its particles, is the subclass
    `HelmholtzMachine`.
    """

    def _prepare_training(self, num_latent_layers: int, seed: int | None) -> None:
        # Counted up step by step, and saved: training goes on with the noise it would have
        # had without an interruption.
        self.noise_seed = _seed_variable(random.randrange(2**31) if seed is None else seed)
        self.statistics = MachineMetrics(num_latent_layers)
        self._has_strategy = tf.distribute.has_strategy()
        self.objective = None
        self.num_particles = 100
        # Seed of the noise in `evaluate` and `predict`, counted up batch by batch. It is
        # apart from the training noise: evaluating does not change how training goes on.
        self._evaluation_seed = _seed_variable(0)

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        objective=None,
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
                each size of batch. The noise of a step is drawn outside of it in any case: on
                many CPUs XLA's random generator is far slower than TensorFlow's.
        """
        self.num_particles = check_positive_integer(num_particles, "num_particles")
        if objective is not None and not hasattr(objective, "gradients"):
            raise UserError(
                "`objective` must be an rws_keras.objectives.Objective, for instance "
                f"ReweightedWakeSleep(num_particles=5); got {objective!r}."
            )
        self.objective = objective
        self._compile_arguments = {
            "optimizer": optimizer,
            "objective": objective,
            "q_optimizer": q_optimizer,
            "num_particles": num_particles,
            "jit_compile": jit_compile,
        }
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

    def _join_optimizers(self, p_optimizer, q_optimizer):
        p_optimizer = keras.optimizers.get(p_optimizer)
        if q_optimizer is None:
            return p_optimizer
        paths = [variable.path for layer in self.q_layers for variable in layer.variables]
        everywhere = [variable.path for variable in self.trainable_variables]
        if len(set(everywhere)) < len(everywhere):
            raise UserError("With a `q_optimizer` the layers need names of their own.")
        q_optimizer = keras.optimizers.get(q_optimizer)
        return keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(p_optimizer, dict.fromkeys(paths, q_optimizer))
        )

    def get_compile_config(self) -> dict | None:
        if not self.compiled:
            return None
        return keras.saving.serialize_keras_object(self._compile_arguments)

    def compile_from_config(self, config: dict) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list:
        return [self.statistics]

    def _maybe_symbolic_build(self, *args, **kwargs):
        """Does nothing: a machine is built as soon as it is made.

        Under a distribution strategy Keras would build it from a batch averaged over the
        replicas, for which they would need equal numbers of rows.
        """

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """The log-likelihood of each datum in nats `[N]`, with the compiled K."""
        return self._evaluate_batch(self._unpack(x)).likelihood.log_likelihood

    def compute_output_shape(self, input_shape):
        return (input_shape[0],)

    def make_train_function(self, force: bool = False):
        """Makes the function that `fit` calls for each step.

        It is Keras's own but in the usual case, one step at a time without a distribution
        strategy: there reading the batch outside of the step's graph saves a tenth of a small
        machine's time.
        """
        distributed = self._has_strategy or tf.distribute.has_strategy()
        if distributed or self.run_eagerly or self.steps_per_execution > 1:
            return super().make_train_function(force)
        if self.train_function is None or force:
            step = tf.function(self.train_step, reduce_retracing=True, autograph=False)
            self.train_function = lambda iterator: step(next(iterator))
        return self.train_function

    def train_step(self, data):
        """Applies the objective's gradients once."""
        x = self._unpack(data)
        noise = self.objective.noise(self, tf.shape(x)[0], _next_seed(self.noise_seed))
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        if tf.distribute.has_strategy():
            return self._learn_together(x, noise)
        return self._compiled_learn(x, noise)

    def _differentiate(self, x, noise):
        gradients, particles = self.objective.gradients(self, x, noise)
        return gradients, statistics_of(particles)

    def _apply(self, gradients, statistics):
        # TensorFlow's graph optimizer can lose the order between reading a weight for a
        # sample and updating it, where the update does not use the sample. The order is
        # stated here, lest a sample now and then come from a half-updated machine.
        with tf.control_dependencies([*gradients, *tf.nest.flatten(statistics)]):
            self.optimizer.apply(gradients, self.trainable_variables)
        self.statistics.update_state(statistics, self.objective.num_particles)
        return self._report()

    def _learn(self, x, noise):
        return self._apply(*self._differentiate(x, noise))

    def _learn_together(self, x, noise):
        """The step of one of several replicas, whose gradients the optimizer adds up."""
        gradients, statistics = self._compiled_differentiate(x, noise)
        # They are means over the data of a replica, which may have more or fewer than
        # another: weighted by its share they add up to the mean over all.
        num_data = tf.cast(tf.shape(x)[0], tf.float32)
        replica = tf.distribute.get_replica_context()
        share = num_data / replica.all_reduce(tf.distribute.ReduceOp.SUM, num_data)
        return self._apply([share * gradient for gradient in gradients], statistics)

    def test_step(self, data):
        """Estimates the likelihood of a batch."""
        statistics = self._evaluate_batch(self._unpack(data))
        self.statistics.update_state(statistics, self.num_particles)
        return self._report()

    def _report(self):
        result = self.statistics.result()
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            # Keras averages what the workers report over a first axis.
            result = {name: value[None] for name, value in result.items()}
        return result

    def _evaluate_batch(self, x):
        return self._stream(x, self.num_particles, _next_seed(self._evaluation_seed))[0]

    def predict_step(self, data):
        return self(data)

    def _unpack(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is not None or sample_weight is not None:
            raise UserError(
                "A Helmholtz machine models the data alone: pass `x` only, without targets "
                "or sample weights."
            )
        return check_binary(x, self.visible_units)

    def fit(self, x=None, *args, **kwargs) -> keras.callbacks.History:
        """Trains the machine; arguments as in `keras.Model.fit`, without targets.

        Raises:
            ValueError: If the machine is not compiled with an objective, or arrays among
                the data are not binary data of the machine's width. (A `tf.data` pipeline
                is checked batch by batch, with a `tf.errors.InvalidArgumentError`.)
        """
        if self.objective is None:
            raise UserError(
                "`fit` needs an objective: call compile(optimizer, objective) first, for "
                "instance with rws_keras.objectives.ReweightedWakeSleep(num_particles=5)."
            )
        self._check_arrays(x, kwargs.get("validation_data"))
        return super().fit(x, *args, **kwargs)

    def evaluate(
        self, x=None, *args, num_particles: int | None = None, seed: int = 0, **kwargs
    ) -> dict | list:
        """Estimates the mean log-likelihood; arguments as in `keras.Model.evaluate`.

        The memory needed does not grow with `num_particles`. The result depends on the
        seed and the batch size only, not on what was trained or evaluated before.

        Args:
            x: Binary data, as in Keras.
            *args: As in Keras.
            num_particles: K; the compiled `num_particles` by default.
            seed: Integer, seeds the particles.
            **kwargs: As in Keras. With `return_dict=True` the result names what it holds:
                `log_likelihood` in nats per datum with `log_likelihood_se`, its standard
                error over the data, `num_particles`, `num_data`, and more.

        Returns:
            A dict or a list of floats, as in Keras.
        """
        self._check_arrays(x)
        with _Evaluating(self, num_particles, seed):
            return super().evaluate(x, *args, **kwargs)

    def predict(
        self, x, *args, num_particles: int | None = None, seed: int = 0, **kwargs
    ) -> np.ndarray:
        """The log-likelihood of each datum; arguments as in `keras.Model.predict`.

        Args:
            x: Binary data, as in Keras.
            *args: As in Keras.
            num_particles: K; the compiled `num_particles` by default.
            seed: Integer, seeds the particles.
            **kwargs: As in Keras.

        Returns:
            A NumPy array `[N]`, in nats.
        """
        self._check_arrays(x)
        with _Evaluating(self, num_particles, seed):
            return super().predict(x, *args, **kwargs)

    def _check_arrays(self, *data):
        for x in data:
            if isinstance(x, np.ndarray | list | tf.Tensor):
                check_binary(x, self.visible_units)


def _seed_variable(seed):
    """A seed and a counter. Replicas hold the same, and count on together."""
    return tf.Variable(
        # A seed may have 64 bits, as Keras's.
        np.array([seed, 0], np.int64).astype(np.int32),
        trainable=False,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _next_seed(variable):
    """Counts on, and returns the seed of this step: on each replica another."""
    seed = tf.identity(variable)
    variable.assign(seed + tf.constant([0, 1]))
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return seed
    return tf.random.fold_in(seed, replica.replica_id_in_sync_group)


class _Evaluating:
    """Sets K and the seed for the time of one `evaluate` or `predict`."""

    def __init__(self, machine, num_particles, seed):
        self.machine = machine
        self.num_particles = (
            machine.num_particles
            if num_particles is None
            else check_positive_integer(num_particles, "num_particles")
        )
        machine._evaluation_seed.assign([seed, 0])

    def __enter__(self):
        self.usual = self.machine.num_particles
        self._set(self.num_particles)
        if not self.machine.compiled:
            self.machine.compile(num_particles=self.num_particles)

    def __exit__(self, *_):
        self._set(self.usual)

    def _set(self, num_particles):
        # K is part of the traced functions.
        if num_particles != self.machine.num_particles:
            self.machine.num_particles = num_particles
            self.machine.test_function = self.machine.predict_function = None
