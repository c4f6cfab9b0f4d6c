"""TF Serving's REST API: rows, columns, status, metadata, errors, metrics."""

import numpy as np
import pytest
from wire import PREDICT, ROW, as_python

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
