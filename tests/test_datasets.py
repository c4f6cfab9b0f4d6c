"""The data sets, their sources, and the way to minibatches."""

import functools
import hashlib
import http.server
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from rws_keras import datasets
from rws_keras.datasets import density_estimation, tfds_sets


def test_digits_need_no_network():
    data = datasets.load("digits")
    assert [len(split) for split in data[1:4]] == [1197, 300, 300]
    assert data.image_shape == (8, 8)
    for split in data[1:4]:
        assert split.shape[1] == 64
        assert split.dtype == np.uint8
        assert set(np.unique(split)) == {0, 1}
    again = datasets.load("digits")
    np.testing.assert_array_equal(data.test, again.test)


def test_bars_have_the_stated_entropy():
    data = datasets.load_bars(size=3, num_train=200_000)
    codes = data.train @ 2 ** np.arange(9)
    patterns, counts = np.unique(codes, return_counts=True)
    assert len(patterns) == 14
    # All-on and all-off 1/8, the twelve others 1/16.
    assert sorted(np.round(counts / len(codes) * 16)) == [1] * 12 + [2] * 2
    expected = 2 / 8 * math.log(8) + 12 / 16 * math.log(16)
    assert data.entropy == pytest.approx(expected)
    # Mean surprise of 200,000 draws: its standard error is 7e-4, five of them 3.4e-3.
    probability = np.where(np.isin(data.train.sum(axis=1), [0, 9]), 1 / 8, 1 / 16)
    assert -np.log(probability).mean() == pytest.approx(data.entropy, abs=3.4e-3)


def test_unknown_data_set_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'binarized_mnist'"):
        datasets.load("binarised_mnist")


def write_sources(directory, rows):
    """Source files like those of a density-estimation set; returns their checksums."""
    sums = {}
    for part in ("train", "valid", "test"):
        path = directory / "nltcs" / f"nltcs.{part}.data"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(path, rows, fmt="%d", delimiter=",")
        sums[f"nltcs/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return sums


@pytest.fixture
def sources(tmp_path, monkeypatch, binary):
    """A directory with small source files, whose checksums pass for the published ones."""
    rows = binary(30, 16)
    directory = tmp_path / "sources"
    sums = write_sources(directory, rows)
    monkeypatch.setattr(density_estimation, "checksums", lambda: sums)
    return directory, rows


def load_nltcs(tmp_path, manual_dir):
    return datasets.load_density_estimation("nltcs", str(tmp_path / "prepared"), manual_dir)


def test_density_estimation_from_a_directory(sources, tmp_path):
    directory, rows = sources
    data = load_nltcs(tmp_path, str(directory))
    np.testing.assert_array_equal(np.sort(data.train, axis=0), np.sort(rows, axis=0))
    assert data.train.dtype == np.uint8
    # Once prepared, the sources are no longer needed.
    again = load_nltcs(tmp_path, None)
    np.testing.assert_array_equal(again.test, data.test)


@pytest.mark.parametrize("variable", ["RWS_KERAS_DATA_DIR", "TFDS_DATA_DIR"])
def test_directories_that_variables_name_may_be_below_the_home_directory(
    sources, tmp_path, monkeypatch, variable
):
    _, rows = sources
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RWS_KERAS_DATA_DIR", raising=False)
    monkeypatch.setenv("RWS_KERAS_MANUAL_DIR", "~/sources")
    monkeypatch.setenv(variable, "~/prepared")
    data = datasets.load("nltcs")
    np.testing.assert_array_equal(np.sort(data.train, axis=0), np.sort(rows, axis=0))
    assert list((tmp_path / "prepared").rglob("dataset_info.json"))


def test_many_prepare_a_data_set_at_once(sources, tmp_path):
    directory, rows = sources
    gate = threading.Barrier(12)

    def load(_):
        gate.wait()
        return load_nltcs(tmp_path, str(directory)).train

    with ThreadPoolExecutor(12) as pool:
        for train in pool.map(load, range(12)):
            np.testing.assert_array_equal(np.sort(train, axis=0), np.sort(rows, axis=0))
    assert os.listdir(tmp_path / "prepared" / "density_estimation" / "nltcs") == ["1.0.0"]


def test_another_process_may_prepare_a_data_set_meanwhile(sources, tmp_path):
    """Between the moment when the builder looks what is there and the one when it is asked."""
    directory, rows = sources
    options = {"config": "nltcs", "data_dir": tmp_path / "prepared", "source_dir": str(directory)}
    builder = density_estimation.DensityEstimation(**options)
    load_nltcs(tmp_path, str(directory))
    tfds_sets._prepare(builder, None, "")
    train = tfds_sets._read(builder, "x", "nltcs", None).train
    np.testing.assert_array_equal(np.sort(train, axis=0), np.sort(rows, axis=0))


def test_density_estimation_by_download(sources, tmp_path, monkeypatch):
    directory, rows = sources
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(density_estimation, "SOURCE_URL", url)
    monkeypatch.delenv(tfds_sets.MANUAL_DIR_VARIABLE, raising=False)
    try:
        data = load_nltcs(tmp_path, None)
    finally:
        server.shutdown()
        server.server_close()
    np.testing.assert_array_equal(np.sort(data.test, axis=0), np.sort(rows, axis=0))


def test_density_estimation_refuses_files_that_are_not_the_published_ones(sources, tmp_path):
    directory, _ = sources
    with (directory / "nltcs" / "nltcs.test.data").open("a") as file:
        file.write(",".join(["0"] * 16) + "\n")
    with pytest.raises(datasets.DatasetNotFoundError, match="not the published file"):
        load_nltcs(tmp_path, str(directory))
    assert not list((tmp_path / "prepared").rglob("dataset_info.json"))


def test_missing_density_estimation_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_sets, "_reachable", lambda url: False)
    monkeypatch.delenv(tfds_sets.MANUAL_DIR_VARIABLE, raising=False)
    message = r"RWS_KERAS_MANUAL_DIR.*rws-keras data nltcs"
    with pytest.raises(datasets.DatasetNotFoundError, match=message):
        load_nltcs(tmp_path, None)
    with pytest.raises(datasets.DatasetNotFoundError, match="does not exist"):
        load_nltcs(tmp_path, str(tmp_path / "nowhere"))


def test_missing_binarized_mnist_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_sets, "_reachable", lambda url: False)
    message = r"TFDS_DATA_DIR.*rws-keras data binarized_mnist"
    with pytest.raises(datasets.DatasetNotFoundError, match=message):
        datasets.load_binarized_mnist(str(tmp_path))


def test_a_closed_port_is_not_reachable():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        assert tfds_sets._reachable(url)
    assert not tfds_sets._reachable(url)


def test_published_checksums_cover_all_sets():
    expected = {
        f"{name}/{name}.{part}.data"
        for name in density_estimation.NAMES
        for part in ("train", "valid", "test")
    }
    assert density_estimation.checksums().keys() == expected


MNIST_PIXELS_ON = [5_118_041, 1_028_036, 1_038_896]

TFDS_DIR = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


@pytest.mark.skipif(
    not (TFDS_DIR / "binarized_mnist").exists(),
    reason="binarized_mnist (100 MB) is not prepared; set TFDS_DATA_DIR to check it",
)
def test_binarized_mnist():
    data = datasets.load("binarized_mnist")
    assert [split.shape for split in data[1:4]] == [(50_000, 784), (10_000, 784), (10_000, 784)]
    # The official set: any other binarisation has another number of pixels on.
    assert [int(split.sum(dtype=np.int64)) for split in data[1:4]] == MNIST_PIXELS_ON
    assert set(np.unique(data.test)) == {0, 1}


@pytest.mark.skipif(
    tfds_sets.MANUAL_DIR_VARIABLE not in os.environ,
    reason="the density-estimation files are not here; set RWS_KERAS_MANUAL_DIR to check them",
)
@pytest.mark.parametrize("name", ["dna", "mushrooms", "nips"])
def test_density_estimation_sets(name, tmp_path):
    data = datasets.load_density_estimation(name, str(tmp_path))
    sizes = {"dna": (1600, 400, 1186), "mushrooms": (2000, 500, 5624), "nips": (400, 100, 1240)}
    assert tuple(len(split) for split in data[1:4]) == sizes[name]
    assert data.train.shape[1] == density_estimation.WIDTHS[name]


def test_stochastic_binarization():
    levels = np.tile(np.linspace(0, 1, 11, dtype=np.float32), (1000, 1))
    grey = tf.data.Dataset.from_tensor_slices(levels).batch(100)
    binarized = grey.apply(datasets.stochastic_binarization(seed=3))
    first = np.concatenate(list(binarized.as_numpy_iterator()))
    second = np.concatenate(list(binarized.as_numpy_iterator()))
    assert set(np.unique(first)) == {0.0, 1.0}
    assert not np.array_equal(first, second)
    assert (first[:, 0] == 0).all()
    assert (first[:, -1] == 1).all()
    # 1,000 draws a level: five standard errors of a binomial (false-alarm rate 6e-7).
    error = np.sqrt(levels[0] * (1 - levels[0]) / 1000)
    assert (np.abs(first.mean(axis=0) - levels[0]) <= 5 * error + 1e-7).all()
    again = grey.apply(datasets.stochastic_binarization(seed=3))
    np.testing.assert_array_equal(first, np.concatenate(list(again.as_numpy_iterator())))


def test_stochastic_binarization_refuses_bytes():
    grey = tf.data.Dataset.from_tensor_slices(np.full([4, 3], 255, np.uint8)).batch(2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="divide images of 8 bits by 255"):
        list(grey.apply(datasets.stochastic_binarization(seed=0)))


def epoch_of(dataset, steps, skip=0):
    return np.concatenate(list(dataset.skip(skip).take(steps).as_numpy_iterator()))


def test_minibatches_are_shuffled_epochs():
    x = np.arange(25, dtype=np.int32)[:, None]
    batches = datasets.minibatches(x, 10, seed=1)
    assert [len(batch) for batch in batches.take(4)] == [10, 10, 5, 10]
    first, second = epoch_of(batches, 3), epoch_of(batches, 3, skip=3)
    assert sorted(first[:, 0]) == sorted(second[:, 0]) == list(range(25))
    assert not np.array_equal(first, second)
    other = epoch_of(datasets.minibatches(x, 10, seed=2), 3)
    assert not np.array_equal(first, other)


def test_minibatches_of_a_later_epoch_do_not_need_the_earlier_ones():
    x = np.arange(25, dtype=np.int32)[:, None]
    whole = datasets.minibatches(x, 10, seed=1)
    later = datasets.minibatches(x, 10, seed=1, first_epoch=2)
    np.testing.assert_array_equal(epoch_of(whole, 3, skip=6), epoch_of(later, 3))


def test_rows_that_repeat_are_counted():
    data = datasets.load("bars")
    rows, counts = datasets.count_rows(data.test)
    assert len(rows) == 30
    assert counts.sum() == 2000
    seen = list(map(tuple, data.test))
    for row, count in zip(rows, counts, strict=True):
        assert seen.count(tuple(row)) == count
    assert list(map(tuple, rows)) == list(dict.fromkeys(seen))
    # Where few repeat, the rows are left as they are.
    digits = datasets.load("digits").test
    rows, counts = datasets.count_rows(digits)
    assert rows is digits
    assert counts is None
