"""What TensorBoard shows of a Helmholtz machine in training."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from rws_keras.callbacks import cards, charts, monitoring, plots
from rws_keras.callbacks.images import tile_images
from rws_keras.callbacks.receptive_fields import receptive_fields
from rws_keras.checks import check_positive_integer, check_seed
from rws_keras.errors import UserError
from rws_keras.layers.noise import Seed

# Data that gradients and particles with weights are computed from: with K = 5 an autoregressive
# machine of the size of MNIST takes a second for them.
_ROWS = 12
# Rows of the reference.
_REFERENCE_ROWS = 10_000
_NUM_IMAGES = 36


class TensorBoard(keras.callbacks.Callback):
    """Logs a machine's training for TensorBoard, once an epoch.

    Curves of the log-likelihood, the ELBO, the effective sample size as a share of K, and the KL
    and entropy of each latent layer, for training and validation side by side; histograms of the
    weights. On the monitored data: the spread of the log-weights, a histogram of the normalised
    importance weights, the gradient norm of each layer, the active and the dead units of each
    latent layer, and the means of Q beside those of P's prior. Where the data are images: samples
    from P, reconstructions, and the receptive fields of each latent layer whose P layers have
    kernels. Where they are tables: marginals and correlations of samples beside those of the
    data, and the columns in which they differ most. Every chart has a description, and the Custom
    Scalars tab has a layout. Layers are called `p_0 … p_L` and `q_1 … q_L` after the units that
    they generate, as in `machine.summary()`.

    The hyperparameters form a row of the HParams tab, with the last log-likelihood of the
    validation data, and those that `log_results` adds at the end.

    Args:
        log_dir: Directory of the logs; `train`, `validation` and `summary` are made below it.
        x: Monitored data `[N, visible]`, at least two, for instance 100 rows of the validation
            split; without them nothing is shown that needs data. If there are more than 1,000 rows,
            the first 1,000 are used. With fewer than 20, active and dead units of the upper layers
            can hardly be distinguished.
        image_shape: `(height, width)` if the data are images.
        hyperparameters: Dict of names to numbers, strings or bools.
        run_name: What the HParams tab calls the run. Runs with the same name are averaged there; by
            default it is the path of the logs, which is unique.
        num_images: Positive integer: how many samples, images (data and reconstructions taken
            together, at least one pair) and receptive fields to show where the data are images;
            36 by default.
        seed: Seeds what is drawn for the logs: samples share their noise from epoch to epoch, so
            that changes are visible. An integer, an int32 tensor `[2]`, or `None` for fresh noise
            each time.
        reference: Data `[N, visible]` that samples are compared with, for instance the training
            data, where the data are tables. If there are more than 10,000 rows, the first 10,000
            are used.
        column_names: Names `[visible]` of the columns of `reference`, such as `schema.units`; by
            default their numbers, from 1 on.

    Raises:
        UserError: If an argument is not what it should be, or would have no effect.

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
        num_images: int | None = None,
        seed: Seed = 0,
        run_name: str | None = None,
        reference: np.ndarray | tf.Tensor | None = None,
        column_names: Sequence[str] | None = None,
    ):
        super().__init__()
        if run_name is not None and not hyperparameters:
            raise UserError("`run_name` has no effect without `hyperparameters`.")
        if num_images is None:
            num_images = _NUM_IMAGES
        elif check_positive_integer(num_images, "num_images") and image_shape is None:
            raise UserError("`num_images` has no effect without `image_shape`.")
        if reference is not None and image_shape is not None:
            raise UserError(
                "`reference` has no effect together with `image_shape`: samples of images are "
                "shown as images. Leave one of them out."
            )
        if column_names is not None and reference is None:
            raise UserError("`column_names` has no effect without `reference`.")
        self.log_dir = os.path.expanduser(log_dir)  # a string: it may be a gs:// address
        self.run_name = run_name
        self.x = x
        self.reference = reference
        self.column_names = column_names
        self.image_shape = None if image_shape is None else _check_image_shape(image_shape)
        self.hyperparameters = cards.check_hyperparameters(hyperparameters or {})
        self.num_images = num_images
        self.seed = check_seed(seed)

    def on_train_begin(self, logs=None):
        machine = self.model
        if self.image_shape is not None and math.prod(self.image_shape) != machine.visible_units:
            raise UserError(
                f"`image_shape` {tuple(self.image_shape)} does not match the machine's "
                f"{machine.visible_units} visible units."
            )
        if self.x is not None:
            self.x = machine.check_data(self.x)
            if len(self.x) < 2:
                raise UserError(
                    "`x` must have at least two rows: the charts show how units vary with the data."
                )
            self.x = self.x[: monitoring.ROWS]
            # Traced once for each combination of the objective's settings, such as K.
            self._gradients = tf.function(self._monitor, autograph=False)
        if self.reference is not None:
            self._names = _column_names(self.column_names, machine.visible_units)
            self._table = monitoring.Table.of(
                machine.check_data(self.reference[:_REFERENCE_ROWS]).numpy()
            )
        self._writers = {
            split: tf.summary.create_file_writer(os.path.join(self.log_dir, split))
            for split in ("train", "validation", cards.SUMMARY)
        }
        with self._writers[cards.SUMMARY].as_default(0):
            charts.write_layout()
            card = cards.recipe_card(self.hyperparameters, machine)
            tf.summary.text("recipe", card, description="Recipe and layers of the run.")
            if self.hyperparameters:
                cards.write_hyperparameters(self.hyperparameters, self.run_name)

    def _monitor(self, x, settings):
        del settings
        objective = self.model.objective
        noise = objective.noise(self.model, x.shape[0], self.seed)
        return objective.gradients(self.model, x, noise)

    def on_epoch_end(self, epoch, logs=None):
        step = epoch + 1
        splits: dict[str, dict] = {"train": {}, "validation": {}}
        for name, value in (logs or {}).items():
            split = "validation" if name.startswith("val_") else "train"
            splits[split][name.removeprefix("val_")] = value
        particles = " and ".join(
            f"K = {values['num_particles']:g} in {'training' if split == 'train' else split}"
            for split, values in splits.items()
            if "num_particles" in values
        )
        for split, values in splits.items():
            with self._writers[split].as_default(step):
                charts.write(*charts.epoch_charts(values, particles))
        if "log_likelihood" in splits["validation"]:
            with self._writers[cards.SUMMARY].as_default(step):
                charts.scalar(charts.IN_TRAINING, splits["validation"]["log_likelihood"])
        # NumPy need not warn of the numbers of a machine that has diverged.
        with self._writers["train"].as_default(step), np.errstate(all="ignore"):
            # Several optimizers have no rate in common.
            if (rate := getattr(self.model.optimizer, "learning_rate", None)) is not None:
                charts.scalar("training/learning_rate", rate)
            self._log_weights()
            if self.x is not None:
                self._log_gradients(self.x[:_ROWS])
                self._log_units(self.x)
            if self.image_shape is not None:
                self._log_images(self.image_shape)
            if self.reference is not None:
                self._log_table()
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()

    @property
    def _layers(self):
        """The machine's layers by the names that charts call them."""
        machine = self.model
        return {
            **{f"p_{level}": layer for level, layer in enumerate(machine.p_layers)},
            **{f"q_{level}": layer for level, layer in enumerate(machine.q_layers, start=1)},
        }

    def _log_weights(self):
        for name, layer in self._layers.items():
            for variable in layer.variables:
                path = variable.path.removeprefix(f"{layer.name}/")
                charts.histogram(f"weights/{name}/{path}", variable.value)
        for variable in self.model.objective.variables:
            charts.histogram(f"objective/{variable.path}", variable.value)

    def _log_gradients(self, x):
        machine, objective = self.model, self.model.objective
        # A look at the gradients must not move averages inside the objective's networks.
        states = [variable.numpy() for variable in objective.non_trainable_variables]
        gradients, particles = self._gradients(x, objective.current_settings)
        for variable, state in zip(objective.non_trainable_variables, states, strict=True):
            variable.assign(state)
        by_variable = dict(zip(map(id, machine.trainable_variables), gradients, strict=True))
        for name, layer in {**self._layers, "objective": objective}.items():
            own = [by_variable[id(v)] for v in layer.trainable_variables if id(v) in by_variable]
            if own:
                charts.scalar(f"gradient_norm/{name}", tf.linalg.global_norm(own))
        charts.histogram("particles/normalized_weights", particles.normalized_weights)

    def _log_units(self, x):
        machine, rows = self.model, monitoring.SPREAD_ROWS
        pairs = 0 if self.image_shape is None else max(self.num_images // 2, 1)
        look = monitoring.look(machine, x, max(rows, pairs), self.seed)
        spread = monitoring.log_weight_spread(look.weighed.log_weights[:, :rows])
        charts.scalar(charts.SPREAD, spread)
        layers = zip(look.activity, look.means, strict=True)
        for layer, (activity, means) in enumerate(layers, start=1):
            charts.write(*charts.unit_charts(layer, activity))
            charts.histogram(f"units/means_of_q_{layer}", means)
        prior, top = monitoring.prior_mean(machine, self.seed), look.means[-1]
        charts.scalar("units/prior_gap", np.abs(prior - top).mean())
        charts.image("units/top_layer_of_q_beside_prior", plots.means_beside(prior, top))
        if self.image_shape is not None:
            means = monitoring.reconstructions(machine, look.weighed, self.seed)[:pairs]
            tiles = plots.tile_pairs(x[: len(means)], means, self.image_shape)
            charts.image("images/data_and_reconstructions", tiles)

    def _log_images(self, image_shape):
        machine, count = self.model, self.num_images
        samples = machine.sample(count, seed=self.seed).mean
        charts.image("images/samples_from_p", tile_images(samples, image_shape))
        for level in range(1, len(machine.latent_units) + 1):
            fields = receptive_fields(machine, count, level)
            if fields is not None:
                tiles = plots.tile_fields(fields, image_shape)
                charts.image(f"images/receptive_fields_{level}", tiles)

    def _log_table(self):
        data = self._table
        samples = monitoring.sample_table(self.model, self.seed, data.columns)
        for name, error in zip(("marginal", "correlation"), data.errors(samples), strict=True):
            charts.scalar(f"table/{name}_error", error)
        charts.image("table/marginals", plots.means_beside(data.means, samples.means))
        pixels = plots.beside(data.correlations, samples.correlations)
        charts.image("table/correlations", pixels)
        charts.text("table/columns", cards.columns_card(data, samples, self._names))


def _check_image_shape(image_shape):
    """`(height, width)` as a tuple of two positive integers."""
    sizes = np.atleast_1d(np.asarray(image_shape, object)).tolist()
    if len(sizes) != 2:
        raise UserError(f"`image_shape` must be (height, width), got {image_shape!r}.")
    height, width = (check_positive_integer(size, "image_shape") for size in sizes)
    return height, width


def _column_names(names, units):
    if names is None:
        return [str(number) for number in range(1, units + 1)]
    if len(names) != units:
        raise UserError(
            f"`column_names` must have a name for each of the {units} visible units, got "
            f"{len(names)}."
        )
    return list(names)
