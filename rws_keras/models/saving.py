"""Saving and loading a machine: Keras files, presets, SavedModels."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from rws_keras.checks import plain_json
from rws_keras.errors import UserError
from rws_keras.layers.stochastic_layer import StochasticLayer
from rws_keras.models import pretrained
from rws_keras.models.architecture import deserialize_stacks, serialize_stacks
from rws_keras.models.calibration import Calibration
from rws_keras.models.saved_model import write_saved_model
from rws_keras.models.scorer import Scorer
from rws_keras.signatures import check_arguments

if TYPE_CHECKING:
    from rws_keras.models.helmholtz_machine import HelmholtzMachine


class Saving(keras.Model):
    """What `HelmholtzMachine` does with files."""

    p_layers: list[StochasticLayer]
    q_layers: list[StochasticLayer]
    seed: int | list[int] | None
    missing: str | None
    calibration: Calibration | None
    _schema: str | None = None

    @property
    def schema(self) -> dict | None:
        """The meaning of the visible units, see `datasets.Schema`; saved with the machine.

        May be set at any time. Reading it returns a copy.
        """
        return None if self._schema is None else json.loads(self._schema)

    @schema.setter
    def schema(self, schema: dict | None) -> None:
        # As text: Keras wraps the dicts and lists that it finds among the attributes.
        self._schema = None if schema is None else plain_json(schema, "schema")

    @classmethod
    def from_preset(
        cls, preset: str | os.PathLike, load_weights: bool = True, **overrides
    ) -> HelmholtzMachine:
        """Loads a pretrained machine.

        A preset consists of a configuration and arrays: loading one from an untrusted source does
        not run any code from there.

        Args:
            preset: A name from `rws_keras.presets()`, the path of a preset's folder, its http(s)
                address, or `hf://USER/NAME` for the Hugging Face Hub. Downloads are verified by
                their SHA-256 and cached.
            load_weights: Whether to load the weights; otherwise they are initialized again.
            **overrides: Arguments of the machine to replace: `seed`, `name`, `schema`, and without
                the weights `p_layers` and `q_layers`.

        Returns:
            The machine, not compiled.

        Raises:
            PresetError: If there is no such preset, or it is damaged or not available. (It is
                a `UserError`.)
            UserError: If an override is unknown, or does not match the weights.

        Example:
        ```python
        machine = rws_keras.HelmholtzMachine.from_preset("digits-sbn-64-32", seed=1)
        ```
        """
        return pretrained.load(cls, preset, load_weights, overrides)

    def save_to_preset(self, path: str | os.PathLike) -> Path:
        """Saves the machine as a preset, which `from_preset(path)` loads.

        The folder can be exported, served, and uploaded to the Hugging Face Hub as it is.
        Optimizer and objective are left out: a preset is for use and for new training.

        Args:
            path: The folder. An existing preset is replaced, anything else is not.

        Returns:
            The folder.

        Raises:
            PresetError: If there is something at that path that is not a preset.
        """
        return pretrained.save(self, path)

    def export(
        self,
        filepath: str | os.PathLike,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        **options: int,
    ) -> None:
        """Writes a SavedModel that TensorFlow Serving runs as it is, without this library.

        Its signatures are `serving_default`, `score_fast` and `score_accurate` (log-likelihoods
        with K = 100, 10 and 1,000), `posterior`, `reconstruct`, `impute` and `sample`; see
        `Scorer`.

        Args:
            filepath: The new directory.
            format: `"tf_saved_model"`, the only supported format.
            verbose: Whether to print the signatures; `None` means yes, as in Keras.
            **options: Arguments of `Scorer`: `num_particles`, `fast`, `accurate`,
                `num_completions`, `seed`.

        Raises:
            UserError: If the format is another one, the path exists already, or an option is
                unknown or out of range.

        Example:
        ```python
        machine.export("models/mine/1", num_particles=50)
        ```
        """
        if format != "tf_saved_model":
            raise UserError(
                f"A machine can be exported only as 'tf_saved_model', not as {format!r}."
            )
        check_arguments("`export`", Scorer, options, besides=["machine"])
        signatures = write_saved_model(Scorer(self, **options), filepath)
        if verbose is None or verbose:
            print(f"Saved artifact at '{filepath}', with signatures {', '.join(signatures)}.")

    def save(self, filepath: str | os.PathLike, overwrite: bool = True, **kwargs) -> None:
        """Saves the machine with its objective and optimizer, as in Keras.

        Raises:
            UserError: If the file has Keras's old HDF5 format, which cannot store an objective.
        """
        if os.fspath(filepath).endswith((".h5", ".hdf5")):
            raise UserError(
                f"A machine cannot be saved as HDF5 ({filepath}), which cannot store its "
                "objective. Save it to a .keras file, or only its weights with "
                "save_weights('NAME.weights.h5')."
            )
        super().save(os.path.expanduser(filepath), overwrite=overwrite, **kwargs)

    @property
    def _default_save_signature(self):
        """What `tf.saved_model.save` makes the default signature: that of `export`."""
        return Scorer(self).signatures()["serving_default"]

    def get_config(self) -> dict:
        return {
            "name": self.name,
            "seed": self.seed,
            "missing": self.missing,
            "calibration": self.calibration and self.calibration.get_config(),
            "schema": self.schema,
            **serialize_stacks({"p_layers": self.p_layers, "q_layers": self.q_layers}),
        }

    @classmethod
    def from_config(cls, config: dict) -> HelmholtzMachine:
        return cls(**{**config, **deserialize_stacks(config)})

    def get_build_config(self):
        # The layers carry their own: a machine is built as soon as it is made.
        return None
