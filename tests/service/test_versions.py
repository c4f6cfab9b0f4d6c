"""Versions come and go: none is dropped under load, labels and policies say which serve."""

import shutil
import threading
import time
import types

import numpy as np
import pytest
import tensorflow as tf
from server_process import ServerProcess
from tensorflow_serving.apis import model_management_pb2
from wire import PREDICT, as_python, request_for

from rws_keras.serving.repository import Repository, directory_config

pytestmark = pytest.mark.processes


def test_a_new_version_takes_over_without_a_dropped_request(
    own_server, versions, tmp_path, x, scorers
):
    server = own_server()
    expected = {
        version: as_python(scorers[version]["serving_default"], x=x)["log_likelihood"]
        for version in (1, 2)
    }
    assert not np.array_equal(expected[1], expected[2])
    stop, failures, answers = threading.Event(), [], []

    def ask(number):
        while not stop.is_set():
            try:
                if number % 2:
                    response = server.prediction.Predict(request_for(x=x))
                    version = response.model_spec.version.value
                    found = tf.make_ndarray(response.outputs["log_likelihood"])
                    ok = np.array_equal(found, expected[version])
                else:
                    status, answer = server.post(PREDICT, {"inputs": x.tolist()})
                    assert status == 200, answer
                    found = np.float32(answer["outputs"]["log_likelihood"])
                    version = 1 if np.array_equal(found, expected[1]) else 2
                    ok = np.array_equal(found, expected[version])
                answers.append(version)
                if not ok:
                    failures.append(found)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    base = tmp_path / "models" / "digits"
    # As an exporter does: complete under another name, then renamed.
    shutil.copytree(versions / "2", base / ".copy")
    (base / ".copy").rename(base / "2")
    for _ in range(300):
        _, answer = server.get("/v1/models/digits")
        if [entry["version"] for entry in answer["model_version_status"]] == ["2"]:
            break
        time.sleep(0.1)
    # Requests that were under way when the new version came are still answered by the old one.
    for _ in range(300):
        if answers[-1] == 2:
            break
        time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert answers[0] == 1
    assert answers[-1] == 2
    assert server.get("/v1/models/digits/versions/1")[0] == 404

    # A version that cannot be loaded leaves the one that serves, and says why.
    (base / "3").mkdir()
    (base / "3" / "saved_model.pb").write_bytes(b"no graph")
    for _ in range(100):
        _, answer = server.get("/v1/models/digits")
        if answer["model_version_status"][0]["version"] == "3":
            break
        time.sleep(0.1)
    time.sleep(0.5)
    broken, serving = server.get("/v1/models/digits")[1]["model_version_status"]
    assert broken["state"] == "END"
    assert broken["status"]["error_message"]
    assert (serving["version"], serving["state"]) == ("2", "AVAILABLE")
    assert server.post(PREDICT, {"instances": x.tolist()})[0] == 200


def test_labels_policies_and_a_new_configuration(versions, tmp_path, x, scorers):
    config = tmp_path / "models.config"
    config.write_text(
        f"""
        model_config_list {{
          config {{
            name: "digits"
            base_path: "{versions}"
            model_platform: "tensorflow"
            model_version_policy {{ all {{}} }}
            version_labels {{ key: "stable" value: 1 }}
            version_labels {{ key: "canary" value: 2 }}
          }}
        }}
        """
    )
    server = ServerProcess(
        "--model-config-file", config, "--poll-seconds", 0.2, log=tmp_path / "log"
    )
    try:
        for label, version in [("stable", 1), ("canary", 2)]:
            expected = as_python(scorers[version]["serving_default"], x=x)["log_likelihood"]
            body = {"inputs": x.tolist()}
            _, answer = server.post(f"/v1/models/digits/labels/{label}:predict", body)
            np.testing.assert_array_equal(np.float32(answer["outputs"]["log_likelihood"]), expected)
            _, answer = server.post(f"/v1/models/digits/versions/{version}:predict", body)
            np.testing.assert_array_equal(np.float32(answer["outputs"]["log_likelihood"]), expected)
            request = request_for(x=x)
            request.model_spec.version_label = label
            assert server.prediction.Predict(request).model_spec.version.value == version
        assert len(server.get("/v1/models/digits")[1]["model_version_status"]) == 2

        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.config.add(
            name="renamed", base_path=str(versions), model_platform="tensorflow"
        )
        server.models.HandleReloadConfigRequest(request)
        assert server.post("/v1/models/renamed:predict", {"instances": x.tolist()})[0] == 200
        assert server.get("/v1/models/digits")[0] == 404
    finally:
        server.kill()


def test_a_directory_that_is_gone_takes_no_model_with_it(tmp_path):
    (tmp_path / "models" / "m" / "1").mkdir(parents=True)
    (tmp_path / "models" / "m" / "1" / "saved_model.pb").touch()
    closed = []
    servable = types.SimpleNamespace(close=lambda: closed.append(True))
    repository = Repository(lambda: directory_config(tmp_path / "models"), lambda path: servable)
    repository.update()
    assert repository.ready()
    (tmp_path / "models").rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        repository.update()
    with repository.use("m") as (number, _):
        assert number == 1
    (tmp_path / "away").rename(tmp_path / "models")
    shutil.rmtree(tmp_path / "models" / "m")
    repository.update()
    assert repository.names() == []
    assert closed == [True]


def test_models_that_do_not_serve_leave_the_others_ready(own_server, tmp_path, x):
    server, models = own_server(), tmp_path / "models"
    (models / "empty").mkdir()
    (models / "unfinished" / "1" / "variables").mkdir(parents=True)
    (models / "broken" / "1").mkdir(parents=True)
    (models / "broken" / "1" / "saved_model.pb").write_bytes(b"no graph")
    for _ in range(300):
        status, answer = server.get("/v1/models/broken")
        assert server.get("/readyz") == (200, {"status": "ok"})
        if status == 200 and answer["model_version_status"][0]["state"] == "END":
            break
        time.sleep(0.05)
    assert answer["model_version_status"][0]["status"]["error_message"]
    assert server.get("/v1/models/unfinished")[0] == 404
    assert server.post(PREDICT, {"instances": x.tolist()})[0] == 200
    # Where these are all there is, nothing can be answered.
    shutil.rmtree(models / "digits")
    for _ in range(100):
        if server.get("/readyz")[0] == 503:
            break
        time.sleep(0.05)
    assert server.get("/readyz") == (503, {"status": "not ready"})


def test_ready_is_a_server_with_a_model_that_serves(tmp_path):
    seen = []

    def load(path):
        seen.append((path.parent.name, repository.ready()))
        if path.parent.name == "broken":
            raise OSError("no variables")
        return types.SimpleNamespace(close=lambda: None)

    def add(name):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "saved_model.pb").touch()
        repository.update()
        return repository.ready()

    repository = Repository(lambda: directory_config(tmp_path), load)
    repository.update()
    assert not repository.ready()
    (tmp_path / "unfinished" / "1").mkdir(parents=True)
    assert not add("broken")
    assert add("first")
    assert add("second")
    assert seen == [("broken", False), ("first", False), ("second", True)]
    assert repository.serving() == {"broken": [], "first": [1], "second": [1], "unfinished": []}


def test_a_model_that_cannot_be_looked_up_leaves_the_others_alone(tmp_path, caplog):
    """Its directory, that is: an error of the file system, and not that nothing is there."""
    for name in ("first", "second"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "saved_model.pb").touch()
    config = directory_config(tmp_path)
    servable = types.SimpleNamespace(close=lambda: None)
    repository = Repository(lambda: config, lambda path: servable)
    repository.update()
    config.model_config_list.config[0].base_path = "x" * 300
    (tmp_path / "second" / "1").rename(tmp_path / "second" / "2")
    for _ in range(3):
        repository.update()
    assert repository.serving() == {"first": [1], "second": [2]}
    assert [record.args[0] for record in caplog.records if "stays" in record.msg] == ["first"]


def test_a_version_that_was_incomplete_is_tried_again_when_it_changes(tmp_path):
    version = tmp_path / "m" / "1"
    (version / "variables").mkdir(parents=True)
    (version / "saved_model.pb").touch()
    tried = []

    def load(path):
        tried.append(path)
        if not (path / "variables" / "index").exists():
            raise OSError("no variables")

    repository = Repository(lambda: directory_config(tmp_path), load)
    for _ in range(3):
        repository.update()
    assert len(tried) == 1
    (status,) = repository.statuses("m", None, None)
    assert status.status.error_message == "no variables"
    (version / "variables" / "index").touch()
    repository.update()
    assert len(tried) == 2
    assert repository.ready()
