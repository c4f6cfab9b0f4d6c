"""TF Serving's gRPC services, asked by the stubs of `tensorflow-serving-api`."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2
from wire import as_python, request_for

pytestmark = pytest.mark.processes


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
