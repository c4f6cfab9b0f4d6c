"""A client of TF Serving's API, by REST or gRPC: of this server, or of TF Serving itself."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import grpc
import numpy as np
import requests
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from rws_keras.errors import UserError, reason

# A server that is busy is asked again after so many seconds.
_PREDICT = "tensorflow/serving/predict"
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
_BUSY_HTTP = (429, 503)
NOT_MODELLED = "Expected values that it models, of binary data 0 or 1: binarise grey levels first."
_BUSY = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)


class ClientError(UserError):
    """What a server refused, or could not be asked."""


class RowsError(ClientError):
    """Rows that the model does not take.

    Attributes:
        rows: Their numbers, from 0.
    """

    def __init__(self, message: str, rows: list[int]):
        super().__init__(message)
        self.rows = rows


class Client:
    """Asks a server about one model.

    Args:
        url: `http://HOST:PORT` or `https://…` for REST, `grpc://HOST:PORT` for gRPC.
        model: The model's name.
        version: Its version; the newest that serves by default.
        api_key: If the server wants one.
        timeout: Seconds to wait for an answer.
        allow_nan: Whether rows that the model does not take, whose outputs are NaN, are returned as
            they are instead of raising an error that names them.

    Example:
    ```python
    client = Client("http://127.0.0.1:8501", "digits-sbn-64-32")
    client.score(x)["log_likelihood"]                        # [N], nats
    client.predict("impute", x=x, mask=mask)["completions"]  # [N, completions, D]
    ```
    """

    def __init__(
        self,
        url: str,
        model: str,
        version: int | None = None,
        api_key: str | None = None,
        timeout: float = 120.0,
        allow_nan: bool = False,
    ):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "grpc") or not parts.netloc:
            raise ClientError(f"Expected http://…, https://… or grpc://HOST:PORT, got {url!r}.")
        self.url = url
        self.model = model
        self.version = version
        self._timeout = timeout
        self._allow_nan = allow_nan
        self._key = {"x-api-key": api_key} if api_key else {}
        self._output_names: dict[str, list[str]] = {}
        if parts.scheme == "grpc":
            self._stub = prediction_service_pb2_grpc.PredictionServiceStub(
                grpc.insecure_channel(
                    parts.netloc,
                    options=[
                        ("grpc.max_receive_message_length", -1),
                        ("grpc.max_send_message_length", -1),
                    ],
                )
            )
            self._ask = self._ask_grpc
            self._metadata = self._metadata_grpc
        else:
            which = "" if version is None else f"/versions/{version}"
            self._address = f"{url.rstrip('/')}/v1/models/{quote(model, safe='')}{which}"
            self._session = requests.Session()
            self._ask = self._ask_rest
            self._metadata = self._metadata_rest

    def predict(self, signature: str = "serving_default", **inputs) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature: Its name.
            **inputs: An array for each of its inputs, batch first. `seed` is sent as int64, all
                else as float32.

        Returns:
            An array for each output, batch first.

        Raises:
            RowsError: If there are rows that the model does not take.
            ClientError: If the server refuses, cannot be reached, or stays too busy.
        """
        return self._predict(signature, inputs, first_row=0)

    def _predict(self, signature, inputs, first_row):
        arrays = {name: _for_the_wire(value, name) for name, value in inputs.items()}
        for pause in (*_PAUSES, None):
            answer = self._ask(signature, arrays, last=pause is None)
            if answer is not None:
                if not self._allow_nan:
                    _check_rows(answer, first_row)
                return answer
            if pause is not None:
                time.sleep(pause)
        raise AssertionError

    def served_version(self) -> int:
        """The version that answers: the given one, or the newest that serves.

        Raises:
            ClientError: If the server refuses or cannot be reached.
        """
        return self._metadata()[0]

    def output_names(self, signature: str = "serving_default") -> list[str]:
        """Names of a signature's outputs, in alphabetical order.

        Args:
            signature: Its name.

        Raises:
            ClientError: If the server refuses, cannot be reached, or has no such signature.
        """
        if signature not in self._output_names:
            _, definitions = self._metadata()
            if signature not in definitions:
                raise ClientError(
                    f"The model {self.model} has no signature {signature!r}; it has "
                    f"{', '.join(sorted(definitions))}."
                )
            self._output_names[signature] = definitions[signature]
        return self._output_names[signature]

    def score(
        self, x: np.ndarray, signature: str = "serving_default", batch_size: int = 256
    ) -> dict[str, np.ndarray]:
        """Log-likelihoods of any number of rows, in nats, with their standard errors.

        Args:
            x: Binary data `[N, D]`.
            signature: `"serving_default"`, `"score_fast"` or `"score_accurate"`.
            batch_size: Rows of a request.

        Returns:
            `log_likelihood`, `standard_error` and `effective_sample_size`, `[N]`.
        """
        parts = list(self.score_batches(x, signature, batch_size))
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def score_batches(
        self, x: np.ndarray, signature: str = "serving_default", batch_size: int = 256
    ) -> Iterator[dict[str, np.ndarray]]:
        """As `score`, batch by batch."""
        x = np.asarray(x, np.float32)
        if x.ndim != 2 or not len(x):
            raise ClientError(f"Expected rows of data, [N, D], got the shape {list(x.shape)}.")
        for start in range(0, len(x), batch_size):
            yield self._predict(signature, {"x": x[start : start + batch_size]}, start)

    def _ask_rest(self, signature, arrays, last):
        body = {
            "signature_name": signature,
            "inputs": {name: array.tolist() for name, array in arrays.items()},
        }
        # Not by `json=`, which refuses NaN: a missing value.
        status, answer = self._send("POST", ":predict", data=json.dumps(body))
        if status in _BUSY_HTTP and not last:
            return None
        outputs = _or_refuse(status, answer)["outputs"]
        if not isinstance(outputs, dict):
            # REST leaves the name of a signature's one output out of its answers.
            outputs = {self.output_names(signature)[0]: outputs}
        return {name: np.asarray(value, np.float32) for name, value in outputs.items()}

    def _metadata_rest(self):
        answer = _or_refuse(*self._send("GET", "/metadata"))
        definitions = answer["metadata"]["signature_def"]["signature_def"]
        outputs = {
            name: sorted(each["outputs"])
            for name, each in definitions.items()
            if each["method_name"] == _PREDICT
        }
        return int(answer["model_spec"]["version"]), outputs

    def _send(self, method, what, **content):
        address = self._address + what
        try:
            response = self._session.request(
                method, address, headers=self._key, timeout=self._timeout, **content
            )
            status = response.status_code
            return status, {} if status in _BUSY_HTTP else response.json()
        except requests.RequestException as error:
            raise ClientError(f"There is no answer from {address}: {_cause(error)}.") from error

    def _ask_grpc(self, signature, arrays, last):
        request = predict_pb2.PredictRequest(model_spec=self._model_spec(signature))
        for name, array in arrays.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        response = self._call(self._stub.Predict, request, last)
        if response is None:
            return None
        return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}

    def _metadata_grpc(self):
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._model_spec(), metadata_field=["signature_def"]
        )
        response = self._call(self._stub.GetModelMetadata, request, last=True)
        definitions = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(definitions)
        outputs = {
            name: sorted(each.outputs)
            for name, each in definitions.signature_def.items()
            if each.method_name == _PREDICT
        }
        return response.model_spec.version.value, outputs

    def _model_spec(self, signature=""):
        spec = model_pb2.ModelSpec(name=self.model, signature_name=signature)
        if self.version is not None:
            spec.version.value = self.version
        return spec

    def _call(self, method, request, last):
        """The answer of a gRPC method, or `None` if the server is busy and is asked again."""
        try:
            return method(request, timeout=self._timeout, metadata=tuple(self._key.items()))
        except grpc.RpcError as error:
            if error.code() in _BUSY and not last:
                return None
            code = error.code().name
            raise ClientError(
                f"The server refused the request ({code}): {error.details()}"
            ) from error


def _check_rows(outputs: dict[str, np.ndarray], first_row: int) -> None:
    """Refuses rows whose outputs are all NaN, by which a model says that it does not take them."""
    missing = [np.isnan(out).all(axis=tuple(range(1, out.ndim))) for out in outputs.values()]
    bad = np.flatnonzero(np.all(missing, axis=0))
    if len(bad):
        rows = [first_row + int(row) for row in bad]
        more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
        raise RowsError(
            f"The model does not take {len(rows)} of the rows: {', '.join(map(str, rows[:10]))}"
            f"{more} (counted from 0). {NOT_MODELLED} `allow_nan=True` returns NaN for such rows.",
            rows,
        )


def _cause(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "the server took too long"
    if isinstance(error, requests.ConnectionError):
        return "the server is not running there, or cannot be reached"
    return reason(error)


def _or_refuse(status: int, answer: dict) -> dict:
    """The answer, if it is one."""
    if status != 200:
        raise ClientError(
            f"The server refused the request ({status}): {answer.get('error', answer)}"
        )
    return answer


def _for_the_wire(value, name: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ClientError(f"`{name}` must be an array of numbers, got {array.dtype}.")
    return array.astype(np.int64 if name == "seed" else np.float32)
