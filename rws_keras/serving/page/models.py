"""What the page knows of the models: an export's own description of itself."""

from __future__ import annotations

import base64
import dataclasses
import re
from pathlib import Path

import numpy as np

from rws_keras.datasets import Schema
from rws_keras.errors import UserError
from rws_keras.files import read_json

ABOUT = Path("assets.extra", "model.json")


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of the page.

    Attributes:
        name: Its name.
        version: The version that serves.
        units: How many visible units it has.
        num_particles: K of `serving_default`.
        image_shape: `(height, width)` if its rows are pictures.
        schema: How the columns of a table become units, if it is known.
        usual: Log-likelihoods of validation rows with the same K, in nats, in ascending order;
            `None` without any.
        shares: What share of the validation rows each of them stands for.
        card: The model's card, Markdown.
        receptive_fields: A picture as HTML, "" if there is none.
    """

    name: str
    version: str
    units: int
    num_particles: int
    image_shape: tuple[int, int] | None
    schema: Schema | None
    usual: np.ndarray | None
    shares: np.ndarray | None
    card: str
    receptive_fields: str

    @classmethod
    def of(cls, name: str, directory: Path) -> Model:
        """Reads the description that `rws-keras export` puts beside a SavedModel.

        Raises:
            UserError: If there is none.
        """
        path = directory / ABOUT
        if not path.exists():
            raise UserError(
                f"The model {name} was not written by `rws-keras export`, so the page does not "
                "know what its rows are. Its scores are available by REST and gRPC."
            )
        about = read_json(path)
        try:
            preset, schema, usual = about["preset"], about["schema"], about["calibration"]
            binary = about["binary"]
            particles = about["num_particles"]["serving_default"]
        except (KeyError, TypeError) as error:
            raise UserError(
                f"The model {name} was exported by an earlier version of rws_keras; export it "
                "again."
            ) from error
        if not binary:
            raise UserError(
                f"The page shows models of binary data; the units of {name} are real. Its scores "
                "are available by REST and gRPC."
            )
        if usual and usual["num_particles"] != particles:
            usual = None
        card, fields = path.parent / "README.md", path.parent / "receptive_fields.png"
        return cls(
            name=name,
            version=directory.name,
            units=preset["visible_units"],
            num_particles=particles,
            image_shape=tuple(preset["image_shape"]) if preset.get("image_shape") else None,
            schema=Schema.from_config(schema) if schema else None,
            usual=np.array(usual["log_likelihoods"]) if usual else None,
            shares=np.array(usual["shares"]) if usual else None,
            card=_with_pictures(card) if card.exists() else "",
            receptive_fields=f'<img src="{_data_url(fields)}">' if fields.exists() else "",
        )

    @property
    def height_and_width(self) -> tuple[int, int]:
        """Those of its pictures.

        Raises:
            UserError: If its rows are no pictures.
        """
        if self.image_shape is None:
            raise UserError(f"The rows of the model {self.name} are not pictures.")
        return self.image_shape


def _data_url(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _with_pictures(card: Path) -> str:
    """The card with its pictures in it, as the page has no files beside it."""

    def embedded(match: re.Match) -> str:
        picture = card.parent / match[1]
        if not picture.exists():
            return ""
        return f"![]({_data_url(picture)})"

    return re.sub(r"!\[\]\(([\w.-]+\.png)\)", embedded, card.read_text())
