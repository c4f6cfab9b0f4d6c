"""What every objective has in common."""

from __future__ import annotations

import contextlib
import inspect
import types
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from rws_keras.checks import check_positive_integer, check_precision
from rws_keras.errors import UserError
from rws_keras.layers.noise import Seed, draw_noise, split_noise
from rws_keras.layers.stochastic_layer import keep_losses
from rws_keras.models.particles import Particles
from rws_keras.signatures import plain_arguments


class Draws(NamedTuple):
    """Everything random in one step.

    Attributes:
        latents: Particles from Q, `[K, N, units]` for each latent layer.
        log_q: `log q` of each layer at the particles, `[K, N]`: constants, as the samples,
            unless the objective has path gradients.
        filled: The data with missing values drawn, `[K, N, visible]`, or `None` where none are.
        dream: `(x, latents)` from P, or `None` where no dream is needed.
        resampling: Uniform numbers `[N]` that choose among the particles, or `None`.
    """

    latents: list[tf.Tensor]
    log_q: list[tf.Tensor]
    filled: tf.Tensor | None = None
    dream: tuple[tf.Tensor, list[tf.Tensor]] | None = None
    resampling: tf.Tensor | None = None


class Objective(keras.layers.Layer):
    """A way to train a Helmholtz machine, as a Keras layer.

    A subclass returns from `loss` a scalar whose gradient, with the draws held fixed, is its
    update. Beyond that it may override:

    - `noise_shapes` and `draw`, for other draws than particles from Q;
    - `build`, to create additional weights (a baseline network, say). They are saved with the
      machine. Trainable ones are trained with the machine, by `optimizer`, through the loss; others
      are changed in `update`, once a step. Replicas of a distribution strategy share
      them: there such a weight needs an `aggregation`, such as `"mean"`;
    - `settings`, to check the values of arguments, also when they change.

    Arguments that are plain values and stored in attributes of the same names are part of the
    configuration, and may change during training: a step is traced for each combination. Those that
    are named in `scales` are numbers that `loss` reads with `scale`: a new value needs no new
    trace, unless it is `False`, 0 or `True`.

    The data may have weights. A `loss` and an `update` that take a further argument
    `sample_weight` are given them; the others refuse to train with weights.

    Sampling is outside the gradient tape, so no gradient can flow through samples; a subclass
    with `path_gradients = True` has it inside, for latents that are reparameterised.

    Args:
        num_particles: Positive integer, the number K of samples from Q per datum. Like all settings
            it may be changed at any time and takes effect with the next step.
        name: Name of the objective.

    Example:
    ```python
    class ELBO(rws_keras.objectives.Objective):
        path_gradients = True

        def loss(self, machine, x, draws):
            log_p = machine.log_p(x, draws.latents)
            particles = rws_keras.Particles(draws.latents, log_p, draws.log_q)
            return -keras.ops.mean(particles.log_weights), particles

    vae = rws_keras.HelmholtzMachine.from_sizes(6, [2], q="gaussian", prior="gaussian")
    vae.compile("adam", ELBO(num_particles=1))
    ```
    """

    path_gradients: ClassVar[bool] = False

    # Whether the loss takes missing values that P has drawn into account, see `Draws.filled`.
    follows_gaps: ClassVar[bool] = False

    # Names of the settings, each with the function that checks a new value: `check(value, name)`
    # returns it as it is kept.
    settings: ClassVar[dict[str, Callable[[Any, str], Any]]] = {
        "num_particles": check_positive_integer
    }

    # Names of the settings that are scales of a part of the loss.
    scales: ClassVar[tuple[str, ...]] = ()

    def __init__(self, num_particles: int = 5, **kwargs):
        super().__init__(**{"name": "objective", **kwargs})
        check_precision(self)
        # Not tracked: their values are part of the configuration.
        self._scales = types.SimpleNamespace(
            **{name: tf.Variable(1.0, trainable=False) for name in self.scales}
        )
        self.num_particles = num_particles
        self.state_shapes: tuple | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.settings:
            value = self.settings[name](value, name)
        if name in self.scales:
            getattr(self._scales, name).assign(float(value))
        super().__setattr__(name, value)

    def scale(self, name: str) -> bool | tf.Tensor:
        """The value of a setting that is a scale: `True`, `False`, or a tensor that may change."""
        value = getattr(self, name)
        return bool(value) if _is_switch(value) else getattr(self._scales, name).read_value()

    @property
    def current_settings(self) -> str:
        """The values that a step depends on: it is traced once for each combination.

        They are the settings, and whatever else is a plain value in a public attribute.
        """
        return repr(
            [
                (name, value if name not in self.scales or _is_switch(value) else "scaled")
                for name, value in vars(self).items()
                if name in self.settings
                or (isinstance(value, bool | int | float | str | np.generic) and name[0] != "_")
            ]
        )

    def check_settings(self) -> None:
        """Raises a `UserError` if the settings contradict each other; before each tracing."""

    def build(self, state_shapes: tuple) -> None:
        """Creates the objective's own weights; none by default.

        Args:
            state_shapes: Shapes `(None, units)` of the data, as Q is given them
                (`machine.q_input`), and of each latent layer, bottom first.
        """

    def prepare(self, machine) -> None:
        """Builds the objective for a machine, or checks that it fits.

        Raises:
            UserError: If it was built for a machine of other sizes, needs gradients through
                samples that have none, or does not follow missing values that P draws.
        """
        state_shapes = tuple((None, units) for units in (machine.q_input_units, *machine.q.units))
        first = self.state_shapes is None
        if first:
            self.build(state_shapes)
            self.state_shapes = state_shapes
        elif self.state_shapes != state_shapes:
            raise UserError(
                f"Objective '{self.name}' was built for a machine with shapes {self.state_shapes} "
                f"and cannot train one with {state_shapes}. Make a new objective."
            )
        if self.path_gradients:
            discrete = [layer.name for layer in machine.q_layers if not layer.is_reparameterized()]
            if discrete:
                raise UserError(
                    f"{type(self).__name__} needs gradients through the samples of Q, which the "
                    f"layers {', '.join(discrete)} do not have. Use Gaussian latents, or an "
                    "objective for discrete ones such as ReweightedWakeSleep."
                )
        if machine.draws_gaps and not self.follows_gaps:
            raise UserError(
                f"{type(self).__name__} cannot train with missing values where the visible layer "
                f"'{machine.p_layers[0].name}' is autoregressive: its gradient would ignore that P "
                "draws them. Use ReweightedWakeSleep, or a visible layer of independent units "
                "(SBN, DSBN)."
            )
        # Its own, not those of networks inside, such as the moving averages of a normalisation.
        own = self._non_trainable_variables
        if own and type(self).update is Objective.update:
            raise UserError(
                f"{type(self).__name__} has weights that are not trained "
                f"({', '.join(variable.name for variable in own)}) and does not override "
                "`update`, so they would never change."
            )
        inner = self._flatten_layers(include_self=False)
        if (first and self.variables) or not all(layer.built for layer in inner):
            # One call of the loss: networks inside build themselves, and errors show up.
            x = tf.zeros([1, machine.visible_units])
            self.gradients(machine, x, self.noise(machine, 1, seed=0))

    def noise_shapes(self, machine, num_data: int | tf.Tensor) -> dict:
        """Shapes of the uniform noise of one step, by what it is for: the particles'."""
        return machine.particle_noise(self.num_particles, num_data)

    def noise(self, machine, num_data: int | tf.Tensor, seed: Seed) -> tf.Tensor:
        """Draws all random numbers of one step: a flat tensor for `gradients`.

        Args:
            machine: The `HelmholtzMachine`.
            num_data: N, the size of the batch.
            seed: An integer, an int32 tensor `[2]`, or `None`.
        """
        return draw_noise(self.noise_shapes(machine, num_data), seed)

    def split(self, machine, num_data: int | tf.Tensor, noise: tf.Tensor) -> dict:
        """The noise of one step by its names, in the shapes of `noise_shapes`."""
        return split_noise(noise, self.noise_shapes(machine, num_data))

    def draw(self, machine, x: tf.Tensor, noise: dict) -> Draws:
        """Draws the particles; without a dream.

        Args:
            machine: The `HelmholtzMachine`.
            x: Float32 data `[N, visible]`.
            noise: Uniform numbers in (0, 1), as `noise_shapes` names them.
        """
        latents, log_q = machine.q.sample(noise["particles"], given=machine.q_input(x))
        filled = machine.fill(x, latents, noise["gaps"]) if machine.draws_gaps else None
        return Draws(latents, log_q, filled)

    def loss(
        self, machine, x: tf.Tensor, draws: Draws, sample_weight: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, Particles]:
        """The scalar to differentiate, and the particles with their weights.

        Args:
            machine: The `HelmholtzMachine`.
            x: Float32 data `[N, visible]`.
            draws: What `draw` returned.
            sample_weight: Weights of the data `[N]`, or `None`; see `mean_over_data`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not override `loss`.")

    def update(
        self, machine, x: tf.Tensor, particles: Particles, sample_weight: tf.Tensor | None = None
    ) -> None:
        """Changes weights that are not trained, such as running means, once a step.

        Args:
            machine: The `HelmholtzMachine`.
            x: Float32 data `[N, visible]`.
            particles: The particles of the step.
            sample_weight: Weights of the data `[N]`, or `None`.
        """

    def after_step(self, machine, x, particles: Particles, sample_weight: tf.Tensor | None) -> None:
        """Calls `update`; arguments as there."""
        self._call(self.update, machine, x, particles, sample_weight=sample_weight)

    def gradients(
        self,
        machine,
        x: tf.Tensor,
        noise: tf.Tensor,
        sample_weight: tf.Tensor | None = None,
        scale_loss: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> tuple[list[tf.Tensor], Particles]:
        """Gradients of the loss for all trainable variables (zero where it has none).

        To the loss are added, as in Keras, the machine's `losses`: those of regularizers, and
        what layers add by `add_loss`. A pure function of its arguments and the weights, which
        XLA compiles well.

        Args:
            machine: The `HelmholtzMachine`, compiled with this objective or not.
            x: Float32 data `[N, visible]`.
            noise: What `noise` drew for N data.
            sample_weight: Weights of the data `[N]`, or `None` for equal ones.
            scale_loss: Function of the loss to what is differentiated, as a Keras optimizer's.

        Returns:
            The gradients in the order of `machine.trainable_variables`, to be descended,
            and the particles of the step.

        Raises:
            UserError: If the loss does not depend on a trainable weight of the objective, or there
                are weights of the data that it does not accept.
        """
        named = self.split(machine, tf.shape(x)[0], noise)
        draws = None if self.path_gradients else self.draw(machine, x, named)
        variables = [_as_on_tape(variable.value) for variable in machine.trainable_variables]
        with tf.GradientTape() as tape:
            with _one_call(machine):
                if draws is None:
                    draws = self.draw(machine, x, named)
                loss, particles = self._checked_loss(machine, x, draws, sample_weight)
                for each in machine.losses:
                    loss += tf.reduce_sum(tf.cast(each, loss.dtype))
            if scale_loss is not None:
                loss = scale_loss(loss)
        self._check_tracked(machine, tape.watched_variables())
        gradients = tape.gradient(loss, variables)
        self._check_own_weights(machine.trainable_variables, gradients)
        return [
            tf.zeros_like(variable) if gradient is None else tf.convert_to_tensor(gradient)
            for variable, gradient in zip(variables, gradients, strict=True)
        ], particles

    def _call(self, method, *arguments, sample_weight):
        """Calls a method that takes weights of the data where there are any."""
        if sample_weight is None:
            return method(*arguments)
        if "sample_weight" not in inspect.signature(method).parameters:
            raise UserError(
                f"{type(self).__name__} cannot train with `sample_weight`: its `{method.__name__}` "
                "has no such argument. Add it, and weight the data with "
                "rws_keras.objectives.mean_over_data."
            )
        return method(*arguments, sample_weight=sample_weight)

    def _checked_loss(self, machine, x, draws, sample_weight):
        result = self._call(self.loss, machine, x, draws, sample_weight=sample_weight)
        if not isinstance(result, tuple) or len(result) != 2 or result[0].shape.rank != 0:
            raise UserError(
                f"`loss` of {type(self).__name__} must return a scalar and the particles."
            )
        return result

    def _check_tracked(self, machine, watched):
        """Refuses variables that Keras does not track: they are neither trained nor saved."""
        values = [variable.value for variable in (*machine.variables, *self.variables)]
        # Under a distribution strategy a variable has a copy for each replica of this process.
        tracked = {id(copy) for value in values for copy in (value, *getattr(value, "values", ()))}
        for variable in watched:
            if id(variable) not in tracked:
                raise UserError(
                    f"The variable '{variable.name}' of shape {variable.shape} is not a weight of "
                    f"the machine or of {type(self).__name__}: it would be neither trained nor "
                    "saved. Create it with `add_weight` in `build` or `_build`."
                )

    def _check_own_weights(self, variables, gradients):
        own = {id(variable) for variable in self.trainable_variables}
        for variable, gradient in zip(variables, gradients, strict=True):
            if gradient is None and id(variable) in own:
                raise UserError(
                    f"The loss of {type(self).__name__} does not depend on its weight "
                    f"'{variable.path}', which would not be trained. Add a term for it to the "
                    "loss, or make it non-trainable and change it in `update`."
                )

    def get_build_config(self) -> dict | None:
        return None if self.state_shapes is None else {"state_shapes": self.state_shapes}

    def build_from_config(self, config: dict) -> None:
        state_shapes = tuple(tuple(shape) for shape in config["state_shapes"])
        self.build(state_shapes)
        self.state_shapes = state_shapes

    def get_config(self) -> dict:
        """The constructor's arguments, those of a subclass too where they are plain values."""
        return {
            **super().get_config(),
            **plain_arguments(self, Objective),
            **{name: getattr(self, name) for name in self.settings},
        }


def register(cls: type[Objective]) -> type[Objective]:
    """Makes an objective part of the machines saved with it."""
    return keras.saving.register_keras_serializable(package="rws_keras")(cls)


def mean_over_data(values: tf.Tensor, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
    """The mean of values `[N]`, where a datum of weight w counts as w data.

    Args:
        values: One value for each datum.
        sample_weight: Weights of the data `[N]`, or `None` for equal ones. A value of weight 0
            does not count, even if it is infinite.
    """
    if sample_weight is None:
        return tf.reduce_mean(values)
    # Divided by the largest, so that their sum does not overflow.
    weight = tf.math.divide_no_nan(sample_weight, tf.reduce_max(sample_weight))
    total = tf.reduce_sum(tf.math.multiply_no_nan(values, weight))
    return tf.math.divide_no_nan(total, tf.reduce_sum(weight))


def sum_over_particles(weights: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """`Σ_k w_k v_k` `[N]` for weights and values `[K, N]`.

    A value of weight zero does not count, even if it is infinite.
    """
    return tf.reduce_sum(tf.math.multiply_no_nan(values, weights), axis=0)


def _is_switch(scale: Any) -> bool:
    """Whether a scale only says that its part of the loss is on, or off."""
    return isinstance(scale, bool) or not scale


def _as_on_tape(variable: tf.Variable) -> tf.Variable:
    """A variable as a gradient tape knows it.

    Under a distribution strategy, outside of its replicas, that is the first of its copies.
    """
    if tf.distribute.in_cross_replica_context():
        return tf.distribute.get_strategy().experimental_local_results(variable)[0]
    return variable


@contextlib.contextmanager
def _one_call(machine):
    """Makes what happens within one call of the model, as a step is in Keras.

    A layer clears its losses when a call begins. A layer that is called twice in a step would
    otherwise lose those of the first time.
    """
    machine._get_call_context()
    try:
        with keep_losses():
            yield
    finally:
        machine._maybe_reset_call_context()
        machine._clear_losses()
