"""What TensorBoard shows of a Helmholtz machine in training."""

from __future__ import annotations

import os

import keras
import numpy as np
import tensorflow as tf

from rws_keras.callbacks.images import tile_images
from rws_keras.checks import check_binary

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
    monitored data; and, where the data are images, samples from P, reconstructions and
    the receptive fields of the first P layer. The hyper-parameters go to the HParams tab.

    Args:
        log_dir: Directory of the logs; `train` and `validation` are made below it.
        x: Monitored binary data `[N, visible]`, for instance 100 rows of the validation
            split; without them neither norms, histogram nor reconstructions are logged.
        image_shape: `(height, width)` if the data are images.
        hyperparameters: Dict of names to numbers, strings or bools.
        num_images: How many samples, reconstructions and receptive fields to show.
        seed: Integer, seeds what is drawn for the logs: samples share their noise from
            epoch to epoch, so that one sees them change.

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
        seed: int = 0,
    ):
        super().__init__()
        self.log_dir = os.fspath(log_dir)
        self.x = x
        self.image_shape = image_shape
        self.hyperparameters = hyperparameters
        self.num_images = num_images
        self.seed = seed

    def on_train_begin(self, logs=None):
        self._writers = {
            split: tf.summary.create_file_writer(os.path.join(self.log_dir, split))
            for split in ("train", "validation")
        }
        if self.x is not None:
            self.x = check_binary(self.x, self.model.visible_units)
            objective = self.model.objective
            noise = objective.noise(self.model, len(self.x), self.seed)
            self._gradients = tf.function(lambda: objective.gradients(self.model, self.x, noise))
        if self.hyperparameters:
            from tensorboard.plugins.hparams import api as hparams

            with self._writers["train"].as_default():
                hparams.hparams(self.hyperparameters)

    def on_epoch_end(self, epoch, logs=None):
        step = epoch + 1
        splits = {"train": {}, "validation": {}}
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
                self._log_images()
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()

    def _log_gradients(self):
        machine = self.model
        gradients, particles = self._gradients()
        by_variable = dict(zip(map(id, machine.trainable_variables), gradients, strict=True))
        for stack, name in [(machine.p_layers, "p"), (machine.q_layers, "q")]:
            for index, layer in enumerate(stack):
                own = [by_variable[id(v)] for v in layer.trainable_variables]
                if own:
                    tf.summary.scalar(f"gradient_norm/{name}_{index}", tf.linalg.global_norm(own))
        tf.summary.histogram("particles/normalized_weights", particles.normalized_weights)

    def _log_images(self):
        machine, count = self.model, self.num_images
        self._image("samples_from_p", machine.sample(count, seed=self.seed).mean)
        if self.x is not None:
            x = self.x[: count // 2]
            means = machine.reconstruct(x, num_particles=10, seed=self.seed)
            pairs = np.stack([x, means], axis=1).reshape(-1, x.shape[1])
            self._image("data_and_reconstructions", pairs)
        self._image("receptive_fields_of_p", receptive_fields(machine, count))

    def _image(self, tag, rows):
        tf.summary.image(f"images/{tag}", tile_images(rows, self.image_shape)[None])


def receptive_fields(machine, count: int) -> np.ndarray:
    """The strongest weights into the visible layer, one row a unit that feeds it.

    Args:
        machine: A `HelmholtzMachine`.
        count: How many to return at most, by decreasing norm.

    Returns:
        Array `[count, visible]` in [0, 1]: 0.5 stands for a weight of zero, and each row's
        largest weight is 0 or 1.
    """
    kernel = keras.ops.convert_to_numpy(machine.p_layers[0].kernel)
    kernel = kernel[np.argsort(-np.linalg.norm(kernel, axis=1))[:count]]
    return 0.5 + 0.5 * kernel / np.maximum(np.abs(kernel).max(axis=1, keepdims=True), 1e-12)


def _tag(name: str) -> str | None:
    return f"layers/{name}" if name.startswith(("kl_", "entropy_")) else _TAGS.get(name)
