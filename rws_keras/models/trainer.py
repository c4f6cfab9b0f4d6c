"""Training a machine with Keras's API."""

from __future__ import annotations

import random
import types
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rws_keras.checks import check_positive_integer
from rws_keras.errors import UserError
from rws_keras.layers.noise import Seed
from rws_keras.layers.stochastic_layer import RefusesActivityRegularizer
from rws_keras.models.evaluator import (
    NO_TARGETS,
    Evaluator,
    warn_of_zero_probability,
)
from rws_keras.models.particles import statistics_of
from rws_keras.models.progress import with_progress_bar
from rws_keras.models.step_seeds import next_seed, seed_variable
from rws_keras.models.weight_states import WeightStates


class Trainer(RefusesActivityRegularizer, Evaluator):
    """`compile` and `fit`.

    It owns the objective, the optimizers and the noise of the training, and knows the model that
    it trains only by the members that raise `NotImplementedError` here and in `Evaluator`. The
    model, which is the subclass, uses nothing of the trainer's.

    Args:
        num_latent_layers: The number of latent layers, for the metrics.
        seed: Seeds the noise of the training, see `layers.noise.stateless_seed`; a random one
            if `None`.
        name: Name of the model.
    """

    def __init__(self, num_latent_layers: int, seed: Seed = None, name: str | None = None):
        super().__init__(num_latent_layers, name)
        # Increased in each step, and saved: after an interruption training continues with the noise
        # that it would have had.
        self.noise_seed = seed_variable(random.randrange(2**31) if seed is None else seed)
        self._objective: Any = None
        self._weight_states = WeightStates()
        self._steps = None

    train_function: Any
    _steps: types.SimpleNamespace | None

    @property
    def q_variables(self) -> list[keras.Variable]:
        """The variables that a `q_optimizer` updates."""
        raise NotImplementedError

    def forget_calibration(self) -> None:
        """Drops what is known about scores with the current weights, which will change."""

    # Compiling.

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "objective":
            raise UserError("Change the objective by compile(optimizer, objective).")
        super().__setattr__(name, value)

    @property
    def objective(self) -> Any:
        """The objective that the machine is compiled with, or `None`."""
        return self._objective

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        objective: keras.layers.Layer | None = None,
        q_optimizer: str | keras.optimizers.Optimizer | None = None,
        num_particles: int = 100,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        **kwargs,
    ) -> None:
        """Configures the machine for training and evaluation.

        Args:
            optimizer: Keras optimizer, or its name.
            objective: An `rws_keras.objectives.Objective`. Only `fit` needs it.
            q_optimizer: A separate optimizer for the Q layers; by default `optimizer` updates both
                stacks.
            num_particles: K of `evaluate`, `predict` and the validation during `fit`.
            run_eagerly: As in Keras.
            steps_per_execution: As in Keras.
            jit_compile: Whether XLA compiles the training step, which takes some seconds for each
                batch size and each K. The noise of a step is always drawn outside of it: on many
                CPUs XLA's random generator is far slower than TensorFlow's. `"auto"` means yes
                unless a layer's `supports_jit` is false, as that of `PixelCNN`.
            **kwargs: None: the objective replaces Keras's `loss` and `metrics`.

        Raises:
            UserError: If the objective is not an `Objective` or does not fit the machine, or
                another argument is invalid.
        """
        if kwargs:
            raise UserError(
                f"compile() takes no {', '.join(f'`{name}`' for name in kwargs)}: the objective "
                "replaces `loss` and `metrics`."
            )
        for name, value in (("run_eagerly", run_eagerly), ("jit_compile", jit_compile)):
            if not isinstance(value, bool) and (name, value) != ("jit_compile", "auto"):
                allowed = "True, False or 'auto'" if name == "jit_compile" else "True or False"
                raise UserError(f"`{name}` must be {allowed}, got {value!r}.")
        check_positive_integer(steps_per_execution, "steps_per_execution")
        if optimizer is None:
            raise UserError("`optimizer` must be a Keras optimizer or its name, got None.")
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
        self._steps = None
        self._optimized = {id(weight) for weight in self.trainable_variables}
        self._has_two_optimizers = q_optimizer is not None
        super().compile(
            optimizer=self._join_optimizers(optimizer, q_optimizer),
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=False,
        )
        # Now, not in the first step: under a distribution strategy that one runs in replicas.
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        self._look_at_weights()

    @property
    def _compiled(self) -> types.SimpleNamespace:
        """The step, and its gradients alone, as functions that TensorFlow compiles."""
        if self._steps is None:
            arguments = self._compile_arguments
            by_xla = bool(arguments.jit_compile) and not arguments.run_eagerly
            if arguments.jit_compile == "auto":
                by_xla &= all(layer.supports_jit for layer in self._flatten_layers())
            if by_xla and _checks_numerics():
                by_xla = False
                warnings.warn(
                    "The training step is not compiled by XLA, which cannot check numerics "
                    "(tf.debugging.enable_check_numerics).",
                    stacklevel=2,
                )

            def compiled(step):
                if arguments.run_eagerly:
                    return step
                options = {"jit_compile": by_xla, "reduce_retracing": True, "autograph": False}
                return tf.function(step, **options)

            # In a namespace, so that TensorFlow does not save them with the machine.
            self._steps = types.SimpleNamespace(
                learn=compiled(self._learn), differentiate=compiled(self._differentiate)
            )
        return self._steps

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
            raise UserError("With a `q_optimizer` all layers must have different names.")
        paths = [variable.path for variable in self.q_variables]
        q_optimizer = keras.optimizers.get(q_optimizer)
        both = (p_optimizer, q_optimizer)
        wrapped = any(isinstance(each, keras.optimizers.LossScaleOptimizer) for each in both)
        if wrapped or p_optimizer.loss_scale_factor != q_optimizer.loss_scale_factor:
            raise UserError(
                "Two optimizers share one scale of the loss: give both the same "
                "`loss_scale_factor`, and do not use a LossScaleOptimizer."
            )
        return keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(p_optimizer, dict.fromkeys(paths, q_optimizer)),
            loss_scale_factor=p_optimizer.loss_scale_factor,
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

    def _assert_compile_called(self, method_name=None):
        """Lets a machine that is not compiled be evaluated; to train it needs an objective."""
        if method_name in ("evaluate", "test_on_batch"):
            return
        if self.objective is None:
            raise UserError(
                f"`{method_name}` needs an objective: call compile(optimizer, objective) first, "
                "for instance with rws_keras.objectives.ReweightedWakeSleep(num_particles=5)."
            )

    # Training.

    def make_train_function(self, force: bool = False):
        """Makes the function that `fit` calls for each step.

        A step is traced once for each combination of the objective's settings, so that one
        that changes, K for instance, takes effect with the next step. What is trainable, and the
        regularizers and constraints of the weights, take effect with the next `fit`.
        """
        if self.train_function is None or force:
            self._steps = None
            steps: dict = {}

            def train(iterator):
                settings = self._step_settings
                if settings not in steps:
                    self.objective.check_settings()
                    steps[settings] = self._make_step()
                return steps[settings](iterator)

            self.train_function = train
        self._look_at_weights()
        return self.train_function

    def _look_at_weights(self):
        """Records what is trainable, and the regularizers and constraints."""
        self._weights_state = self._weight_states.number(self.weights)
        trainable = {id(weight) for weight in self.trainable_variables}
        each = getattr(self.optimizer, "optimizers", [self.optimizer])
        averaged = any(getattr(one, "inner_optimizer", one).use_ema for one in each)
        changed = trainable != self._optimized
        if changed and (averaged or self._has_two_optimizers or trainable - self._optimized):
            raise UserError(
                "The set of trainable weights has changed since `compile`, which the optimizer "
                "cannot follow: call `compile` again."
            )

    @property
    def _step_settings(self) -> tuple[str, int]:
        """All that a step depends on, except its batch and the values of variables."""
        return self.objective.current_settings, self._weights_state

    def _make_step(self):
        """Keras's own step, except in the usual case.

        For one step at a time without a distribution strategy, reading the batch outside of the
        step's graph saves a tenth of a small machine's time.
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
        if tf.executing_eagerly():  # in a loop of the user's own
            self._look_at_weights()
        x, sample_weight = self._unpack(data)
        noise = self.objective.noise(self, tf.shape(x)[0], next_seed(self.noise_seed))
        if tf.distribute.has_strategy():
            return self._learn_together(x, noise, sample_weight)
        return self._compiled.learn(x, noise, sample_weight, self._step_settings)

    def _differentiate(self, x, noise, sample_weight, settings):
        """Gradients and particles; the settings only distinguish traces."""
        del settings
        return self.objective.gradients(self, x, noise, sample_weight, self.optimizer.scale_loss)

    def _apply(self, x, gradients, particles, sample_weight):
        # TensorFlow's graph optimizer can lose the order between reading a weight for a
        # sample and updating it, where the update does not use the sample. The order is
        # stated here, so that no sample comes from a half-updated machine.
        statistics = statistics_of(particles)
        with tf.control_dependencies([*gradients, *tf.nest.flatten(statistics)]):
            if gradients:
                self.optimizer.apply(gradients, self.trainable_variables)
            else:
                warnings.warn("The machine has no trainable weights.", stacklevel=2)
            self.objective.after_step(self, x, particles, sample_weight)
        self.statistics.update_state(statistics, self.objective.num_particles, sample_weight)
        return self._report()

    def _learn(self, x, noise, sample_weight, settings):
        gradients, particles = self._differentiate(x, noise, sample_weight, settings)
        return self._apply(x, gradients, particles, sample_weight)

    def _learn_together(self, x, noise, sample_weight):
        """The step of one of several replicas, whose gradients the optimizer adds up."""
        gradients, particles = self._compiled.differentiate(
            x, noise, sample_weight, self._step_settings
        )
        # They are means over the rows of a replica, which may have more or fewer than
        # another: weighted by its share they add up to the mean over all.
        rows = tf.shape(x)[0] if sample_weight is None else tf.reduce_sum(sample_weight)
        rows = tf.cast(rows, tf.float32)
        replica = tf.distribute.get_replica_context()
        share = tf.math.divide_no_nan(rows, replica.all_reduce(tf.distribute.ReduceOp.SUM, rows))
        gradients = [share * gradient for gradient in gradients]
        return self._apply(x, gradients, particles, sample_weight)

    def fit(self, x=None, *args, **kwargs) -> keras.callbacks.History:
        """Trains the machine; arguments as in `keras.Model.fit`, without targets.

        A row of `sample_weight` w counts as w rows of its batch, in the gradient as in the
        metrics. `validation_data` is data alone, or `(x, None, sample_weight)`; a dataset yields
        data alone, or dicts of `x` and `sample_weight`. The layers' regularizers and what they add
        with `add_loss` are part of the gradient, as in Keras, but not of the metrics: `loss` is the
        negative log-likelihood.

        Raises:
            UserError: If the machine is not compiled with an objective, arrays among the data
                are not data of the machine's width and kind (a `tf.data` pipeline is checked
                batch by batch, with a `tf.errors.InvalidArgumentError`), or targets or class
                weights are given.
        """
        arguments = self._arguments_of(keras.Model.fit, x, *args, **kwargs)
        self.forget_calibration()
        if self._steps is not None and _checks_numerics():
            self.train_function = None  # XLA cannot compile what is traced from now on
        if arguments.get("validation_data") is not None:
            arguments["validation_data"] = self._checked_validation(arguments["validation_data"])
        history = super().fit(**with_progress_bar(arguments))
        of_epochs = (history.history.get(f"{kind}log_likelihood", []) for kind in ("", "val_"))
        warn_of_zero_probability([value for values in of_epochs for value in values])
        return history

    def train_on_batch(
        self, x, y=None, sample_weight=None, class_weight=None, return_dict=False
    ) -> dict | list:
        """As `fit`, for one step on one batch."""
        arguments = self._arguments_of(
            keras.Model.train_on_batch, x, y, sample_weight, class_weight
        )
        self.forget_calibration()
        result = super().train_on_batch(**arguments, return_dict=True)
        return result if return_dict else self._in_order(result)

    def _checked_validation(self, data):
        """Data for Keras, which takes a tuple or a list for `(x, y, sample_weight)`."""
        rows = isinstance(data, list | tuple) and (not 0 < len(data) <= 3 or np.ndim(data[0]) == 1)
        if rows or not isinstance(data, list | tuple):
            return self._checked(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(data))
        if y is not None:
            raise UserError(NO_TARGETS)
        return self._with_weight(x, sample_weight)

    # Methods that would have no effect.

    def add_loss(self, loss) -> None:
        """Refuses a loss that is added to the machine itself, which would have no effect.

        Raises:
            UserError: Always.
        """
        raise UserError(
            "A loss added to the machine itself would have no effect on training. Give a weight a "
            "regularizer, call `add_loss` in `_distribution` of a layer of your own, or add the "
            "term to the `loss` of an objective of your own."
        )


def _checks_numerics():
    """Whether TensorFlow adds checks of its results to what is traced."""
    graph = tf.function(lambda: tf.zeros([]) + 1.0, autograph=False).get_concrete_function().graph
    return any(operation.type == "DebugNumericSummaryV2" for operation in graph.get_operations())
