"""What requests are made of, and what the Python model answers to them."""

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

PRESET = "digits-sbn-64-32"
SMALL = {"num_particles": 20, "fast": 5, "accurate": 50, "num_completions": 3}
PREDICT = "/v1/models/digits:predict"
ROW = [0] * 64


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
