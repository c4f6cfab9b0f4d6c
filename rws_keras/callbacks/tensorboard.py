"""What TensorBoard shows of a Helmholtz machine in training."""

from __future__ import annotations

import math
import os

import keras
import numpy as np
import tensorflow as tf

from rws_keras.callbacks.images import tile_images
from rws_keras.checks import check_positive_integer, check_seed
from rws_keras.errors import UserError
from rws_keras.layers.noise import Seed

# Where a curve is shown: the part before the slash is TensorBoard's group. Groups are sorted
# by name and only the first ones are open, so the likelihood's comes first.
_TAGS = {
    "log_likelihood": "estimates/log_likelihood",
    "elbo": "estimates/elbo",
    "ess": "estimates/effective_sample_size",
}


class TensorBoard(keras.callbacks.Callback):
    """Logs a machine's training for TensorBoard, once an epoch.

    Curves of the log-likelihood, the ELBO, the effective sample size, and the KL and
    entropy of each latent layer, for training and validation side by side; the gradient
    norm of each layer and a histogram of the normalised importance weights on the
    monitored data; the weights of the objective, where it has any; and, where the data are
    images, samples from P, reconstructions and, if the lowest P layer has a kernel, its
    receptive fields. Layers are called `p_0 … p_L` and `q_1 … q_L` after the units that they
    give, as in `machine.summary()`. The hyper-parameters go to the HParams tab, under the
    name of the run and beside its log-likelihoods.

    Args:
        log_dir: Directory of the logs; `train` and `validation` are made below it.
        x: Monitored binary data `[N, visible]`, for instance 100 rows of the validation
            split; without them neither norms, histogram nor reconstructions are logged.
        image_shape: `(height, width)` if the data are images.
        hyperparameters: Dict of names to numbers, strings or bools.
        run_name: What the HParams tab calls the run; the name of `log_dir` by default.
        num_images: Positive integer: how many samples, images (data and reconstructions taken
            together, at least one pair) and receptive fields to show.
        seed: Seeds what is drawn for the logs: samples share their noise from epoch to epoch, so
            that one sees them change. An integer, an int32 tensor `[2]`, or `None` for fresh
            noise each time.

    Example:
    ```python
    board = rws_keras.callbacks.TensorBoard("logs", data.validation[:100], data.image_shape)
    machine.fit(data.train, validation_data=data.validation, callbacks=[board])
    ```
    """

    def __init__(
        self,
        log_dir: str | os.PathLike,
        x: np.ndarray | tf.Tensor | None = None,
        image_shape: tuple[int, int] | None = None,
        hyperparameters: dict | None = None,
        num_images: int = 64,
        seed: Seed = 0,
        run_name: str | None = None,
    ):
        super().__init__()
        if run_name is not None and not hyperparameters:
            raise UserError("`run_name` has no effect without `hyperparameters`.")
        self.log_dir = os.path.expanduser(log_dir)  # a string: it may be a gs:// address
        self.run_name = run_name or os.path.basename(os.path.abspath(self.log_dir))
        self.x = x
        self.image_shape = None if image_shape is None else _check_image_shape(image_shape)
        hyperparameters = {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in (hyperparameters or {}).items()
        }
        for key, value in hyperparameters.items():
            if not isinstance(value, bool | int | float | str):
                raise UserError(
                    f"The hyper-parameter {key!r} must be a number, a string or a bool; got "
                    f"{value!r}."
                )
        self.hyperparameters = hyperparameters
        self.num_images = check_positive_integer(num_images, "num_images")
        self.seed = check_seed(seed)

    def on_train_begin(self, logs=None):
        machine = self.model
        if self.image_shape is not None and math.prod(self.image_shape) != machine.visible_units:
            raise UserError(
                f"`image_shape` {tuple(self.image_shape)} does not have the machine's "
                f"{machine.visible_units} visible units."
            )
        self._writers = {
            split: tf.summary.create_file_writer(os.path.join(self.log_dir, split))
            for split in ("train", "validation")
        }
        if self.x is not None:
            self.x = machine.check_data(self.x)
            # Traced once for each combination of the objective's settings, such as K.
            self._gradients = tf.function(self._monitor, autograph=False)
        if self.hyperparameters:
            self._log_hyperparameters(self.hyperparameters)

    def _monitor(self, x, settings):
        del settings
        objective = self.model.objective
        noise = objective.noise(self.model, x.shape[0], self.seed)
        return objective.gradients(self.model, x, noise)

    def _log_hyperparameters(self, hyperparameters):
        from tensorboard.plugins.hparams import api as hparams

        metrics = [
            hparams.Metric(_TAGS["log_likelihood"], group=split, display_name=f"{split} (nats)")
            for split in ("validation", "train")
        ]
        parameters = [hparams.HParam(name) for name in hyperparameters]
        with tf.summary.create_file_writer(self.log_dir).as_default():
            hparams.hparams_config(parameters, metrics)
            hparams.hparams(hyperparameters, trial_id=self.run_name)

    def on_epoch_end(self, epoch, logs=None):
        step = epoch + 1
        splits: dict[str, dict] = {"train": {}, "validation": {}}
        for name, value in (logs or {}).items():
            split = "validation" if name.startswith("val_") else "train"
            splits[split][name.removeprefix("val_")] = value
        for split, values in splits.items():
            with self._writers[split].as_default(step):
                for name, value in values.items():
                    if tag := _tag(name):
                        tf.summary.scalar(tag, value)
        with self._writers["train"].as_default(step):
            # Several optimizers have no rate in common.
            if (rate := getattr(self.model.optimizer, "learning_rate", None)) is not None:
                tf.summary.scalar("training/learning_rate", rate)
            if self.x is not None:
                self._log_gradients()
            if self.image_shape is not None:
                self._log_images(self.image_shape)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()

    def _log_gradients(self):
        machine, objective = self.model, self.model.objective
        # A look at the gradients must not move averages inside the objective's networks.
        states = [variable.numpy() for variable in objective.non_trainable_variables]
        gradients, particles = self._gradients(self.x, objective.current_settings)
        for variable, state in zip(objective.non_trainable_variables, states, strict=True):
            variable.assign(state)
        by_variable = dict(zip(map(id, machine.trainable_variables), gradients, strict=True))
        layers = {
            **{f"p_{level}": layer for level, layer in enumerate(machine.p_layers)},
            **{f"q_{level}": layer for level, layer in enumerate(machine.q_layers, start=1)},
            "objective": objective,
        }
        for name, layer in layers.items():
            own = [by_variable[id(v)] for v in layer.trainable_variables if id(v) in by_variable]
            if own:
                tf.summary.scalar(f"gradient_norm/{name}", tf.linalg.global_norm(own))
        for variable in objective.variables:
            tf.summary.histogram(f"objective/{variable.path}", variable.value)
        tf.summary.histogram("particles/normalized_weights", particles.normalized_weights)

    def _log_images(self, image_shape):
        machine, count = self.model, self.num_images
        self._image("samples_from_p", machine.sample(count, seed=self.seed).mean, image_shape)
        if self.x is not None:
            x = self.x[: max(count // 2, 1)]
            means = machine.reconstruct(x, num_particles=10, seed=self.seed)
            pairs = np.stack([x, means], axis=1).reshape(-1, x.shape[1])
            self._image("data_and_reconstructions", pairs, image_shape)
        fields = receptive_fields(machine, count)
        if fields is not None:
            self._image("receptive_fields_of_p", fields, image_shape)

    def _image(self, tag, rows, image_shape):
        tf.summary.image(f"images/{tag}", tile_images(rows, image_shape)[None])


def _check_image_shape(image_shape):
    """`(height, width)` as a tuple of two positive integers."""
    sizes = np.atleast_1d(np.asarray(image_shape, object)).tolist()
    if len(sizes) != 2:
        raise UserError(f"`image_shape` must be (height, width), got {image_shape!r}.")
    height, width = (check_positive_integer(size, "image_shape") for size in sizes)
    return height, width


def receptive_fields(machine, count: int) -> np.ndarray | None:
    """The strongest weights into the visible layer, one row a unit that feeds it.

    Args:
        machine: A `HelmholtzMachine`.
        count: How many to return at most, by decreasing norm.

    Returns:
        Array `[count, visible]` in [0, 1]: 0.5 stands for a weight of zero, and each row's
        largest weight is 0 or 1. `None` where the visible layer has no kernel
        `[units, visible]`.
    """
    kernel = getattr(machine.p_layers[0], "kernel", None)
    if kernel is None or len(kernel.shape) != 2 or kernel.shape[1] != machine.visible_units:
        return None
    kernel = keras.ops.convert_to_numpy(kernel)
    kernel = kernel[np.argsort(-np.linalg.norm(kernel, axis=1))[:count]]
    return 0.5 + 0.5 * kernel / np.maximum(np.abs(kernel).max(axis=1, keepdims=True), 1e-12)


def _tag(name: str) -> str | None:
    return f"layers/{name}" if name.startswith(("kl_", "entropy_")) else _TAGS.get(name)
