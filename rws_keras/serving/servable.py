"""One loaded version of a model."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from rws_keras.errors import UserError
from rws_keras.files import read_json
from rws_keras.serving.errors import ServingError, invalid
from rws_keras.serving.export import ABOUT

DEFAULT_SIGNATURE = "serving_default"
_PREDICT = "tensorflow/serving/predict"


class Servable:
    """One version of a model: its signatures, each with batches across requests.

    Args:
        path: The SavedModel's directory.
        max_batch_size: The most rows that are computed together.
        max_rows: The most rows of a request.
        batch_threads: How many batches are computed at a time.
    """

    def __init__(
        self,
        path: Path,
        max_batch_size: int = 64,
        max_rows: int = 4096,
        batch_threads: int = 2,
    ):
        self.path = path
        self._batching = {
            "num_batch_threads": batch_threads,
            # A request of more rows than a batch is split up over several.
            "max_batch_size": max(max_rows, max_batch_size),
            "allowed_batch_sizes": list(range(1, max_batch_size + 1)),
            # No waiting for company: a batch is what has come while others were computed.
            "batch_timeout_micros": 0,
            "max_enqueued_batches": 1000,
            "enable_large_batch_splitting": True,
        }
        self.signature_defs = _signature_defs(path)
        about = path / "assets.extra" / ABOUT
        self._nan_means = read_json(about).get("nan_means") if about.exists() else None
        # In a session of its own, as in TF Serving: what it holds, the queues of batches and
        # their threads among it, goes with it.
        with tf.Graph().as_default() as graph:
            self._model = tf.saved_model.load(os.fspath(path))
            self._session = tf.compat.v1.Session(graph=graph)
            # In a graph that is how a SavedModel's variables get their values.
            variables = graph.get_collection("variables")
            self._session.run([variable.initializer for variable in variables])
            self._session.run(tf.compat.v1.tables_initializer())
            self._functions = {name: self._batched(name) for name in self.signature_defs}
        self._warm_up()

    def close(self) -> None:
        """Lets go of everything; nothing may be asked any more."""
        self._session.close()

    def signature_def(self, name: str) -> meta_graph_pb2.SignatureDef:
        """The definition of a signature.

        Raises:
            ServingError: If there is none of that name.
        """
        if name not in self.signature_defs:
            raise invalid(
                f"Unknown signature '{name}'; expected one of {', '.join(self.signature_defs)}."
            )
        return self.signature_defs[name]

    def predict(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a signature, in one batch with what other threads ask at the same time.

        Args:
            signature: Its name.
            inputs: An array for each input, batch first, of the signature's dtypes and shapes.

        Returns:
            An array for each output, batch first.

        Raises:
            ServingError: If TensorFlow refuses, or the model marks rows as invalid.
        """
        names = sorted(self.signature_def(signature).outputs)
        try:
            outputs = self._functions[signature](*(inputs[name] for name in sorted(inputs)))
        except tf.errors.UnavailableError as error:
            raise ServingError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many requests wait; try again later."
            ) from error
        except tf.errors.InvalidArgumentError as error:
            message = error.message.strip() or "TensorFlow refused the request."
            raise invalid(message.splitlines()[0]) from error
        results = dict(zip(names, outputs, strict=True))
        if self._nan_means:
            self._check_rows(results)
        return results

    def _check_rows(self, results):
        for output in results.values():
            bad = np.isnan(output.reshape(len(output), -1)).any(axis=1)
            if bad.any():
                raise invalid(f"Row {int(bad.argmax())} {self._nan_means}")

    def _batched(self, signature):
        """The signature as a function of its inputs, in the order of their names."""
        definition = self.signature_def(signature)
        function = self._model.signatures[signature]
        names, output_names = sorted(definition.inputs), sorted(definition.outputs)
        specs = [
            tf.TensorSpec(
                _shape(definition.inputs[name]), tf.as_dtype(definition.inputs[name].dtype), name
            )
            for name in names
        ]

        @tf.function(input_signature=specs, autograph=False)
        def compute(*tensors):
            outputs = function(**dict(zip(names, tensors, strict=True)))
            return [outputs[name] for name in output_names]

        computation = compute.get_concrete_function()
        placeholders = [tf.compat.v1.placeholder(spec.dtype, spec.shape) for spec in specs]
        # TensorFlow's own decorator, `tf.nondifferentiable_batch_function`, gives the queues of
        # all functions the same name, and so mixes up their batches.
        outputs = tf.raw_ops.BatchFunction(
            in_tensors=placeholders,
            captured_tensors=computation.captured_inputs,
            f=computation,
            Tout=[output.dtype for output in computation.outputs],
            shared_name=signature,
            **self._batching,
        )
        return self._session.make_callable(outputs, placeholders)

    def _warm_up(self):
        """Answers the model's own warm-up requests, as TF Serving does before it is ready."""
        path = self.path / "assets.extra" / "tf_serving_warmup_requests"
        if not path.exists():
            return
        for record in tf.data.TFRecordDataset(os.fspath(path)):
            log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            request = log.predict_log.request
            inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
            self.predict(request.model_spec.signature_name or DEFAULT_SIGNATURE, inputs)


def _signature_defs(path: Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for graph in saved.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return {
                name: definition
                for name, definition in sorted(graph.signature_def.items())
                if definition.method_name == _PREDICT
            }
    raise UserError(f"{path} has no graph for serving.")


def _shape(info: meta_graph_pb2.TensorInfo) -> list[int | None]:
    return [None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]
