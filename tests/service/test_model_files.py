"""What may lie in a directory of models: a fault concerns the version that has it, alone."""

import os
import shutil
import threading
import time
import types

import pytest
from server_process import ServerProcess
from wire import PREDICT, ROW

from rws_keras.serving.model_config import directory_config
from rws_keras.serving.repository import Repository

POLL = 0.2


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


def add_version(models, name, number="1"):
    version = models / name / number
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    return version


@pytest.mark.processes
def test_a_server_of_faulty_directories(versions, models, tmp_path):
    shutil.copytree(versions / "1", models / "digits" / "1")
    (models / "digits" / "3").symlink_to(tmp_path / "nowhere")
    (models / "dangling").symlink_to(tmp_path / "nowhere")
    (models / "loop").symlink_to(models / "loop")
    (models / "lost+found").mkdir(mode=0)
    (models / "empty").mkdir()
    (models / "file").touch()
    shutil.copytree(versions / "1", models / "large" / str(2**63))
    shutil.copytree(versions / "1", models / "large" / ("9" * 5000)[:200])
    (models / "pipe" / "1").mkdir(parents=True)
    os.mkfifo(models / "pipe" / "1" / "saved_model.pb")
    shutil.copytree(versions / "1", models / "inner-pipe" / "1")
    os.mkfifo(models / "inner-pipe" / "1" / "variables" / "more")
    shutil.copytree(versions / "1", models / "unreadable-version" / "1")
    shutil.copytree(versions / "1", models / "unreadable-file" / "1")
    (models / "unreadable-version" / "1").chmod(0)
    (models / "unreadable-file" / "1" / "saved_model.pb").chmod(0)
    (models / "unreadable").mkdir(mode=0)
    add_version(models, "no-graph")
    server = ServerProcess("--models", models, "--poll-seconds", POLL, log=tmp_path / "log")
    try:
        assert server.post(PREDICT, {"instances": [ROW]})[0] == 200
        for name, reason in [
            ("pipe", "saved_model.pb is neither a file nor a directory"),
            ("inner-pipe", "more is neither a file nor a directory"),
            ("unreadable-version", "Permission denied"),
            ("unreadable-file", "Permission denied"),
            ("no-graph", "no graph for serving"),
        ]:
            (status,) = server.get(f"/v1/models/{name}")[1]["model_version_status"]
            assert status["state"] == "END"
            assert reason in status["status"]["error_message"]
        for name in ("empty", "lost+found", "large", "dangling", "loop", "unreadable"):
            assert server.get(f"/v1/models/{name}")[0] == 404
        # A new version is still found, and what could be mended is.
        (models / "unreadable-version" / "1").chmod(0o700)
        shutil.copytree(versions / "2", models / "digits" / "2")
        for name, number in (("digits", "2"), ("unreadable-version", "1")):
            for _ in range(600):
                statuses = server.get(f"/v1/models/{name}")[1]["model_version_status"]
                if [(each["version"], each["state"]) for each in statuses] == [
                    (number, "AVAILABLE")
                ]:
                    break
                time.sleep(0.05)
            else:
                pytest.fail(f"{statuses}")
    finally:
        for path in models.iterdir():
            if path.is_dir():
                path.chmod(0o700)
        code = server.stop()
    assert code == 0
    assert "Traceback" not in server.log
    logged = [line.split("repository: ")[1] for line in server.log.splitlines() if "repo" in line]
    faults = [line for line in logged if not line.startswith(("Serving", "Unloaded"))]
    assert len(faults) == len(set(faults)) == 7, server.log


def test_a_version_is_loaded_once_it_is_complete(models):
    loaded = []

    def load(path):
        loaded.append(sorted(os.listdir(path)))
        return types.SimpleNamespace()

    version = add_version(models, "m")
    repository = Repository(lambda: directory_config(models), load, settle_seconds=0.3)
    # It is being copied, with the times of the original: not all has come yet.
    for name in ("a", "b", "c"):
        (version / name).touch()
        os.utime(version / name, (0, 0))
        assert repository.update()
        time.sleep(0.1)
    assert loaded == []
    time.sleep(0.3)
    assert not repository.update()
    assert loaded == [["a", "b", "c", "saved_model.pb"]]
    # What has been there for long is loaded at once.
    late = Repository(lambda: directory_config(models), load, settle_seconds=0.3)
    assert not late.update()
    assert late.serving() == {"m": [1]}


def test_stop_does_not_wait_for_a_version_that_is_being_loaded(models):
    loading, go_on = threading.Event(), threading.Event()

    def load(path):
        loading.set()
        go_on.wait(60)

    add_version(models, "m")
    repository = Repository(lambda: directory_config(models), load)
    repository.start(POLL, lambda: None)
    assert loading.wait(30)
    start = time.perf_counter()
    repository.stop()
    assert time.perf_counter() - start < 1
    go_on.set()


def test_a_directory_that_cannot_be_read_is_logged_once(models, caplog):
    repository = Repository(lambda: directory_config(models), lambda path: None)
    repository.start(0.01, lambda: None)
    time.sleep(0.2)
    add_version(models, "m")
    for _ in range(500):
        if repository.ready():
            break
        time.sleep(0.01)
    repository.stop()
    assert repository.serving() == {"m": [1]}
    assert len(caplog.records) == 1
    assert "No such file" in caplog.text
