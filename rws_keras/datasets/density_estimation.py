"""TFDS builder of the binary density-estimation benchmark."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from rws_keras.errors import UserError

SOURCE_URL = (
    "https://raw.githubusercontent.com/UCLA-StarAI/Density-Estimation-Datasets/master/datasets"
)

# Number of variables of each set.
WIDTHS = {
    "nltcs": 16,
    "plants": 69,
    "baudio": 100,
    "jester": 100,
    "bnetflix": 100,
    "accidents": 111,
    "pumsb_star": 163,
    "dna": 180,
    "mushrooms": 112,
    "nips": 500,
}
NAMES = tuple(WIDTHS)

# The benchmark's names of the splits.
_SPLITS = {"train": "train", "validation": "valid", "test": "test"}
_CHECKSUMS = Path(__file__).with_name("density_estimation.sha256")


def checksums() -> dict[str, str]:
    """SHA-256 of each source file, by its path `NAME/NAME.SPLIT.data`."""
    lines = (line.split() for line in _CHECKSUMS.read_text().splitlines())
    return {path: digest for digest, path in lines}


class DensityEstimation(tfds.core.GeneratorBasedBuilder):
    """Ten binary density-estimation sets, one config each.

    Args:
        source_dir: Directory with the source files, or `None` to download them.
        **kwargs: As for every TFDS builder.

    Reference:
        - [Haaren & Davis, 2012](https://doi.org/10.1609/aaai.v26i1.8307)
    """

    name = "density_estimation"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, description=f"{width} binary variables.")
        for name, width in WIDTHS.items()
    ]

    def __init__(self, *, source_dir: str | None = None, **kwargs):
        self.source_dir = source_dir
        super().__init__(**kwargs)

    def _info(self):
        width = WIDTHS[self.builder_config.name]
        return self.dataset_info_from_configs(
            description="Binary rows for density estimation.",
            homepage="https://github.com/UCLA-StarAI/Density-Estimation-Datasets",
            features=tfds.features.FeaturesDict(
                {"x": tfds.features.Tensor(shape=(width,), dtype=np.uint8)}
            ),
        )

    def _split_generators(self, dl_manager):
        name = self.builder_config.name
        files = {split: f"{name}/{name}.{part}.data" for split, part in _SPLITS.items()}
        if self.source_dir is None:
            paths = dl_manager.download({s: f"{SOURCE_URL}/{file}" for s, file in files.items()})
        else:
            paths = {split: Path(self.source_dir) / file for split, file in files.items()}
        for split, file in files.items():
            _verify(Path(paths[split]), checksums()[file])
        return {split: self._generate_examples(path) for split, path in paths.items()}

    def _generate_examples(self, path):
        for index, row in enumerate(np.loadtxt(path, delimiter=",", dtype=np.uint8)):
            yield index, {"x": row}


def _verify(path: Path, expected: str) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != expected:
        raise UserError(
            f"{path} is not the published file: its SHA-256 is {digest}, expected {expected}."
        )
