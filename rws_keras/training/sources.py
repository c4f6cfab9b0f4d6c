"""A machine from what the user has: a run, a preset or a `.keras` file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from rws_keras import HelmholtzMachine
from rws_keras.errors import UserError
from rws_keras.files import expanded
from rws_keras.models import preset_files, pretrained
from rws_keras.training.run import Run, load_machine

_ENDING = ".keras"


class Source(NamedTuple):
    """Where a machine is.

    Attributes:
        name: Its name: of the run's directory, of the preset or of the file.
        path: The run's directory, the preset's folder on this machine, or the file.
        run: The run, if it is one.
        metadata: The content of the preset's `preset.json`, if it is one.
    """

    name: str
    path: Path
    run: Run | None = None
    metadata: dict | None = None

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """Height and width, if the rows are known to be images."""
        if self.run is not None:
            return self.run.recipe.load_data().image_shape
        height, width = (self.metadata or {}).get("image_shape") or (0, 0)
        return (height, width) if height else None

    def machine(self) -> HelmholtzMachine:
        """Loads the machine; for a run, its best one.

        Raises:
            UserError: If there is none, or its file is damaged.
        """
        if self.run is not None:
            return self.run.best_machine()
        if self.metadata is not None:
            return HelmholtzMachine.from_preset(self.path)
        return load_machine(self.path, "Save the machine again, or restore the file.")


def find(source: str | os.PathLike) -> Source:
    """Finds a machine, without loading it.

    Args:
        source: The directory of a run, a preset (its name, path, address or `hf://` handle), or a
            `.keras` file that `machine.save` wrote.

    Raises:
        UserError: If it is none of them.

    Example:
    ```python
    from rws_keras.training import sources

    sources.find("digits-sbn-64-32").machine().latent_units      # [64, 32]
    ```
    """
    path = expanded(source)
    if path.suffix == _ENDING:
        if not path.is_file():
            raise UserError(f"There is no file {path}. `machine.save` writes one.")
        return Source(path.stem, path)
    # A published preset has a recipe as well, but a run has no `preset.json`.
    if not preset_files.is_preset(path) and Run(path).exists():
        return Source(path.resolve().name, path, run=Run(path))
    try:
        folder = pretrained.locate(source)
    except preset_files.UnknownPresetError as error:
        raise preset_files.UnknownPresetError(
            f"{error} It is not the directory of a run (with a recipe.json) or a {_ENDING} file "
            "either."
        ) from None
    metadata = preset_files.read_metadata(folder / preset_files.METADATA)
    return Source(metadata["name"], folder, metadata=metadata)
