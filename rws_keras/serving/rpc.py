"""TF Serving's gRPC services: PredictionService and ModelService."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from concurrent import futures

import grpc
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from rws_keras.serving.api_key import check_key
from rws_keras.serving.errors import ServingError, invalid
from rws_keras.serving.predictor import Predictor, Target, check_names, check_shape
from rws_keras.serving.servable import DEFAULT_SIGNATURE

_log = logging.getLogger(__name__)


def make_server(predictor: Predictor, api_key: str | None = None) -> grpc.Server:
    """The gRPC server, without an address yet.

    Args:
        predictor: Answers the requests.
        api_key: If given, calls must carry it, in the metadata `authorization: Bearer KEY` or
            `x-api-key`.
    """
    limits = predictor.limits
    server = grpc.server(
        # Some more than there are places, so that the refused get their answer.
        futures.ThreadPoolExecutor(limits.concurrency + 16, thread_name_prefix="grpc"),
        maximum_concurrent_rpcs=limits.concurrency + 16,
        interceptors=[_KeyCheck(api_key)] if api_key else [],
        options=[
            ("grpc.max_receive_message_length", limits.body_bytes),
            ("grpc.max_send_message_length", -1),
            # Else a second server could share the port, and get part of the requests.
            ("grpc.so_reuseport", 0),
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(predictor), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(predictor), server)
    return server


def _answers(method: Callable) -> Callable:
    """Turns a `ServingError` into a status, and anything else into INTERNAL with a log entry."""

    @functools.wraps(method)
    def call(self, request, context):
        try:
            with self.predictor.place():
                return method(self, request)
        except ServingError as error:
            context.abort(error.code, error.message)
        except Exception:
            _log.exception("%s failed.", method.__name__)
            context.abort(grpc.StatusCode.INTERNAL, "The server failed; see its log.")

    return call


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata.

    Classify, Regress and MultiInference are for models that take `tf.Example`; here none does.

    Args:
        predictor: Answers the requests.
    """

    def __init__(self, predictor: Predictor):
        self.predictor = predictor

    @_answers
    def Predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Runs a signature."""
        target = _target(request.model_spec)

        def read(definition):
            check_names(definition, request.inputs)
            return {
                name: _array(name, info, request.inputs[name], self.predictor.limits.rows)
                for name, info in definition.inputs.items()
            }

        answer = self.predictor.predict(target, read, "grpc")
        wanted = list(request.output_filter) or list(answer.outputs)
        if unknown := [name for name in wanted if name not in answer.outputs]:
            raise invalid(
                f"Unknown output '{unknown[0]}'; expected of {', '.join(answer.outputs)}."
            )
        response = predict_pb2.PredictResponse()
        response.model_spec.name = target.model
        response.model_spec.version.value = answer.version
        response.model_spec.signature_name = target.signature
        for name in wanted:
            response.outputs[name].CopyFrom(tf.make_tensor_proto(answer.outputs[name]))
        return response

    @_answers
    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Gives a model's signatures."""
        if list(request.metadata_field) != ["signature_def"]:
            raise invalid("`metadata_field` must be: signature_def.")
        target = _target(request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self.predictor.repository.use(target.model, target.version, target.label) as (
            number,
            servable,
        ):
            signatures = get_model_metadata_pb2.SignatureDefMap(
                signature_def=servable.signature_defs
            )
        response.model_spec.name = target.model
        response.model_spec.version.value = number
        response.metadata["signature_def"].Pack(signatures)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and HandleReloadConfigRequest.

    Args:
        predictor: Has the models.
    """

    def __init__(self, predictor: Predictor):
        self.predictor = predictor

    @_answers
    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Gives the states of a model's versions."""
        target = _target(request.model_spec)
        return get_model_status_pb2.GetModelStatusResponse(
            model_version_status=self.predictor.repository.statuses(
                target.model, target.version, target.label
            )
        )

    @_answers
    def HandleReloadConfigRequest(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serves the models of another configuration from now on."""
        config = request.config
        if config.WhichOneof("config") != "model_config_list":
            raise invalid("Expected a `model_config_list`.")
        if unnamed := [m for m in config.model_config_list.config if not (m.name and m.base_path)]:
            raise invalid(f"Each model needs a name and a base path: {unnamed[0]}.")
        self.predictor.repository.config = lambda: config
        self.predictor.repository.update()
        return model_management_pb2.ReloadConfigResponse()


class _KeyCheck(grpc.ServerInterceptor):
    """Refuses calls without the API key."""

    def __init__(self, key: str):
        self._key = key

    def intercept_service(self, continuation, details):
        try:
            check_key(dict(details.invocation_metadata), self._key)
        except ServingError as error:
            code, message = error.code, error.message
        else:
            return continuation(details)

        def refuse(request, context):
            context.abort(code, message)

        return grpc.unary_unary_rpc_method_handler(refuse)


def _target(spec) -> Target:
    choice = spec.WhichOneof("version_choice")
    return Target(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
        spec.signature_name or DEFAULT_SIGNATURE,
    )


def _array(name, info, proto, most_rows):
    """A tensor as an array; its shape is checked before any memory is taken for it."""
    if proto.dtype != info.dtype:
        wanted, got = _dtype_name(info.dtype), _dtype_name(proto.dtype)
        raise invalid(f"The input `{name}` must be of {wanted}, got {got}.")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise invalid(f"The input `{name}` has no definite shape.")
    check_shape(name, info, shape, most_rows)
    try:
        return tf.make_ndarray(proto)
    except (ValueError, TypeError) as error:
        raise invalid(
            f"The input `{name}` does not hold the values of its shape: {error}."
        ) from error


def _dtype_name(dtype: int) -> str:
    return types_pb2.DataType.Name(dtype) if dtype in types_pb2.DataType.values() else str(dtype)
