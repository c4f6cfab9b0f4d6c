"""One loaded version of a model."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from rws_keras.errors import UserError, reason
from rws_keras.serving.errors import Code, ServingError, invalid, too_large

DEFAULT_SIGNATURE = "serving_default"
PREDICT = "tensorflow/serving/predict"


class Signature:
    """A signature of a loaded model, called with arrays.

    Attributes:
        name: Its name.
        inputs: The dtype and the shape of each input; sizes of -1 may be any.
        outputs: The names of its outputs.
        row_seconds: How long the computation takes per row, by the latest batches.
    """

    def __init__(self, name: str, definition: meta_graph_pb2.SignatureDef, model):
        self.name = name
        self.inputs = {
            key: (tf.as_dtype(info.dtype), [dim.size for dim in info.tensor_shape.dim])
            for key, info in sorted(definition.inputs.items())
        }
        self.outputs = sorted(definition.outputs)
        self.row_seconds = float("inf")
        self._model = model  # has the variables: it stays while a request is computed
        self._function = model.signatures[name]

    def check_names(self, given: Iterable[str]) -> None:
        """Compares the names of a request's inputs with its own.

        Raises:
            ServingError: If one is missing or unknown.
        """
        if set(given) != set(self.inputs):
            expected, found = (", ".join(sorted(names)) or "none" for names in (self.inputs, given))
            raise invalid(f"Expected the inputs: {expected}; got: {found}.")

    def check_shape(self, name: str, shape: Sequence[int], most_rows: int) -> None:
        """Compares the shape of a request's input with its own.

        Raises:
            ServingError: If it is another one, or has too many rows.
        """
        _, expected = self.inputs[name]
        if len(shape) != len(expected) or any(
            want not in (-1, got) for want, got in zip(expected, shape, strict=True)
        ):
            wanted = ", ".join(["N", *map(str, expected[1:])])
            raise invalid(f"The input `{name}` must have the shape [{wanted}], got {list(shape)}.")
        if shape[0] > most_rows:
            raise too_large(
                f"The input `{name}` has {shape[0]:,} rows, at most {most_rows:,} are allowed in a "
                "request; send several."
            )

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes a batch.

        Raises:
            ServingError: If TensorFlow refuses the inputs.
        """
        start = time.perf_counter()
        try:
            tensors = {name: tf.constant(array) for name, array in inputs.items()}
            outputs = {name: array.numpy() for name, array in self._function(**tensors).items()}
        except tf.errors.InvalidArgumentError as error:
            raise invalid(reason(error)) from error
        if rows := len(next(iter(inputs.values()))):
            seconds = (time.perf_counter() - start) / rows
            # The first call traces, and a busy machine slows single ones: down at once, up slowly.
            self.row_seconds = min(seconds, 0.8 * self.row_seconds + 0.2 * seconds)
        return outputs


class Servable:
    """One version of a model.

    Args:
        path: The SavedModel's directory.

    Attributes:
        signature_defs: All signatures as the SavedModel defines them.
        path: The directory.
        row_values: How many numbers the inputs of a row have, in the widest signature; infinite if
            any number will do.
        row_lists: How many lists they are, one in another, likewise.
    """

    def __init__(self, path: Path):
        self.path = path
        self.signature_defs = _signature_defs(path)
        model = tf.saved_model.load(os.fspath(path))
        self._signatures = {
            name: Signature(name, definition, model)
            for name, definition in self.signature_defs.items()
            if definition.method_name == PREDICT and _has_rows(definition)
        }
        if not self._signatures:
            raise UserError(f"{path} has no signature whose inputs are rows of numbers.")
        rows = [
            [
                [size if size >= 0 else math.inf for size in shape[1:]]
                for _, shape in signature.inputs.values()
            ]
            for signature in self._signatures.values()
        ]
        self.row_values = max(sum(map(math.prod, inputs)) for inputs in rows)
        self.row_lists = max(
            sum(math.prod(row[:axis]) for row in inputs for axis in range(len(row)))
            for inputs in rows
        )
        self._warm_up(path)

    def signature(self, name: str) -> Signature:
        """The signature of a name, the default one if it is empty.

        Raises:
            ServingError: If there is none that can be called.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self._signatures:
            known = ", ".join(self._signatures)
            message = f"Serving signature key '{name}' not found; expected one of {known}."
            raise ServingError(Code.FAILED_PRECONDITION, message)
        return self._signatures[name]

    def refuse(self, method: str, name: str) -> NoReturn:
        """Answers `classify` and `regress`: this server's signatures are for `predict`.

        Raises:
            ServingError: Always.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signature_defs:
            raise invalid(f"No signature was found with the name: {name}.")
        was = self.signature_defs[name].method_name
        raise invalid(
            f"Expected a signature with the method_name tensorflow/serving/{method}, but that of "
            f"'{name}' is {was}: use predict."
        )

    def _warm_up(self, path: Path) -> None:
        """Answers the model's own warm-up requests, as TF Serving does before it is ready."""
        records = path / "assets.extra" / "tf_serving_warmup_requests"
        if not records.exists():
            return
        for record in tf.data.TFRecordDataset(os.fspath(records)):
            log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            request = log.predict_log.request
            inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
            self.signature(request.model_spec.signature_name)(inputs)


def _has_rows(definition: meta_graph_pb2.SignatureDef) -> bool:
    """Whether all inputs are numbers with a first axis, and there is at least one."""
    inputs = definition.inputs.values()
    return bool(inputs) and all(
        info.tensor_shape.dim
        and (
            tf.as_dtype(info.dtype).is_floating
            or tf.as_dtype(info.dtype).is_integer
            or tf.as_dtype(info.dtype).is_bool
        )
        for info in inputs
    )


def _signature_defs(path: Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for graph in saved.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return dict(sorted(graph.signature_def.items()))
    raise UserError(f"{path} has no graph for serving.")
