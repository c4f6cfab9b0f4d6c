"""Data sets that TensorFlow Datasets prepares: binarized MNIST and the density sets."""

from __future__ import annotations

import os
import socket
import threading
from types import ModuleType
from urllib.parse import urlparse

import numpy as np

from rws_keras.datasets.data import BinaryData, DatasetNotFoundError
from rws_keras.errors import UserError

# Where prepared data sets go: those of any builder, and those of our own.
TFDS_VARIABLE = "TFDS_DATA_DIR"
DATA_DIR_VARIABLE = "RWS_KERAS_DATA_DIR"
# Where the source files of our own builder lie.
MANUAL_DIR_VARIABLE = "RWS_KERAS_MANUAL_DIR"

_BINARIZED_MNIST_HOST = "http://www.cs.toronto.edu"


def load_binarized_mnist(data_dir: str | None = None) -> BinaryData:
    """Loads the official binarized MNIST through TFDS, downloading it if needed.

    Args:
        data_dir: TFDS data directory; by default `TFDS_DATA_DIR`, else TFDS's own.

    Returns:
        The `BinaryData`: 50,000 / 10,000 / 10,000 rows of 784 pixels.

    Raises:
        UserError: If TFDS is not installed.
        DatasetNotFoundError: If it is not there and cannot be downloaded.
    """
    tfds = _tensorflow_datasets("binarized_mnist")
    builder = tfds.builder("binarized_mnist", data_dir=_directory(data_dir, TFDS_VARIABLE))
    advice = (
        "If it is prepared elsewhere, set TFDS_DATA_DIR to the directory that holds "
        "binarized_mnist/1.0.0; on a machine with a network, run "
        "`rws-keras data binarized_mnist` once to download it."
    )
    _prepare(builder, _BINARIZED_MNIST_HOST, advice)
    return _read(builder, "image", "binarized_mnist", (28, 28))


def load_density_estimation(
    name: str, data_dir: str | None = None, manual_dir: str | None = None
) -> BinaryData:
    """Loads a density-estimation set through the project's own TFDS builder.

    Args:
        name: One of `density_estimation.NAMES`.
        data_dir: Where the prepared set goes; by default `RWS_KERAS_DATA_DIR`, else the
            TFDS data directory.
        manual_dir: Directory with the source files `NAME/NAME.SPLIT.data`; by default
            `RWS_KERAS_MANUAL_DIR`, else they are downloaded.

    Returns:
        The `BinaryData`.

    Raises:
        UserError: If TFDS is not installed.
        DatasetNotFoundError: If it is not there and cannot be downloaded.
    """
    _tensorflow_datasets(name)
    from rws_keras.datasets.density_estimation import SOURCE_URL, DensityEstimation

    manual_dir = _directory(manual_dir, MANUAL_DIR_VARIABLE)
    builder = DensityEstimation(
        config=name,
        data_dir=_directory(data_dir, DATA_DIR_VARIABLE, TFDS_VARIABLE),
        source_dir=manual_dir,
    )
    advice = (
        f"If you have its files, set {MANUAL_DIR_VARIABLE} to the directory that holds "
        f"{name}/{name}.train.data; on a machine with a network, run "
        f"`rws-keras data {name}` once to download them. {DATA_DIR_VARIABLE} "
        "names a writable directory for the prepared data."
    )
    _prepare(builder, None if manual_dir else SOURCE_URL, advice)
    return _read(builder, "x", name, None)


def _directory(given: str | os.PathLike | None, *variables: str) -> str | None:
    """The directory given, or else that of the first variable which is set."""
    named = [given, *map(os.environ.get, variables)]
    # As a string: TFDS takes gs:// addresses too.
    return next((os.path.expanduser(path) for path in named if path), None)


def _tensorflow_datasets(name: str) -> ModuleType:
    """TFDS, which only some of the data sets need: an optional dependency."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise UserError(
            f"Data set '{name}' needs TensorFlow Datasets ({error}). "
            "Install it with `pip install 'rws-keras[train]'`."
        ) from error
    return tensorflow_datasets


def _prepare(builder, url: str | None, advice: str) -> None:
    """Prepares the data set if it is not prepared, or says what would fix the problem."""
    if _is_prepared(builder):
        return
    where = f"Data set '{builder.info.full_name}' is not prepared under {builder.data_path}"
    # TFDS retries an unreachable host for minutes; look for it first.
    if url is not None and not _reachable(url):
        raise DatasetNotFoundError(
            f"{where}, and {urlparse(url).netloc} cannot be reached. {advice}"
        )
    try:
        builder.download_and_prepare()
    except (OSError, AssertionError, ValueError) as error:
        if _is_prepared(builder):  # by another process, which was quicker
            return
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DatasetNotFoundError(
            f"{where}, and preparing it failed: {reason} {advice}"
        ) from error


def _is_prepared(builder) -> bool:
    """Whether the data set is on the disk; what the builder says of it is then read from there."""
    if not (builder.data_path / "dataset_info.json").exists():
        return False
    if not builder.info.initialized:
        builder.info.read_from_directory(builder.data_dir)
    return True


def _reachable(url: str, seconds: float = 10.0) -> bool:
    parsed = urlparse(url)
    port = parsed.port or {"http": 80, "https": 443}[parsed.scheme]
    reached = threading.Event()

    def connect():
        try:
            socket.create_connection((parsed.hostname, port), timeout=seconds).close()
            reached.set()
        except OSError:
            pass

    # The look-up of the name has no time-out of its own, hence the thread.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return reached.is_set()


def _read(builder, feature: str, name: str, image_shape) -> BinaryData:
    tfds = _tensorflow_datasets(name)

    def split(split_name):
        rows = tfds.as_numpy(builder.as_dataset(split=split_name, batch_size=-1))[feature]
        return np.ascontiguousarray(rows.reshape(len(rows), -1), dtype=np.uint8)

    return BinaryData(name, split("train"), split("validation"), split("test"), image_shape)
