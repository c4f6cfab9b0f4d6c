"""TF Serving's gRPC services, and the standard one of health."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from rws_keras.serving import tensors
from rws_keras.serving.api_key import check_key
from rws_keras.serving.errors import Code, ServingError, invalid
from rws_keras.serving.model_config import check_reload
from rws_keras.serving.predictor import Predictor
from rws_keras.serving.repository import Target

_log = logging.getLogger(__name__)
_HEALTH_SECONDS = 0.5


class GrpcApi:
    """The methods.

    Args:
        predictor: Answers the requests.
        api_key: If given, calls must carry it, in the metadata `authorization: Bearer KEY` or
            `x-api-key`.
        config_reload: Whether a client may change which models are served.
    """

    def __init__(self, predictor: Predictor, api_key: str | None, config_reload: bool):
        self.predictor = predictor
        self._repository = predictor.repository
        self._api_key = api_key
        self._config_reload = config_reload
        self._health = health.aio.HealthServicer()

    def server(self) -> grpc.aio.Server:
        """The gRPC server, without an address yet."""
        server = grpc.aio.server(
            # Messages are received before they are counted among those that are worked on.
            maximum_concurrent_rpcs=2 * self.predictor.limits.concurrency,
            options=[
                ("grpc.max_receive_message_length", self.predictor.limits.body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_connection_idle_ms", int(self.predictor.limits.idle_seconds * 1000)),
                # Else a second server could share the port, and get part of the requests.
                ("grpc.so_reuseport", 0),
            ],
        )
        prediction = {
            "Predict": (self._predict, predict_pb2.PredictRequest),
            "Classify": (self._classify, classification_pb2.ClassificationRequest),
            "Regress": (self._regress, regression_pb2.RegressionRequest),
            "MultiInference": (self._multi_inference, inference_pb2.MultiInferenceRequest),
            "GetModelMetadata": (self._metadata, get_model_metadata_pb2.GetModelMetadataRequest),
        }
        models = {
            "GetModelStatus": (self._status, get_model_status_pb2.GetModelStatusRequest),
            "HandleReloadConfigRequest": (self._reload, model_management_pb2.ReloadConfigRequest),
        }
        for service, methods in (("PredictionService", prediction), ("ModelService", models)):
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(self._method(*method))
                for name, method in methods.items()
            }
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"tensorflow.serving.{service}", handlers),)
            )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        return server

    async def report_health(self) -> None:
        """Keeps the health service up to date, until cancelled."""
        states = health_pb2.HealthCheckResponse
        while True:
            state = states.SERVING if self._repository.ready() else states.NOT_SERVING
            for service in ("", "tensorflow.serving.PredictionService"):
                await self._health.set(service, state)
            await asyncio.sleep(_HEALTH_SECONDS)

    def _method(self, method: Callable[[Any], Any], message: Any) -> Callable:
        """A method on messages as one on bytes, with errors as gRPC has them."""

        async def call(data: bytes, context: grpc.aio.ServicerContext) -> bytes | None:
            start, code, model = time.perf_counter(), Code.OK, ""
            try:
                if self._api_key:
                    check_key(dict(context.invocation_metadata()), self._api_key)
                request = message.FromString(data)
                if hasattr(request, "model_spec"):
                    if not request.HasField("model_spec"):
                        raise invalid("Missing ModelSpec.")
                    model = request.model_spec.name
                    if not model:
                        raise invalid("ModelSpec has no name specified.")
                with self.predictor.admitted():
                    return (await method(request)).SerializeToString()
            except DecodeError as error:
                code, text = Code.INVALID_ARGUMENT, f"Not a {message.__name__}: {error}."
            except ServingError as error:
                code, text = error.code, error.message
            except asyncio.CancelledError:
                code = Code.CANCELLED
                raise
            except Exception:
                _log.exception("%s failed.", method.__name__)
                code, text = Code.INTERNAL, "The server failed; see its log."
            finally:
                model = model if self._repository.has(model) else "none"
                self.predictor.metrics.answered(
                    "grpc", model, code.name, time.perf_counter() - start
                )
            context.set_code(code)
            context.set_details(text)
            return b""

        return call

    async def _predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        target = _target(request.model_spec)
        number, servable = self._repository.servable(target)
        signature = servable.signature(request.model_spec.signature_name)
        signature.check_names(request.inputs)
        wanted = list(request.output_filter) or signature.outputs
        if unknown := sorted(set(wanted) - set(signature.outputs)):
            expected = ", ".join(signature.outputs)
            raise invalid(
                f"Output tensor alias not found in signature: {unknown[0]}. Expected of {expected}."
            )
        if len(set(wanted)) < len(wanted):
            raise invalid(f"Duplicate output tensor alias in {', '.join(wanted)}.")
        inputs = {
            name: tensors.to_array(request.inputs[name], name, signature, self.predictor.limits)
            for name in signature.inputs
        }
        outputs = await self.predictor.run(target.model, signature, inputs)
        response = predict_pb2.PredictResponse()
        _fill(response.model_spec, target.model, number, signature.name)
        for name in wanted:
            response.outputs[name].CopyFrom(tensors.from_array(outputs[name]))
        return response

    async def _classify(self, request: classification_pb2.ClassificationRequest) -> None:
        self._refuse("classify", request.model_spec)

    async def _regress(self, request: regression_pb2.RegressionRequest) -> None:
        self._refuse("regress", request.model_spec)

    async def _multi_inference(self, request: inference_pb2.MultiInferenceRequest) -> None:
        if not request.tasks or not request.tasks[0].model_spec.name:
            raise invalid("ModelSpec has no name specified in the first task.")
        for task in request.tasks:
            method = task.method_name.removeprefix("tensorflow/serving/")
            if method not in ("classify", "regress"):
                message = f"Unsupported signature method_name: '{task.method_name}'."
                raise ServingError(Code.UNIMPLEMENTED, message)
            self._refuse(method, task.model_spec)

    def _refuse(self, method: str, spec: model_pb2.ModelSpec) -> NoReturn:
        _, servable = self._repository.servable(_target(spec))
        servable.refuse(method, spec.signature_name)

    async def _metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        if set(request.metadata_field) != {"signature_def"}:
            raise invalid("Expected the metadata_field 'signature_def', and no other.")
        target = _target(request.model_spec)
        number, servable = self._repository.servable(target)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        _fill(response.model_spec, target.model, number)
        response.metadata["signature_def"].Pack(
            get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signature_defs)
        )
        return response

    async def _status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        versions = self._repository.versions(_target(request.model_spec))
        return get_model_status_pb2.GetModelStatusResponse(
            model_version_status=[version.status() for version in versions]
        )

    async def _reload(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        if not self._config_reload:
            message = "Clients cannot change the models of this server (--config-reload)."
            raise ServingError(Code.PERMISSION_DENIED, message)
        check_reload(request.config)
        await asyncio.to_thread(self._repository.reload, request.config)
        return model_management_pb2.ReloadConfigResponse()


def _target(spec: model_pb2.ModelSpec) -> Target:
    choice = spec.WhichOneof("version_choice")
    return Target(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def _fill(spec: model_pb2.ModelSpec, model: str, number: int, signature: str = "") -> None:
    spec.name = model
    spec.version.value = number
    spec.signature_name = signature
