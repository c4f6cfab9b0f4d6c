"""Models that were not written by `rws-keras export`."""

import numpy as np
import pytest
import tensorflow as tf
from server_process import ServerProcess
from tensorflow_serving.apis import predict_pb2

pytestmark = pytest.mark.processes


class Images(tf.Module):
    """Sums of pixels."""

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.uint8, name="x")])
    def serve(self, x):
        return {"sum": tf.reduce_sum(tf.cast(x, tf.float32), axis=[1, 2, 3])}


def test_nested_lists_and_small_integers(tmp_path):
    module = Images()
    tf.saved_model.save(module, tmp_path / "models" / "images" / "1", signatures=module.serve)
    server = ServerProcess("--models", tmp_path / "models", log=tmp_path / "log")
    try:
        # As many rows as a request may have, 73 lists each.
        x = np.random.default_rng(0).integers(0, 256, (4096, 8, 8, 1), np.uint8)
        sums = x.astype(np.float32).sum(axis=(1, 2, 3))
        status, answer = server.post("/v1/models/images:predict", {"instances": x.tolist()})
        assert status == 200, answer
        np.testing.assert_array_equal(answer["predictions"], sums)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "images"
        for few in (x[:3], x):
            request.inputs["x"].CopyFrom(tf.make_tensor_proto(few))
            found = server.prediction.Predict(request).outputs["sum"].float_val
            np.testing.assert_array_equal(found, sums[: len(few)])
    finally:
        assert server.stop() == 0
