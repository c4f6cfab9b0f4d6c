"""What TF Serving answers to right and wrong requests, as its tests, documents and sources say."""

import gzip
import json

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)
from wire import PREDICT, ROW, request_for

pytestmark = pytest.mark.processes

MODEL = "/v1/models/digits"
TEXT = json.dumps([ROW]).encode()


def named(name, **content):
    return {"signature_name": name, **content}


# Path, body (`None` for GET), status, and a part of the message, or of what the answer holds.
REST = [
    # Accepted.
    (PREDICT, {"instances": [ROW], "more": [1]}, 200, "predictions"),
    (PREDICT, {"inputs": {"x": [ROW], "more": 1}}, 200, "outputs"),
    (PREDICT, {"signature_name": "", "inputs": [ROW]}, 200, "outputs"),
    (PREDICT, named("sample", inputs=[]), 200, "outputs"),
    (PREDICT, named("sample", inputs=[2**63 - 1]), 200, "outputs"),
    ("/V1/Models/digits/Versions/1:Predict", {"instances": [ROW]}, 200, "predictions"),
    (f"{MODEL}/versions/0001:predict", {"instances": [ROW]}, 200, "predictions"),
    (f"{MODEL}/versions/1", None, 200, "model_version_status"),
    (f"{MODEL}/metadata", None, 200, "metadata"),
    # Malformed paths and methods.
    ("/v1/models", None, 400, "Missing model name"),
    ("/v1/models/", None, 400, "Malformed request: GET /v1/models/"),
    (f"{MODEL}/", None, 400, "Malformed request"),
    (f"{MODEL}/versions", None, 400, "Malformed request"),
    (f"{MODEL}/versions/x", None, 400, "Malformed request"),
    (f"{MODEL}/versions/x:predict", {"instances": [ROW]}, 400, "Malformed request"),
    (f"{MODEL}/versions/-1:predict", {"instances": [ROW]}, 400, "Malformed request"),
    (f"{MODEL}/versions/1/labels/a:predict", {"instances": [ROW]}, 400, "Malformed request"),
    (f"{MODEL}:something", {"instances": [ROW]}, 400, "Malformed request"),
    (f"{MODEL}:predict/", {"instances": [ROW]}, 400, "Malformed request"),
    (MODEL, {"instances": [ROW]}, 400, "Malformed request: POST"),
    (PREDICT, None, 400, "Malformed request: GET"),
    ("/v2/models/digits", None, 404, "nothing at GET"),
    # Models, versions, labels, signatures.
    ("/v1/models/none:predict", {"instances": [ROW]}, 404, "Servable not found"),
    ("/v1/models/none", None, 404, "'none'; served: digits"),
    ("/v1/models/none/metadata", None, 404, "Servable not found"),
    (f"{MODEL}/versions/9:predict", {"instances": [ROW]}, 404, "no version 9; it has: 1"),
    (f"{MODEL}/versions/9", None, 404, "no version 9"),
    (f"{MODEL}/versions/{2**63 - 1}:predict", {"instances": [ROW]}, 404, "no version 922337"),
    (f"{MODEL}/versions/{2**63}:predict", {"instances": [ROW]}, 400, "Failed to convert version"),
    (f"{MODEL}/versions/{'9' * 5000}", None, 400, "Failed to convert version"),
    (f"{MODEL}/labels/a:predict", {"instances": [ROW]}, 400, "Unrecognized servable version label"),
    (f"{MODEL}/labels/a", None, 400, "Unrecognized servable version label"),
    (PREDICT, named("no", instances=[ROW]), 400, "'no' not found; expected one of impute"),
    (PREDICT, named("__saved_model_init_op", instances=[ROW]), 400, "not found"),
    *[
        (PREDICT, named(name, instances=[ROW]), 400, "'signature_name' key must be a string")
        for name in (None, 0, 5, False, [], {})
    ],
    # Classify and regress: the body first, then the model.
    (f"{MODEL}:classify", {"examples": [{"x": 1.0}]}, 400, "method_name tensorflow/serving/class"),
    (f"{MODEL}:regress", {"examples": [{"x": 1.0}]}, 400, "method_name tensorflow/serving/regr"),
    (f"{MODEL}:regress", named("no", examples=[{}]), 400, "No signature was found"),
    (f"{MODEL}:classify", {"examples": []}, 400, "'examples'"),
    (f"{MODEL}:classify", {}, 400, "'examples'"),
    ("/v1/models/none:classify", {"examples": [{"x": 1.0}]}, 404, "Servable not found"),
    ("/v1/models/none:regress", {}, 400, "'examples'"),
    # JSON.
    (PREDICT, b"", 400, "JSON parse error"),
    (PREDICT, b"{", 400, "JSON parse error"),
    (PREDICT, b"\xff\xfe", 400, "JSON parse error"),
    (PREDICT, json.dumps({"instances": [ROW]}).encode("utf-16"), 400, "JSON parse error"),
    (PREDICT, b"[" * 2000, 400, "JSON parse error"),
    (PREDICT, b'{"instances": [NaN', 400, "JSON parse error"),
    (PREDICT, b'{"inputs": [[1e400]]}', 400, "JSON parse error"),
    ("/v1/models/none:predict", b"{", 400, "JSON parse error"),
    (PREDICT, [1], 400, "JSON object"),
    (PREDICT, {}, 400, "'instances'"),
    (PREDICT, {"instances": [ROW], "inputs": [ROW]}, 400, "one of the keys"),
    (PREDICT, {"instances": []}, 400, "at least one"),
    (PREDICT, {"instances": 3}, 400, "list"),
    # Values and shapes.
    (PREDICT, {"inputs": []}, 400, "[N, 64]"),
    (PREDICT, {"inputs": 1}, 400, "[N, 64], got []"),
    (PREDICT, {"instances": [ROW, ROW[1:]]}, 400, "not an array"),
    (PREDICT, {"instances": [ROW[1:]]}, 400, "[N, 64], got [1, 63]"),
    (PREDICT, {"instances": ROW}, 400, "[N, 64]"),
    (PREDICT, {"instances": [["a"] * 64]}, 400, "array of float32"),
    (PREDICT, {"instances": [[None] * 64]}, 400, "array of float32"),
    (PREDICT, {"instances": [[True] * 64]}, 400, "array of float32"),
    (PREDICT, {"instances": [[True, *ROW[1:]]]}, 400, "array of float32"),
    (PREDICT, {"instances": [[2**24, *ROW[1:]]]}, 400, "array of float32"),
    (PREDICT, {"instances": [[1e39, *ROW[1:]]]}, 400, "array of float32"),
    (PREDICT, {"instances": [{"y": ROW}]}, 400, "must have the keys x; got: y"),
    (PREDICT, {"instances": [{"x": ROW}, ROW]}, 400, "must have the keys x"),
    (PREDICT, {"instances": [ROW, {"x": ROW}]}, 400, "mixes"),
    (PREDICT, {"inputs": {"y": [ROW]}}, 400, "Expected the inputs: x; got: none"),
    (PREDICT, named("impute", instances=[ROW]), 400, "mask, x"),
    (PREDICT, named("impute", inputs={"x": [ROW], "mask": [ROW] * 2}), 400, "different numbers"),
    (PREDICT, named("sample", inputs=[1.5]), 400, "int64"),
    (PREDICT, named("sample", inputs=[1.0]), 400, "int64"),
    (PREDICT, named("sample", inputs=[2**63]), 400, "int64"),
    (PREDICT, named("sample", inputs=[True]), 400, "int64"),
    (PREDICT, {"instances": [ROW] * 5000}, 413, "at most 4,096"),
]


@pytest.mark.parametrize(
    ("path", "body", "status", "part"), REST, ids=lambda value: str(value)[:40]
)
def test_rest(server, path, body, status, part):
    found, answer = server.get(path) if body is None else server.post(path, body)
    assert found == status, answer
    if status == 200:
        assert part in answer
    else:
        assert list(answer) == ["error"]
        assert part in answer["error"]


def test_compressed_bodies(server):
    body = gzip.compress(b'{"inputs": ' + TEXT + b"}")
    expected = server.post(PREDICT, {"inputs": [ROW]})
    assert expected[0] == 200
    assert server.post(PREDICT, body, **{"Content-Encoding": "gzip"}) == expected
    status, answer = server.post(PREDICT, body[:-20] + b"x", **{"Content-Encoding": "gzip"})
    assert (status, "gzip" in answer["error"] or "JSON" in answer["error"]) == (400, True)
    bomb = gzip.compress(b" " * (17 * 2**20))
    assert len(bomb) < 2**16
    assert server.post(PREDICT, bomb, **{"Content-Encoding": "gzip"})[0] == 413


@pytest.mark.parametrize(
    "value", ["0.5", "2", "NaN", "-NaN", "Inf", "-Inf", "Infinity", "-Infinity"]
)
@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_rows_that_are_not_binary_give_nan(server, form, value):
    """For those rows, and scores for the others."""
    row = f"[{value}, {', '.join(['0'] * 63)}]"
    body = f'{{"{form}": [{ROW}, {row}, {ROW}], "note": "NaN \\" Inf"}}'.encode()
    status, answer = server.post(PREDICT, body)
    assert status == 200, answer
    if form == "instances":
        found = [prediction["log_likelihood"] for prediction in answer["predictions"]]
    else:
        found = answer["outputs"]["log_likelihood"]
    _, right = server.post(PREDICT, {"inputs": [ROW]})
    assert found[0] == found[2] == right["outputs"]["log_likelihood"][0]
    assert np.isnan(found[1])
    try:
        number = float(value)
    except ValueError:
        return
    rows = np.float32([ROW, [number, *ROW[1:]], ROW])
    response = server.prediction.Predict(request_for(x=rows))
    by_grpc = tf.make_ndarray(response.outputs["log_likelihood"])
    np.testing.assert_array_equal(by_grpc, np.float32(found))


ROWS = np.zeros([1, 64], np.float32)


def grpc_cases():
    """A name, a method, its request, the code, and a part of the message."""
    yield "no rows", "Predict", request_for(x=np.zeros([0, 64], np.float32)), "OK", ""
    request = request_for(x=ROWS)
    request.inputs["x"].ClearField("tensor_content")
    request.inputs["x"].float_val[:] = [0.0] * 70
    yield "surplus values", "Predict", request, "OK", ""
    request = request_for(x=ROWS)
    request.inputs["x"].ClearField("tensor_content")
    yield "no values", "Predict", request, "OK", ""
    request = request_for("reconstruct", x=ROWS)
    request.output_filter.append("mean")
    yield "an output", "Predict", request, "OK", ""

    request = predict_pb2.PredictRequest()
    yield "no model spec", "Predict", request, "INVALID_ARGUMENT", "Missing ModelSpec"
    request = request_for(x=ROWS)
    request.model_spec.name = ""
    yield "no name", "Predict", request, "INVALID_ARGUMENT", "no name"
    request = request_for(x=ROWS)
    request.model_spec.name = "none"
    yield "model", "Predict", request, "NOT_FOUND", "Servable not found"
    request = request_for(x=ROWS)
    request.model_spec.version.value = 9
    yield "version", "Predict", request, "NOT_FOUND", "no version 9"
    request = request_for(x=ROWS)
    request.model_spec.version_label = "a"
    yield "label", "Predict", request, "INVALID_ARGUMENT", "Unrecognized servable version label"
    yield "signature", "Predict", request_for("no", x=ROWS), "FAILED_PRECONDITION", "'no' not found"
    yield "no input", "Predict", request_for(), "INVALID_ARGUMENT", "none"
    yield "input", "Predict", request_for(x=ROWS, y=ROWS), "INVALID_ARGUMENT", "got: x, y"
    request = request_for(x=np.zeros([1, 64]))
    yield "dtype", "Predict", request, "INVALID_ARGUMENT", "DT_FLOAT, got DT_DOUBLE"
    request = request_for(x=np.zeros([1, 5], np.float32))
    yield "shape", "Predict", request, "INVALID_ARGUMENT", "[N, 64], got [1, 5]"
    request = request_for(x=np.zeros([5000, 64], np.float32))
    yield "rows", "Predict", request, "OUT_OF_RANGE", "4,096"
    request = request_for(x=ROWS)
    request.inputs["x"].tensor_shape.dim[0].size = 2**50
    yield "a shape of petabytes", "Predict", request, "OUT_OF_RANGE", "rows"
    request = request_for(x=np.zeros([2, 64], np.float32))
    request.inputs["x"].tensor_content = b"1234"
    yield "too little content", "Predict", request, "INVALID_ARGUMENT", "does not hold"
    request = request_for("impute", x=ROWS, mask=np.zeros([2, 64], np.float32))
    yield "numbers of rows", "Predict", request, "INVALID_ARGUMENT", "different numbers"
    request = request_for(x=ROWS)
    request.output_filter.append("nothing")
    yield "output", "Predict", request, "INVALID_ARGUMENT", "alias not found"
    request = request_for(x=ROWS)
    request.output_filter.extend(["log_likelihood"] * 2)
    yield "output twice", "Predict", request, "INVALID_ARGUMENT", "Duplicate output tensor alias"

    for method, message in [
        ("Classify", classification_pb2.ClassificationRequest),
        ("Regress", regression_pb2.RegressionRequest),
    ]:
        request = message()
        yield f"{method} without spec", method, request, "INVALID_ARGUMENT", "Missing ModelSpec"
        request = message()
        request.model_spec.name = "none"
        yield f"{method} model", method, request, "NOT_FOUND", "Servable not found"
        request = message()
        request.model_spec.name = "digits"
        yield method, method, request, "INVALID_ARGUMENT", "method_name"
        request = message()
        request.model_spec.name, request.model_spec.signature_name = "digits", "no"
        yield f"{method} signature", method, request, "INVALID_ARGUMENT", "No signature was found"
    request = inference_pb2.MultiInferenceRequest()
    yield "no tasks", "MultiInference", request, "INVALID_ARGUMENT", "no name"
    for name, method, code, part in [
        ("none", "classify", "NOT_FOUND", "Servable not found"),
        ("digits", "classify", "INVALID_ARGUMENT", "method_name"),
        ("digits", "regress", "INVALID_ARGUMENT", "method_name"),
        ("digits", "predict", "UNIMPLEMENTED", "Unsupported signature method_name"),
    ]:
        request = inference_pb2.MultiInferenceRequest()
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name = name
        yield f"{method} of {name}", "MultiInference", request, code, part

    metadata = get_model_metadata_pb2.GetModelMetadataRequest
    yield "metadata", "GetModelMetadata", metadata(), "INVALID_ARGUMENT", "Missing ModelSpec"
    for fields, code, part in [
        (["signature_def"], "OK", ""),
        (["signature_def"] * 2, "OK", ""),
        ([], "INVALID_ARGUMENT", "metadata_field"),
        (["other"], "INVALID_ARGUMENT", "metadata_field"),
    ]:
        request = metadata(metadata_field=fields)
        request.model_spec.name = "digits"
        yield f"fields {fields}", "GetModelMetadata", request, code, part
    status = get_model_status_pb2.GetModelStatusRequest
    yield "status", "GetModelStatus", status(), "INVALID_ARGUMENT", "Missing ModelSpec"
    request = status()
    request.model_spec.name = "none"
    yield "status of none", "GetModelStatus", request, "NOT_FOUND", "unknown model"


@pytest.mark.parametrize(
    ("method", "request_", "code", "part"),
    [pytest.param(*case[1:], id=case[0]) for case in grpc_cases()],
)
def test_grpc(server, method, request_, code, part):
    stub = server.models if method == "GetModelStatus" else server.prediction
    if code == "OK":
        getattr(stub, method)(request_)
        return
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(request_)
    assert caught.value.code().name == code
    assert part in caught.value.details()


def test_what_is_no_message(server):
    call = server.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff")
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "Not a PredictRequest" in caught.value.details()
