"""Versions come and go: none is dropped under load, labels and policies say which serve."""

import shutil
import threading
import time
import types
import weakref

import grpc
import numpy as np
import pytest
import tensorflow as tf
from server_process import ServerProcess
from tensorflow_serving.apis import model_management_pb2
from wire import PREDICT, as_python, request_for

from rws_keras.serving import model_files
from rws_keras.serving.errors import ServingError
from rws_keras.serving.model_config import directory_config
from rws_keras.serving.repository import Repository, Target

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
    server = ServerProcess("--model-config-file", config, "--config-reload", log=tmp_path / "log")
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

        good = {"name": "renamed", "base_path": str(versions), "model_platform": "tensorflow"}
        stable = {"version_labels": {"stable": 2}, **good}
        for models, code, part in [
            ([good, good], "INVALID_ARGUMENT", "'renamed' is listed more than once"),
            ([{**good, "name": ""}], "INVALID_ARGUMENT", "needs a name"),
            (
                [good, {**good, "name": "b", "base_path": "b"}],
                "INVALID_ARGUMENT",
                "'b' needs an ab",
            ),
            ([{**good, "base_path": str(tmp_path / "no")}], "INVALID_ARGUMENT", "no base path"),
            ([{**good, "base_path": str(tmp_path)}], "INVALID_ARGUMENT", "No versions"),
            ([{**good, "model_platform": "torch"}], "INVALID_ARGUMENT", "got 'torch'"),
            ([{**good, "version_labels": {"a": 7}}], "FAILED_PRECONDITION", "version 7"),
            ([{**good, "version_labels": {"a": 1}}], "FAILED_PRECONDITION", "version 1"),
        ]:
            with pytest.raises(grpc.RpcError) as caught:
                server.models.HandleReloadConfigRequest(reload_request(*models))
            assert caught.value.code().name == code
            assert part in caught.value.details()
        with pytest.raises(grpc.RpcError, match="model_config_list"):
            server.models.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest())
        assert len(server.get("/v1/models/digits")[1]["model_version_status"]) == 2

        server.models.HandleReloadConfigRequest(reload_request(stable))
        path = "/v1/models/renamed/labels/stable:predict"
        assert server.post(path, {"instances": x.tolist()})[0] == 200
        assert server.get("/v1/models/digits")[0] == 404
    finally:
        server.kill()


def reload_request(*models):
    request = model_management_pb2.ReloadConfigRequest()
    for model in models:
        request.config.model_config_list.config.add(**model)
    return request


def test_clients_change_no_configuration_unless_they_may(server, versions):
    request = reload_request(
        {"name": "renamed", "base_path": str(versions), "model_platform": "tensorflow"}
    )
    with pytest.raises(grpc.RpcError, match="--config-reload") as caught:
        server.models.HandleReloadConfigRequest(request)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert server.get("/v1/models/digits")[0] == 200


def test_a_directory_that_is_gone_takes_no_model_with_it(tmp_path):
    (tmp_path / "models" / "m" / "1").mkdir(parents=True)
    (tmp_path / "models" / "m" / "1" / "saved_model.pb").touch()

    class Loaded:
        """What can be referred to weakly."""

    loaded = []

    def load(path):
        loaded.append(weakref.ref(servable := Loaded()))
        return servable

    repository = Repository(lambda: directory_config(tmp_path / "models"), load)
    repository.update()
    (tmp_path / "models").rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        repository.update()
    assert repository.servable(Target("m")) == (1, loaded[0]())
    (tmp_path / "away").rename(tmp_path / "models")
    shutil.rmtree(tmp_path / "models" / "m")
    repository.update()
    assert repository.serving() == {}
    assert loaded[0]() is None


def test_a_base_path_that_vanishes_keeps_the_last_version(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "saved_model.pb").touch()
    config = directory_config(tmp_path)
    repository = Repository(lambda: config, lambda path: types.SimpleNamespace())
    repository.update()
    (tmp_path / "m").rename(tmp_path / "away")
    repository.update()
    assert repository.serving() == {"m": [1]}
    # A base path that is there and empty is meant: as in TF Serving its versions go.
    (tmp_path / "m").mkdir()
    repository.update()
    assert repository.serving() == {"m": []}


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
    assert server.get("/readyz") == (503, {"error": "No model is loaded."})


def test_ready_is_a_server_that_has_looked_and_has_a_model(tmp_path):
    seen = []

    def load(path):
        seen.append((path.parent.name, repository.ready()))
        if path.parent.name == "broken":
            raise OSError("no variables")
        return types.SimpleNamespace()

    for name in ("broken", "first", "second"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "saved_model.pb").touch()
    (tmp_path / "unfinished" / "1").mkdir(parents=True)
    repository = Repository(lambda: directory_config(tmp_path), load)
    with pytest.raises(ServingError, match="being loaded") as caught:
        repository.servable(Target("first"))
    assert caught.value.http_status == 503
    loaded = threading.Event()
    repository.start(0.05, loaded.set)
    assert loaded.wait(30)
    repository.stop()
    assert repository.ready()
    assert seen == [("broken", False), ("first", False), ("second", False)]
    assert repository.serving() == {"broken": [], "first": [1], "second": [1], "unfinished": []}


def test_a_model_that_cannot_be_looked_up_leaves_the_others_alone(tmp_path, caplog):
    """Its directory, that is: an error of the file system, and not that nothing is there."""
    for name in ("first", "second"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "saved_model.pb").touch()
    config = directory_config(tmp_path)
    repository = Repository(lambda: config, lambda path: types.SimpleNamespace())
    repository.update()
    config.model_config_list.config[0].base_path = "x" * 300
    (tmp_path / "second" / "1").rename(tmp_path / "second" / "2")
    for _ in range(3):
        repository.update()
    assert repository.serving() == {"first": [1], "second": [2]}
    (message,) = (record.msg for record in caplog.records if "stays" in record.msg)
    assert message.startswith("Model first stays as it is: ")


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
    (seen,) = repository.versions(Target("m"))
    assert seen.error == "no variables"
    (version / "variables" / "index").touch()
    repository.update()
    assert len(tried) == 2
    assert repository.serving() == {"m": [1]}


def test_a_passing_fault_of_the_disk_is_not_for_good(tmp_path, monkeypatch):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "saved_model.pb").touch()
    repository = Repository(lambda: directory_config(tmp_path), lambda path: path, 1000.0)
    repository.update()  # seen, and left to settle
    look = model_files.fingerprint

    def fail(path):
        raise OSError("Stale file handle")

    monkeypatch.setattr(model_files, "fingerprint", fail)
    repository.update()
    (seen,) = repository.versions(Target("m"))
    assert seen.error == "Stale file handle"
    monkeypatch.setattr(model_files, "fingerprint", look)
    repository._settle_seconds = 0.0
    repository.update()
    assert repository.serving() == {"m": [1]}
