"""The cache of downloads: filled by many at once, read by those who may not write it."""

import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from permissions import reachable_directory, read_only
from zoo_server import NAME, ZOO, serving_a_zoo

from rws_keras import HelmholtzMachine, PresetError
from rws_keras.errors import UserError
from rws_keras.models import pretrained
from rws_keras.models.preset_files import WEIGHTS

TOGETHER = 60


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serving_a_zoo(tmp_path, monkeypatch) as server:
        yield server


def assert_the_cache_is_whole(home):
    """Every file is there once, none is partial, and all are as published."""
    files = {path.name: path for path in (home / "rws_keras").rglob("*") if path.is_file()}
    assert set(files) == {"index.json", *os.listdir(ZOO / NAME)}
    for name in os.listdir(ZOO / NAME):
        assert files[name].read_bytes() == (ZOO / NAME / name).read_bytes()


@pytest.mark.parametrize("state", ["empty", "damaged"])
def test_many_threads_load_at_once(server, tmp_path, state):
    home = tmp_path / "home"
    if state == "damaged":
        for path in pretrained.locate(NAME).parent.rglob("*.*"):
            if path.is_file():
                path.write_bytes(b"half")
                # What killed processes left, for all to clear away.
                for number in range(20):
                    left = path.with_name(f".partial-{path.name}-{number}")
                    left.touch()
                    os.utime(left, (0, 0))
    gate = threading.Barrier(TOGETHER)

    def load(_):
        gate.wait()
        return pretrained.locate(NAME)

    with ThreadPoolExecutor(TOGETHER) as pool:
        folders = set(pool.map(load, range(TOGETHER)))
    assert len(folders) == 1
    assert_the_cache_is_whole(home)


PROGRAM = f"""if True:
    import multiprocessing
    from rws_keras.models import pretrained

    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier({TOGETHER})

    def load():
        gate.wait()
        pretrained.locate({NAME!r})

    processes = [fork.Process(target=load) for _ in range({TOGETHER})]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print("failed:", sum(process.exitcode != 0 for process in processes))
"""


@pytest.mark.slow
@pytest.mark.processes
def test_many_processes_load_at_once(server, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ZOO.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "failed: 0\n", done.stderr[-2000:]
    assert_the_cache_is_whole(tmp_path / "home")


@pytest.fixture
def home(monkeypatch):
    """A Keras home where every user may look, unlike the directories of tests."""
    with reachable_directory() as home:
        monkeypatch.setenv("KERAS_HOME", str(home))
        yield home


@pytest.mark.parametrize("by", ["name", "address"])
def test_a_cache_that_nobody_may_write_serves(server, home, by):
    preset = NAME if by == "name" else f"{server.url}/{NAME}"
    expected = HelmholtzMachine.from_preset(preset).get_weights()
    message = rf"(index|preset)\.json cannot be stored in {home}/.*: Permission denied.*last down"
    with read_only(home), pytest.warns(UserWarning, match=message):
        found = HelmholtzMachine.from_preset(preset).get_weights()
    for each, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(each, other)


def test_what_a_cache_lacks_that_nobody_may_write_is_told(server, home):
    folder = pretrained.locate(NAME)
    (folder / WEIGHTS).unlink()
    message = f"{WEIGHTS} cannot be stored in {folder}: Permission denied. Change .*KERAS_HOME"
    with (
        read_only(home),
        pytest.warns(UserWarning, match="last downloaded copy"),
        pytest.raises(PresetError, match=message),
    ):
        pretrained.locate(NAME)
    shutil.rmtree(home / "rws_keras")
    message = rf"index\.json cannot be stored in {home}/rws_keras/.*: Permission denied. Change"
    with read_only(home), pytest.raises(PresetError, match=message):
        pretrained.locate(NAME)


def test_places_that_are_forbidden_are_told(home):
    shutil.copytree(ZOO / NAME, home / NAME)
    machine = HelmholtzMachine.from_sizes(4, [3])
    with read_only(home):
        assert pretrained.locate(home / NAME) == home / NAME
        with pytest.raises(UserError, match="mine cannot be written: Permission denied"):
            machine.save_to_preset(home / "mine")
    for forbidden, message in (
        (home / NAME / WEIGHTS, f"{re.escape(WEIGHTS)} cannot be read: Permission denied"),
        (home / NAME, r"no preset\.json that can be read"),
    ):
        with read_only(home, forbidden), pytest.raises(PresetError, match=message):
            pretrained.locate(home / NAME)
    message = "mine cannot be written: Permission denied"
    with read_only(home, home / NAME), pytest.raises(UserError, match=message):
        machine.save_to_preset(home / NAME / "mine")
