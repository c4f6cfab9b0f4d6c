"""TF Serving's REST API: rows, columns, status, metadata, metrics."""

import json
import re
import urllib.request

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import predict_pb2
from wire import PREDICT, as_python

pytestmark = pytest.mark.processes


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
    assert "__saved_model_init_op" in signatures  # as TF Serving: all, callable or not


def test_floats_have_the_digits_of_float32(server, x, scorers):
    expected = as_python(scorers[1]["serving_default"], x=x)["log_likelihood"]
    body = json.dumps({"inputs": x.tolist()}).encode()
    with urllib.request.urlopen(server.url + PREDICT, body) as response:
        text = response.read().decode()
    numbers = re.search(r'"log_likelihood":\[([^]]*)\]', text)[1].split(",")
    assert numbers == [str(value) for value in expected]


def test_every_answer_is_counted(server, x):
    assert server.get("/healthz")[0] == server.get("/readyz")[0] == 200

    def count(code, model="digits", protocol="rest"):
        _, text = server.get("/monitoring/prometheus/metrics")
        name = f'rws_keras_requests_total{{code="{code}",model="{model}",protocol="{protocol}"}}'
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def counts():
        return [
            count("OK"),
            count("INVALID_ARGUMENT"),
            count("FAILED_PRECONDITION"),
            count("NOT_FOUND", "none"),
            count("INVALID_ARGUMENT", "none"),
            count("INVALID_ARGUMENT", "none", "grpc"),
        ]

    before = counts()
    server.post(PREDICT, {"instances": x.tolist()})
    server.post(PREDICT, {"instances": [[2] * 5]})
    server.post(PREDICT, {"signature_name": "no", "instances": [[2] * 5]})
    server.get("/nowhere")
    server.get("/v1/nowhere")
    with pytest.raises(grpc.RpcError):
        server.prediction.Predict(predict_pb2.PredictRequest())
    assert counts() == [number + 1 for number in before]
