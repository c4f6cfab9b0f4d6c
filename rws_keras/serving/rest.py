"""TF Serving's REST API, by FastAPI."""

from __future__ import annotations

import asyncio
import json
import re

import grpc
import numpy as np
import tensorflow as tf
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, Request, Response
from google.protobuf import json_format
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from rws_keras.serving.api_key import check_key
from rws_keras.serving.errors import ServingError, invalid, too_large
from rws_keras.serving.predictor import Predictor, Target, check_names, check_shape
from rws_keras.serving.servable import DEFAULT_SIGNATURE

METRICS_PATH = "/monitoring/prometheus/metrics"
# A request whose body takes longer loses its place to others.
BODY_SECONDS = 30.0
_OPEN = ("/healthz", "/readyz")
_MODEL = "/v1/models/{model}"
_WHICH = ("", "/versions/{version}", "/labels/{label}")


def make_app(predictor: Predictor, api_key: str | None = None) -> FastAPI:
    """The application.

    Args:
        predictor: Answers the requests.
        api_key: If given, requests must carry it, as `Authorization: Bearer KEY` or `X-API-Key`.
    """

    async def guard(request: Request) -> None:
        if api_key and request.url.path not in _OPEN:
            check_key(request.headers, api_key)

    # No pages about the API: it is TF Serving's, which has its own.
    app = FastAPI(openapi_url=None, dependencies=[Depends(guard)])
    # As many threads as there may be requests: what is let in must not wait for a thread.
    threads = CapacityLimiter(predictor.limits.concurrency)

    @app.exception_handler(ServingError)
    async def serving_error(_: Request, error: ServingError) -> Response:
        return _json({"error": error.message}, error.http_status)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        message = f"{error.detail}: {request.method} {request.url.path}"
        return _json({"error": message}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failure(request: Request, _: Exception) -> Response:
        return _json({"error": f"The server failed at {request.url.path}; see its log."}, 500)

    @app.get("/healthz")
    async def healthz() -> Response:
        return _json({"status": "ok"})

    # Whether the server takes requests; what a model lacks, its own status tells.
    @app.get("/readyz")
    async def readyz() -> Response:
        ready = predictor.repository.ready()
        return _json({"status": "ok" if ready else "not ready"}, 200 if ready else 503)

    @app.get(METRICS_PATH)
    async def metrics() -> Response:
        return Response(predictor.metrics.text(), media_type="text/plain; version=0.0.4")

    async def predict(request: Request) -> Response:
        target = _target(request.path_params)
        with predictor.place():
            body = await _read_body(request, predictor.limits.body_bytes)
            content = await to_thread.run_sync(_predict, predictor, target, body, limiter=threads)
        return Response(content, media_type="application/json")

    async def metadata(request: Request) -> Response:
        return _json(_metadata(predictor, _target(request.path_params)))

    async def status(request: Request) -> Response:
        target = _target(request.path_params)
        message = get_model_status_pb2.GetModelStatusResponse(
            model_version_status=predictor.repository.statuses(
                target.model, target.version, target.label
            )
        )
        return _json(_to_dict(message))

    for which in _WHICH:
        app.add_api_route(f"{_MODEL}{which}:predict", predict, methods=["POST"])
        app.add_api_route(f"{_MODEL}{which}/metadata", metadata, methods=["GET"])
        app.add_api_route(f"{_MODEL}{which}", status, methods=["GET"])
    return app


def _json(content: dict, status: int = 200, headers=None) -> Response:
    return Response(json.dumps(content), status, headers, media_type="application/json")


def _to_dict(message) -> dict:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _target(path: dict) -> Target:
    version = path.get("version")
    if version is not None and not re.fullmatch("[0-9]{1,18}", version):
        raise invalid(f"A version is a number, got {version!r}.")
    return Target(path["model"], None if version is None else int(version), path.get("label"))


async def _read_body(request: Request, most: int) -> bytes:
    """The body, as long as it is not too large: more than that is not even read."""
    message = f"The request is larger than {most:,} bytes; send several smaller ones."
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise too_large(message)
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large(message)
                parts.append(part)
    except TimeoutError as error:
        raise ServingError(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            f"The request did not arrive within {BODY_SECONDS:.0f} seconds.",
        ) from error
    except ClientDisconnect as error:
        raise invalid("The request broke off.") from error
    return b"".join(parts)


def _predict(predictor: Predictor, target: Target, body: bytes) -> str:
    """Answers `:predict`, in row or column form as the request has it."""
    content = _parse(body)
    signature = content.pop("signature_name", DEFAULT_SIGNATURE) or DEFAULT_SIGNATURE
    if not isinstance(signature, str):
        raise invalid("`signature_name` must be a string.")
    if len({"instances", "inputs"} & set(content)) != 1 or len(content) != 1:
        raise invalid(
            "Expected a JSON object with either `instances` (rows) or `inputs` (columns), and "
            f"`signature_name` if need be; got: {', '.join(map(str, content)) or 'neither'}."
        )
    by_row = "instances" in content
    target = Target(target.model, target.version, target.label, signature)

    def read(definition):
        values = content["instances" if by_row else "inputs"]
        columns = _columns(definition, values) if by_row else _named(definition, values)
        check_names(definition, columns)
        arrays = {}
        for name, info in definition.inputs.items():
            arrays[name] = _array(name, columns[name], tf.as_dtype(info.dtype))
            check_shape(name, info, arrays[name].shape, predictor.limits.rows)
        return arrays

    outputs = predictor.predict(target, read, "rest").outputs
    lists = {name: output.tolist() for name, output in outputs.items()}
    only = next(iter(lists.values())) if len(lists) == 1 else None
    if not by_row:
        return json.dumps({"outputs": lists if only is None else only})
    if only is not None:
        return json.dumps({"predictions": only})
    rows = zip(*lists.values(), strict=True)
    return json.dumps({"predictions": [dict(zip(lists, row, strict=True)) for row in rows]})


def _parse(body: bytes) -> dict:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"The request is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise invalid(f"Expected a JSON object, got {type(content).__name__}.")
    return content


def _columns(definition: meta_graph_pb2.SignatureDef, instances) -> dict[str, list]:
    """Rows as one list for each input."""
    if not isinstance(instances, list) or not instances:
        raise invalid("`instances` must be a list of at least one row.")
    if not isinstance(instances[0], dict):
        if any(isinstance(row, dict) for row in instances):
            raise invalid("`instances` mixes named and unnamed inputs.")
        return _named(definition, instances)
    names = set(instances[0])
    if any(not isinstance(row, dict) or set(row) != names for row in instances):
        raise invalid("All `instances` must name the same inputs.")
    return {name: [row[name] for row in instances] for name in names}


def _named(definition: meta_graph_pb2.SignatureDef, values) -> dict:
    """The inputs by name; the name may be missing where there is one only."""
    if isinstance(values, dict):
        return values
    if len(definition.inputs) > 1:
        raise invalid(f"Name the inputs: {', '.join(sorted(definition.inputs))}.")
    return {next(iter(definition.inputs)): values}


def _array(name: str, values, dtype: tf.DType) -> np.ndarray:
    """Nested lists as an array of the signature's dtype."""
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError, RecursionError) as error:
        raise invalid(f"The input `{name}` is not an array: {error}.") from error
    wanted = dtype.as_numpy_dtype
    allowed = "biuf" if dtype.is_floating else "iu"
    if array.size and (array.dtype.kind not in allowed or not _fits(array, wanted)):
        raise invalid(
            f"The input `{name}` must be an array of {dtype.name}; it holds other values."
        )
    return array.astype(wanted)


def _fits(array: np.ndarray, dtype) -> bool:
    if not np.issubdtype(dtype, np.integer):
        return True
    limits = np.iinfo(dtype)
    return limits.min <= int(array.min()) and int(array.max()) <= limits.max


def _metadata(predictor: Predictor, target: Target) -> dict:
    """The answer to `/metadata`."""
    with predictor.repository.use(target.model, target.version, target.label) as (
        number,
        servable,
    ):
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signature_defs)
    return {
        "model_spec": {"name": target.model, "signature_name": "", "version": str(number)},
        "metadata": {"signature_def": _to_dict(signatures)},
    }
