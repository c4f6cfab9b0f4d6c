"""The embedded server keeps TF Serving's contract: REST, gRPC, versions, labels, limits."""

import asyncio
import concurrent.futures
import json
import shutil
import signal
import threading
import time
import types

import grpc
import numpy as np
import pytest
import tensorflow as tf
from server_process import ServerProcess
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    predict_pb2,
)

from rws_keras import HelmholtzMachine
from serving import rest
from serving.export import export
from serving.metrics import Metrics
from serving.predictor import Limits, Predictor
from serving.repository import Repository, directory_config
from serving.scorer import Scorer

PRESET = "digits-sbn-64-32"
SMALL = {"num_particles": 20, "fast": 5, "accurate": 50, "num_completions": 3}
PREDICT = "/v1/models/digits:predict"


@pytest.fixture(scope="module")
def x():
    return HelmholtzMachine.from_preset(PRESET).sample(6, seed=1).x.numpy()


@pytest.fixture(scope="module")
def scorers():
    """The functions of versions 1 and 2, in Python."""
    machine = HelmholtzMachine.from_preset(PRESET)
    return {seed: Scorer(machine, **SMALL, seed=seed).signatures() for seed in (1, 2)}


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Two versions that give different scores."""
    models = tmp_path_factory.mktemp("exported")
    for seed in (1, 2):
        export(PRESET, models, "digits", **SMALL, seed=seed)
    return models / "digits"


@pytest.fixture(scope="module")
def server(versions, tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(versions / "1", models / "digits" / "1")
    server = ServerProcess(
        "--models", models, "--poll-seconds", 0.2, log=tmp_path_factory.mktemp("log") / "log"
    )
    yield server
    assert server.stop() == 0, server.log


@pytest.fixture
def own_server(versions, tmp_path):
    """Starts servers of version 1 with options of the test's own."""
    shutil.copytree(versions / "1", tmp_path / "models" / "digits" / "1")
    started = []

    def start(*options):
        options = ("--models", tmp_path / "models", "--poll-seconds", 0.2, *options)
        started.append(ServerProcess(*options, log=tmp_path / "log"))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def as_python(function, **inputs):
    outputs = function(**{key: tf.constant(array) for key, array in inputs.items()})
    return {key: output.numpy() for key, output in outputs.items()}


def request_for(signature="", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "digits"
    request.model_spec.signature_name = signature
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return request


# REST.


def test_rows(server, x, scorers):
    expected = as_python(scorers[1]["serving_default"], x=x)
    for instances in (x.tolist(), [{"x": row} for row in x.astype(int).tolist()]):
        status, answer = server.post(PREDICT, {"instances": instances})
        assert status == 200
        assert list(answer) == ["predictions"]
        assert set(answer["predictions"][0]) == set(expected)
        for key, values in expected.items():
            found = np.float32([row[key] for row in answer["predictions"]])
            np.testing.assert_array_equal(found, values)


def test_columns(server, x, scorers):
    expected = as_python(scorers[1]["score_fast"], x=x)
    for inputs in (x.tolist(), {"x": x.tolist()}):
        body = {"signature_name": "score_fast", "inputs": inputs}
        status, answer = server.post(PREDICT, body)
        assert status == 200
        assert list(answer) == ["outputs"]
        for key, values in expected.items():
            np.testing.assert_array_equal(np.float32(answer["outputs"][key]), values)


def test_one_output_comes_without_its_name(server, x, scorers):
    expected = as_python(scorers[1]["reconstruct"], x=x)["mean"]
    body = {"signature_name": "reconstruct"}
    _, answer = server.post(PREDICT, {**body, "instances": x.tolist()})
    np.testing.assert_array_equal(np.float32(answer["predictions"]), expected)
    _, answer = server.post(PREDICT, {**body, "inputs": x.tolist()})
    np.testing.assert_array_equal(np.float32(answer["outputs"]), expected)


def test_several_inputs_and_seeds(server, x, scorers):
    mask = np.ones_like(x)
    mask[:, :40] = 0.0
    expected = as_python(scorers[1]["impute"], x=x, mask=mask)
    rows = [{"x": a, "mask": b} for a, b in zip(x.tolist(), mask.tolist(), strict=True)]
    _, answer = server.post(PREDICT, {"signature_name": "impute", "instances": rows})
    for key, values in expected.items():
        found = np.float32([row[key] for row in answer["predictions"]])
        np.testing.assert_array_equal(found, values)
    expected = as_python(scorers[1]["sample"], seed=np.array([3, 2**40], np.int64))
    _, answer = server.post(PREDICT, {"signature_name": "sample", "inputs": [3, 2**40]})
    np.testing.assert_array_equal(np.float32(answer["outputs"]["x"]), expected["x"])


def test_status_and_metadata(server):
    available = {
        "version": "1",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    for path in ("/v1/models/digits", "/v1/models/digits/versions/1"):
        assert server.get(path) == (200, {"model_version_status": [available]})
    status, answer = server.get("/v1/models/digits/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "digits", "signature_name": "", "version": "1"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    x = signatures["impute"]["inputs"]["x"]
    assert x["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in x["tensor_shape"]["dim"]] == ["-1", "64"]
    assert signatures["impute"]["method_name"] == "tensorflow/serving/predict"


ROW = [0] * 64


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (PREDICT, b"{", 400, "not JSON"),
        (PREDICT, b"\xff\xfe", 400, "not JSON"),
        (PREDICT, b"[" * 100_000, 400, "not JSON"),
        (PREDICT, [1], 400, "JSON object"),
        (PREDICT, {}, 400, "`instances`"),
        (PREDICT, {"instances": [ROW], "inputs": [ROW]}, 400, "either"),
        (PREDICT, {"instances": [ROW], "more": 1}, 400, "more"),
        (PREDICT, {"instances": []}, 400, "at least one"),
        (PREDICT, {"instances": 3}, 400, "list"),
        (PREDICT, {"inputs": []}, 400, "[N, 64]"),
        (PREDICT, {"instances": [ROW, ROW[1:]]}, 400, "not an array"),
        (PREDICT, {"instances": [ROW[1:]]}, 400, "[N, 64], got [1, 63]"),
        (PREDICT, {"instances": ROW}, 400, "[N, 64]"),
        (PREDICT, {"instances": [["a"] * 64]}, 400, "float32"),
        (PREDICT, {"instances": [[None] * 64]}, 400, "float32"),
        (PREDICT, {"instances": [[10**400] * 64]}, 400, "float32"),
        (PREDICT, {"instances": [{"y": ROW}]}, 400, "Expected the inputs: x; got: y"),
        (PREDICT, {"instances": [{"x": ROW}, ROW]}, 400, "same inputs"),
        (PREDICT, {"instances": [ROW, {"x": ROW}]}, 400, "mixes"),
        (PREDICT, {"instances": [ROW, [0.5] * 64]}, 400, "Row 1 is not binary"),
        (PREDICT, {"instances": [[float("nan")] * 64]}, 400, "Row 0 is not binary"),
        (PREDICT, {"signature_name": "no", "instances": [ROW]}, 400, "Unknown signature 'no'"),
        (PREDICT, {"signature_name": 5, "instances": [ROW]}, 400, "string"),
        (PREDICT, {"signature_name": "impute", "instances": [ROW]}, 400, "mask, x"),
        (
            PREDICT,
            {"signature_name": "impute", "inputs": {"x": [ROW], "mask": [ROW, ROW]}},
            400,
            "different numbers of rows",
        ),
        (PREDICT, {"signature_name": "sample", "inputs": [1.5]}, 400, "int64"),
        (PREDICT, {"signature_name": "sample", "inputs": [2**63]}, 400, "int64"),
        (PREDICT, {"instances": [ROW] * 5000}, 413, "at most 4,096"),
        ("/v1/models/none:predict", {"instances": [ROW]}, 404, "served are: digits"),
        ("/v1/models/digits/versions/9:predict", {"instances": [ROW]}, 404, "no version 9"),
        ("/v1/models/digits/versions/x:predict", {"instances": [ROW]}, 400, "number"),
        ("/v1/models/digits/labels/a:predict", {"instances": [ROW]}, 404, "no version label"),
        ("/v1/models/digits:classify", {"examples": []}, 405, "Method Not Allowed"),
        ("/v1/models/digits", {}, 405, "Method Not Allowed"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_requests_are_told_what_is_wrong(server, path, body, status, message):
    found, answer = server.post(path, body)
    assert found == status
    assert list(answer) == ["error"]
    assert message in answer["error"]


def test_health_and_metrics(server, x):
    assert server.get("/healthz")[0] == server.get("/readyz")[0] == 200

    def count(code):
        _, text = server.get("/monitoring/prometheus/metrics")
        name = f'rws_keras_requests_total{{code="{code}",model="digits",protocol="rest"}}'
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    before = count("OK"), count("INVALID_ARGUMENT")
    server.post(PREDICT, {"instances": x.tolist()})
    server.post(PREDICT, {"instances": [[2] * 64]})
    assert (count("OK"), count("INVALID_ARGUMENT")) == (before[0] + 1, before[1] + 1)


# gRPC.


def test_predict_by_the_stubs_of_tensorflow_serving(server, x, scorers):
    expected = as_python(scorers[1]["serving_default"], x=x)
    response = server.prediction.Predict(request_for(x=x))
    assert response.model_spec.name == "digits"
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"
    assert set(response.outputs) == set(expected)
    for key, values in expected.items():
        np.testing.assert_array_equal(tf.make_ndarray(response.outputs[key]), values)
    request = request_for("score_fast", x=x)
    request.output_filter.append("log_likelihood")
    assert list(server.prediction.Predict(request).outputs) == ["log_likelihood"]


def test_metadata_and_status_by_grpc(server):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "digits"
    response = server.prediction.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert "posterior" in signatures.signature_def
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "digits"
    (status,) = server.models.GetModelStatus(request).model_version_status
    assert (status.version, status.state) == (1, 30)


def wrong_calls():
    yield "dtype", request_for(x=np.zeros([1, 64])), "INVALID_ARGUMENT", "DT_DOUBLE"
    yield "shape", request_for(x=np.zeros([1, 5], np.float32)), "INVALID_ARGUMENT", "[N, 64]"
    yield "no input", request_for(), "INVALID_ARGUMENT", "none"
    yield "rows", request_for(x=np.zeros([5000, 64], np.float32)), "OUT_OF_RANGE", "4,096"
    yield "values", request_for(x=np.full([1, 64], 3, np.float32)), "INVALID_ARGUMENT", "binary"
    request = request_for(x=np.zeros([1, 64], np.float32))
    request.inputs["x"].tensor_shape.dim[0].size = 2**50
    yield "a shape of petabytes", request, "OUT_OF_RANGE", "rows"
    request = request_for(x=np.zeros([2, 64], np.float32))
    request.inputs["x"].tensor_content = b"1234"
    yield "too few values", request, "INVALID_ARGUMENT", "does not hold"
    request = request_for(x=np.zeros([1, 64], np.float32))
    request.model_spec.version.value = 9
    yield "version", request, "NOT_FOUND", "no version 9"
    request = request_for(x=np.zeros([1, 64], np.float32))
    request.output_filter.append("nothing")
    yield "output", request, "INVALID_ARGUMENT", "Unknown output"


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [pytest.param(*case[1:], id=case[0]) for case in wrong_calls()],
)
def test_wrong_calls_are_told_what_is_wrong(server, request_, code, message):
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Predict(request_)
    assert caught.value.code().name == code
    assert message in caught.value.details()


# Batches, versions, limits.


def test_rows_of_many_requests_are_answered_each_with_its_own(server, scorers):
    machine = HelmholtzMachine.from_preset(PRESET)
    x = machine.sample(64, seed=5).x.numpy()
    # Signatures of equal inputs and outputs: their batches must not mix either.
    tiers = ["score_fast", "serving_default", "score_accurate"]
    expected = {tier: as_python(scorers[1][tier], x=x)["log_likelihood"] for tier in tiers}

    def ask(row):
        # One in eight is wrong, and must not trouble those that share its batch.
        if row % 8 == 7:
            body = {"signature_name": tiers[row % 3], "instances": [[0.5] * 64]}
            return server.post(PREDICT, body)[0]
        request = request_for(tiers[row % 3], x=x[row : row + 1])
        return tf.make_ndarray(server.prediction.Predict(request).outputs["log_likelihood"])[0]

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        found = list(pool.map(ask, list(range(64)) * 4))
    right = [400 if row % 8 == 7 else expected[tiers[row % 3]][row] for row in range(64)] * 4
    assert found == right


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
    time.sleep(1.0)
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


def test_limits_and_key(own_server, x):
    options = ["--max-rows", 4, "--max-body-mb", 0.01, "--max-concurrency", 1]
    server = own_server(*options, "--api-key", "secret")
    assert server.get("/healthz")[0] == 200
    for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer no"}):
        assert server.post(PREDICT, {"instances": [ROW]}, **headers)[0] == 401
    assert server.get("/v1/models/digits")[0] == 401
    key = {"X-API-Key": "secret"}
    assert server.post(PREDICT, {"instances": [ROW]}, **key)[0] == 200
    assert server.post(PREDICT, {"instances": [ROW]}, Authorization="Bearer secret")[0] == 200
    assert server.post(PREDICT, {"instances": [ROW] * 5}, **key)[0] == 413
    status, answer = server.post(PREDICT, b" " * 20_000, **key)
    assert (status, "larger than" in answer["error"]) == (413, True)
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Predict(request_for(x=x[:1]))
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    server.prediction.Predict(request_for(x=x[:1]), metadata=[("x-api-key", "secret")])

    def ask(_):
        body = {"signature_name": "score_accurate", "instances": [ROW] * 4}
        return server.post(PREDICT, body, **key)[0]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(ask, range(200)))
    assert set(statuses) == {200, 429}
    assert ask(0) == 200


def test_after_kill_and_restart_it_answers_as_before(own_server, x):
    before = own_server()
    expected = before.post(PREDICT, {"instances": x.tolist()})
    before.process.send_signal(signal.SIGKILL)
    before.process.wait()
    assert own_server().post(PREDICT, {"instances": x.tolist()}) == expected


def test_told_to_end_it_answers_what_it_has_begun(own_server):
    server = own_server()
    rows = [ROW] * 4000
    body = {"signature_name": "score_accurate", "inputs": rows}
    request = request_for("score_accurate", x=np.float32(rows))

    def ask(number):
        if number % 2:
            outputs = server.prediction.Predict(request).outputs
            return len(tf.make_ndarray(outputs["log_likelihood"]))
        status, answer = server.post(PREDICT, body)
        assert status == 200, answer
        return len(answer["outputs"]["log_likelihood"])

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(ask, number) for number in range(12)]
        time.sleep(0.5)
        assert server.process.poll() is None
        assert not all(each.done() for each in asked)
        assert server.stop() == 0, server.log
        assert [each.result() for each in asked] == [4000] * 12


def test_a_body_that_does_not_come_loses_its_place(monkeypatch):
    monkeypatch.setattr(rest, "BODY_SECONDS", 0.2)
    predictor = Predictor(Repository(lambda: None), Limits(concurrency=1), Metrics())
    app = rest.make_app(predictor)
    scope = {"type": "http", "method": "POST", "path": PREDICT, "headers": [], "query_string": b""}

    async def ask(receive):
        sent = []

        async def send(message):
            sent.append(message)

        await app(dict(scope), receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])["error"]

    async def slow():
        await asyncio.sleep(0.15)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def gone():
        return {"type": "http.disconnect"}

    async def both():
        first = asyncio.create_task(ask(slow))
        await asyncio.sleep(0.05)
        return await ask(slow), await first, await ask(gone)

    refused, late, broken = asyncio.run(both())
    assert refused[0] == 429
    assert b"rws_keras_requests_refused_total 1.0" in predictor.metrics.text()
    assert late == (408, "The request did not arrive within 0 seconds.")
    assert broken == (400, "The request broke off.")


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


def test_options_that_make_no_sense(tmp_path):
    for options in ([], ["--models", tmp_path / "none"], ["--model-config-file", tmp_path]):
        with pytest.raises(RuntimeError, match="Error: "):
            ServerProcess(*options, log=tmp_path / "log")
