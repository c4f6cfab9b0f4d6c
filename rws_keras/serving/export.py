"""Writing a machine as a SavedModel that TensorFlow Serving loads as it is."""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
from collections.abc import Sequence
from importlib import metadata as packages
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from rws_keras import HelmholtzMachine
from rws_keras.arrays import BINARY
from rws_keras.callbacks import receptive_fields, write_png
from rws_keras.callbacks.plots import tile_fields
from rws_keras.errors import UserError
from rws_keras.files import expanded, write_json
from rws_keras.models import preset_files, pretrained
from rws_keras.models.saved_model import write_saved_model
from rws_keras.models.scorer import Scorer
from rws_keras.training import sources
from rws_keras.zoo import publish as publishing

ABOUT = "model.json"
# The picture of samples that a published preset of images has, for its card.
SAMPLES = "samples.png"
# On the picture of receptive fields.
_MOST_FIELDS = 64


def export(
    source: str | os.PathLike, to: str | os.PathLike, name: str | None = None, **options
) -> Path:
    """Exports a finished run, a preset or a `.keras` file.

    Args:
        source: The directory of a run, a preset or a file; see `training.sources.find`.
        to: Directory of the models.
        name: The model's name; by default that of the run's directory, the preset or the file.
        **options: Arguments of `Scorer`.

    Returns:
        The new version, `TO/NAME/VERSION`.

    Raises:
        UserError: If there is no such machine, a run is not finished, or an option is out of its
            range.
    """
    to = expanded(to)
    found = sources.find(source)
    if found.metadata is not None:
        return export_preset(found.path, to, name, **options)
    name = _check_name(found.name if name is None else name)
    with tempfile.TemporaryDirectory() as temporary:
        preset = Path(temporary) / name
        if found.run is not None:
            publishing.write_preset(found.run, preset)
        else:
            pretrained.save(found.machine(), preset)
        return export_preset(preset, to, name, **options)


def _check_name(name: str) -> str:
    if not preset_files.is_plain_name(name):
        raise UserError(
            f"{name!r} cannot be the name of a model: use letters, digits, ., - and _ only. Give "
            "another name with --name."
        )
    return name


def export_preset(preset: Path, to: Path, name: str | None = None, **options) -> Path:
    """Exports the preset in a folder; see `export`."""
    metadata = preset_files.read_metadata(preset / preset_files.METADATA)
    name = _check_name(metadata["name"] if name is None else name)
    machine = HelmholtzMachine.from_preset(preset)
    scorer = Scorer(machine, **options)
    base = to / name
    base.mkdir(parents=True, exist_ok=True)
    # Beside the versions, under a name that no server takes for one.
    with tempfile.TemporaryDirectory(dir=base, prefix=".partial-") as partial:
        directory = Path(partial) / "model"
        signatures = write_saved_model(scorer, directory)
        extra = directory / "assets.extra"
        extra.mkdir()
        # A drawn row, as zeros need not be valid: of a choice exactly one unit is on.
        x = machine.sample(1, seed=0).x.numpy()
        write_warmup_requests(extra / "tf_serving_warmup_requests", name, signatures, x)
        for file in (preset / publishing.CARD, preset / SAMPLES):
            if file.exists():
                shutil.copyfile(file, extra / file.name)
        calibration = machine.calibration
        write_receptive_fields(extra / "receptive_fields.png", machine, metadata.get("image_shape"))
        write_json(
            extra / ABOUT,
            {
                "name": name,
                "preset": metadata,
                "num_particles": scorer.tiers,
                "num_completions": scorer.num_completions,
                "seed": scorer.seed,
                "binary": machine.p_layers[0].support is BINARY,
                "schema": machine.schema,
                "calibration": calibration
                and {**calibration.get_config(), "shares": calibration.shares.tolist()},
                "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "tensorflow": packages.version("tensorflow"),
            },
        )
        return _take_next_version(directory, base)


def write_receptive_fields(
    path: Path, machine: HelmholtzMachine, image_shape: Sequence[int] | None
) -> None:
    """Draws the strongest receptive fields of the lowest latents, if the rows are pictures."""
    if image_shape is None:
        return
    fields = receptive_fields(machine, _MOST_FIELDS)
    if fields is not None:
        height, width = image_shape
        tiles = tile_fields(fields, (height, width))
        write_png(path, tiles, enlarge=max(1, 600 // tiles.shape[1]))


def _take_next_version(directory: Path, base: Path) -> Path:
    """Renames a directory to the lowest free version above the others."""
    while True:
        taken = [int(path.name) for path in base.iterdir() if path.name.isdecimal()]
        version = base / str(max(taken, default=0) + 1)
        try:
            # A directory takes no non-empty one's place: of two exports at once one goes on.
            directory.rename(version)
        except OSError:
            if not version.exists():
                raise
        else:
            return version


def write_warmup_requests(path: Path, model: str, signatures: dict, x: np.ndarray) -> None:
    """Writes one request for each signature, which TF Serving answers before it is ready.

    Args:
        path: The file.
        model: The model's name.
        signatures: The functions by their names.
        x: What inputs called `x` hold, one row; all others hold zeros.
    """
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for name, function in signatures.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model
            request.model_spec.signature_name = name
            for spec in function.input_signature:
                zeros = np.zeros([1, *spec.shape[1:]], spec.dtype.as_numpy_dtype)
                value = x if spec.name == "x" else zeros
                request.inputs[spec.name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
