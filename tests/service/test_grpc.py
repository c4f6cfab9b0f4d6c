"""TF Serving's gRPC services, asked by the stubs of `tensorflow-serving-api`."""

import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
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


def test_values_are_in_the_field_of_their_dtype(server, x, scorers):
    """Where clients in other languages read them; `tensor_content` stays empty."""
    expected = as_python(scorers[1]["reconstruct"], x=x)["mean"]
    output = server.prediction.Predict(request_for("reconstruct", x=x)).outputs["mean"]
    assert output.tensor_content == b""
    assert [dim.size for dim in output.tensor_shape.dim] == list(expected.shape)
    np.testing.assert_array_equal(np.float32(output.float_val), expected.ravel())


def test_health(server):
    stub = health_pb2_grpc.HealthStub(server.channel)
    for service in ("", "tensorflow.serving.PredictionService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
