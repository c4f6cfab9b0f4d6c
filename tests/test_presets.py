"""Presets: found, downloaded, checked. The server is a real one, and fails in every way."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from zoo_server import NAME, ZOO, serving_a_zoo

import rws_keras
from rws_keras import HelmholtzMachine, PresetError, resources
from rws_keras.models import downloads, preset_files

WEIGHTS = preset_files.WEIGHTS


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serving_a_zoo(tmp_path, monkeypatch) as server:
        yield server


def cached(tmp_path):
    """The files of the cache, none of them partial, by name."""
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    return {path.name: path for path in files}


def assert_cache_is_sound(tmp_path):
    for name, path in cached(tmp_path).items():
        if name != "index.json":
            assert path.read_bytes() == (ZOO / NAME / name).read_bytes()


def scores(machine):
    x = np.tile(np.float32([[0, 1]]), [3, 32])
    return machine.log_likelihood(x, num_particles=50, seed=0).log_likelihood.numpy()


def test_the_names_of_the_checkouts_zoo():
    assert NAME in rws_keras.presets()
    entry = rws_keras.presets()[NAME]
    assert entry["dataset"] == "digits"
    assert entry["test"]["log_likelihood"] < 0


def test_by_name_by_path_and_by_address(server, tmp_path):
    expected = scores(HelmholtzMachine.from_preset(ZOO / NAME))
    assert np.isfinite(expected).all()
    for source in (NAME, f"{server.url}/{NAME}", f"{server.url}/{NAME}/", str(ZOO / NAME)):
        np.testing.assert_array_equal(scores(HelmholtzMachine.from_preset(source)), expected)
    assert_cache_is_sound(tmp_path)


def test_a_file_is_downloaded_once(server):
    for _ in range(2):
        HelmholtzMachine.from_preset(NAME)
    assert server.requests.count(WEIGHTS) == 1


def test_what_changed_at_the_source_is_downloaded_anew(server):
    HelmholtzMachine.from_preset(NAME)
    folder = server.root / NAME
    machine = HelmholtzMachine.from_preset(ZOO / NAME)
    machine.set_weights([weight * 0.5 for weight in machine.get_weights()])
    machine.save_weights(folder / WEIGHTS, overwrite=True)
    metadata = json.loads((folder / "preset.json").read_text())
    weights = folder / WEIGHTS
    metadata["files"][WEIGHTS] = {
        "size": weights.stat().st_size,
        "sha256": preset_files.sha256(weights),
    }
    (folder / "preset.json").write_text(json.dumps(metadata))
    index = json.loads((server.root / "index.json").read_text())
    index["presets"][NAME]["sha256"] = preset_files.sha256(folder / "preset.json")
    (server.root / "index.json").write_text(json.dumps(index))
    np.testing.assert_array_equal(scores(HelmholtzMachine.from_preset(NAME)), scores(machine))


FAULTS = ["truncate", "corrupt", "no length", "slow", 500, 503]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index.json", "preset.json", WEIGHTS])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_that_passes_is_overcome(server, tmp_path, name, fault):
    if name == "index.json" and fault in ("corrupt", "no length"):
        # What has no known hash and no length can be checked only as far as it is JSON.
        server.faults[name] = [fault]
        with contextlib.suppress(PresetError):
            HelmholtzMachine.from_preset(NAME)
    else:
        server.faults[name] = [fault]
    machine = HelmholtzMachine.from_preset(NAME)
    assert np.isfinite(scores(machine)).all()
    assert_cache_is_sound(tmp_path)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("truncate", "before the end|got only"),
        ("corrupt", "corrupted"),
        ("no length", "corrupted"),
        ("hang", "sent nothing"),
        (404, "answers 404"),
        (403, "answers 403"),
        (500, "answers 500"),
    ],
)
def test_a_failure_that_stays_is_told(server, tmp_path, monkeypatch, fault, message):
    monkeypatch.setattr(downloads, "TIMEOUT_SECONDS", 0.5)
    server.faults[WEIGHTS] = [fault] * 5
    with pytest.raises(PresetError, match=message) as caught:
        HelmholtzMachine.from_preset(NAME)
    assert f"{server.url}/{NAME}/{WEIGHTS}" in str(caught.value)
    assert WEIGHTS not in cached(tmp_path)
    assert_cache_is_sound(tmp_path)
    tries = 1 if fault in (403, 404) else 3
    assert server.requests.count(WEIGHTS) == tries
    # Later, when the server is well again:
    server.faults.clear()
    assert np.isfinite(scores(HelmholtzMachine.from_preset(NAME))).all()


@pytest.mark.slow
def test_other_sockets_of_the_process_keep_their_timeout(server):
    """Those of a server, say, that downloads a preset in one of its threads."""
    server.faults = {name: ["slow"] for name in ("index.json", "preset.json", WEIGHTS)}
    seen = set()
    thread = threading.Thread(target=HelmholtzMachine.from_preset, args=[NAME])
    thread.start()
    while thread.is_alive():
        seen.add(socket.getdefaulttimeout())
        time.sleep(0.01)
    assert WEIGHTS in server.requests
    assert seen == {None}


def test_a_damaged_file_in_the_cache_is_replaced(server, tmp_path):
    HelmholtzMachine.from_preset(NAME)
    cached(tmp_path)[WEIGHTS].write_bytes(b"half")
    assert np.isfinite(scores(HelmholtzMachine.from_preset(NAME))).all()
    assert_cache_is_sound(tmp_path)


def test_without_a_connection_the_copy_of_last_time_serves(server, monkeypatch):
    expected = scores(HelmholtzMachine.from_preset(NAME))
    server.faults["index.json"] = [503] * 3
    with pytest.warns(UserWarning, match="last downloaded copy"):
        machine = HelmholtzMachine.from_preset(NAME)
    np.testing.assert_array_equal(scores(machine), expected)
    monkeypatch.setenv("KERAS_HOME", os.environ["KERAS_HOME"] + "-new")
    server.faults["index.json"] = [503] * 3
    with pytest.raises(PresetError, match="503"):
        HelmholtzMachine.from_preset(NAME)


@pytest.mark.processes
def test_killed_half_way_nothing_wrong_is_left(server, tmp_path):
    server.faults[WEIGHTS] = ["hang"]
    code = f"import rws_keras; rws_keras.HelmholtzMachine.from_preset({NAME!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ZOO.parent)
    while WEIGHTS not in server.requests:
        time.sleep(0.05)
        assert process.poll() is None
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole = [path for path in cached(tmp_path).values() if ".partial-" not in str(path)]
    assert WEIGHTS not in [path.name for path in whole]
    assert np.isfinite(scores(HelmholtzMachine.from_preset(NAME))).all()
    # The half is cleared away once it is so old that nobody can be at work on it.
    (half,) = (tmp_path / "home").rglob(".partial-*")
    os.utime(half, (0, 0))
    cached(tmp_path)["config.json"].unlink()
    HelmholtzMachine.from_preset(NAME)
    assert not half.exists()


def test_names_that_are_not_there(tmp_path):
    with pytest.raises(PresetError, match=f"Did you mean '{NAME}'"):
        HelmholtzMachine.from_preset("digits-sbn-64-33")
    with pytest.raises(PresetError, match=r"no preset\.json"):
        HelmholtzMachine.from_preset("no/such/folder")
    with pytest.raises(PresetError, match="http or https"):
        HelmholtzMachine.from_preset("file:///etc")
    with pytest.raises(PresetError, match="cannot be downloaded: Connection refused"):
        downloads._fetch("http://127.0.0.1:9/index.json", tmp_path)
    with pytest.raises(PresetError, match="cannot be downloaded: Invalid URL"):
        HelmholtzMachine.from_preset("http://:80")


def test_without_a_zoo(monkeypatch, tmp_path):
    monkeypatch.delenv("RWS_KERAS_ZOO", raising=False)
    monkeypatch.setattr(resources, "folder", lambda name: tmp_path / name)
    with pytest.raises(PresetError, match="RWS_KERAS_ZOO"):
        rws_keras.presets()


@pytest.mark.parametrize(
    "presets", [None, [NAME], {NAME: 3}, {NAME: {"size": 3}}, {NAME: {"sha256": None}}]
)
def test_a_damaged_index_is_told(server, presets):
    (server.root / "index.json").write_text(json.dumps({"format": 1, "presets": presets}))
    with pytest.raises(PresetError, match="is not a zoo"):
        HelmholtzMachine.from_preset(NAME)


# What an untrusted preset may try.


@pytest.fixture
def preset(tmp_path):
    shutil.copytree(ZOO / NAME, tmp_path / NAME)
    return tmp_path / NAME


def change(preset, name, content):
    """Changes a file and its listing, as its author could."""
    (preset / name).write_bytes(content)
    metadata = json.loads((preset / "preset.json").read_text())
    path = preset / name
    metadata["files"][name] = {"size": path.stat().st_size, "sha256": preset_files.sha256(path)}
    (preset / "preset.json").write_text(json.dumps(metadata))


def configs(mark):
    """Configurations that would run code if anything of them were called."""
    touch = {"args": ["touch", str(mark)]}
    yield {"module": "subprocess", "class_name": "Popen", "config": touch, "registered_name": None}
    yield {
        "module": "os",
        "class_name": "function",
        "config": "system",
        "registered_name": "function",
    }
    code = "4wEAAAAAAAAAAAAAAAAAAAAA"
    yield {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {
            "name": "run",
            "function": {
                "class_name": "__lambda__",
                "config": {"code": code, "defaults": None, "closure": None},
            },
        },
        "registered_name": None,
    }
    yield {
        "module": "keras.utils",
        "class_name": "get_file",
        "config": {"fname": "x", "origin": "http://127.0.0.1:9/x"},
        "registered_name": None,
    }


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "within a layer"])
def test_a_configuration_runs_no_code(preset, tmp_path, number, inside):
    mark = tmp_path / "mark"
    content = list(configs(mark))[number]
    if inside:
        machine = json.loads((preset / "config.json").read_text())
        machine["config"]["p_layers"][0]["config"]["kernel_initializer"] = content
        content = machine
    change(preset, "config.json", json.dumps(content).encode())
    with pytest.raises(PresetError, match="does not hold a machine"):
        HelmholtzMachine.from_preset(preset)
    assert not mark.exists()


def test_weights_are_arrays_only(preset):
    import pickle

    change(preset, WEIGHTS, pickle.dumps(print))
    with pytest.raises(PresetError, match="does not hold a machine"):
        HelmholtzMachine.from_preset(preset)


@pytest.mark.parametrize("name", ["../../escaped", "/etc/passwd", "a/b", ".hidden"])
def test_names_of_files_lead_nowhere_else(preset, name):
    metadata = json.loads((preset / "preset.json").read_text())
    metadata["files"][name] = {"size": 1, "sha256": "0" * 64}
    (preset / "preset.json").write_text(json.dumps(metadata))
    with pytest.raises(PresetError, match="damaged"):
        HelmholtzMachine.from_preset(preset)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot be read"),
        (b"[]", "format"),
        (b'{"format": 99}', "format 1"),
        (b'{"format": 1}', "damaged"),
        (b'{"format": 1, "files": 3}', "damaged"),
        (b'{"format": 1, "files": {"config.json": 3}}', "damaged"),
    ],
)
def test_damaged_metadata_are_told(preset, content, message):
    (preset / "preset.json").write_bytes(content)
    with pytest.raises(PresetError, match=message):
        HelmholtzMachine.from_preset(preset)


def test_files_that_are_not_as_listed_are_told(preset):
    (preset / "config.json").write_text("{}")
    with pytest.raises(PresetError, match="SHA-256"):
        HelmholtzMachine.from_preset(preset)
    (preset / "config.json").unlink()
    with pytest.raises(PresetError, match="has no "):
        HelmholtzMachine.from_preset(preset)


def test_weights_of_another_machine_are_told(preset):
    other = HelmholtzMachine.from_sizes(64, [5])
    path = preset / "other.weights.h5"
    other.save_weights(path)
    change(preset, WEIGHTS, path.read_bytes())
    with pytest.raises(PresetError, match="does not hold a machine"):
        HelmholtzMachine.from_preset(preset)
