"""TF Serving's REST API, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
import zlib
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from google.protobuf import json_format as proto_json
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from rws_keras.serving import json_format
from rws_keras.serving.api_key import check_key
from rws_keras.serving.errors import Code, ServingError, invalid, not_found, too_large
from rws_keras.serving.predictor import SMALL_BYTES, Predictor
from rws_keras.serving.repository import Target

METRICS_PATH = "/monitoring/prometheus/metrics"
_OPEN = ("/healthz", "/readyz")
_MODEL = r"(?i:/v1/models/)(?P<model>[^/:]+)"
_VERSION = r"(?:(?i:/versions/)(?P<version>\d+)|(?i:/labels/)(?P<label>[^/:]+))?"
_METHOD = re.compile(_MODEL + _VERSION + r":(?P<method>(?i:classify|regress|predict))")
_STATUS = re.compile(_MODEL + _VERSION + r"(?P<metadata>/(?i:metadata))?")
# Requests that are not answered within this time are dropped when their client is gone.
_SOON = 0.2
# Bodies of more than `SMALL_BYTES` that are held at a time, in units of the largest one.
_LARGE_BODIES = 16


class RestApi:
    """The application.

    Args:
        predictor: Answers the requests.
        api_key: If given, requests must carry it, as `Authorization: Bearer KEY` or `X-API-Key`.
    """

    def __init__(self, predictor: Predictor, api_key: str | None = None):
        self.predictor = predictor
        self._api_key = api_key
        self._limits = predictor.limits
        self._held_bytes = 0

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        start, code, kind = time.perf_counter(), "OK", b"application/json"
        path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        request = _Request(scope["method"], path, scope["headers"], receive)
        try:
            status, body = 200, await self._answer(request)
            if path == METRICS_PATH:
                kind = b"text/plain; version=0.0.4"
        except ServingError as error:
            code, status = error.code.name, error.http_status
            body = json.dumps({"error": error.message}).encode()
        except Exception:
            logging.getLogger(__name__).exception("%s %s failed.", request.method, path)
            code, status = "INTERNAL", 500
            body = json.dumps({"error": f"The server failed at {path}; see its log."}).encode()
        finally:
            self._held_bytes -= request.held_bytes
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        model = request.model if self.predictor.repository.has(request.model) else "none"
        self.predictor.metrics.answered("rest", model, code, time.perf_counter() - start)

    async def _answer(self, request: _Request) -> bytes:
        path, get = request.path, request.method == "GET"
        if self._api_key and path not in _OPEN:
            check_key(request.headers, self._api_key)
        if path == "/healthz" and get:
            return b'{"status":"ok"}'
        if path == "/readyz" and get:
            if not self.predictor.repository.ready():
                raise ServingError(Code.UNAVAILABLE, "No model is loaded.")
            return b'{"status":"ok"}'
        if path == METRICS_PATH and get:
            return self.predictor.metrics.text()
        if not path.lower().startswith("/v1/"):
            raise not_found(f"There is nothing at {request.method} {path}.")
        if request.method == "POST" and (match := _METHOD.fullmatch(path)):
            target = request.target(match)
            body = await self._read(request)
            with self.predictor.admitted():
                try:
                    async with asyncio.timeout(self._limits.seconds):
                        return await self._post(request, match["method"].lower(), target, body)
                except TimeoutError as error:
                    message = f"The request took more than {self._limits.seconds:g} seconds."
                    raise ServingError(Code.DEADLINE_EXCEEDED, message) from error
        if get and (match := _STATUS.fullmatch(path)):
            target = request.target(match)
            return self._metadata(target) if match["metadata"] else self._status(target)
        if get and path.lower() == "/v1/models":
            raise invalid("Missing model name in request.")
        raise invalid(f"Malformed request: {request.method} {path}")

    async def _read(self, request: _Request) -> bytes:
        """The body: more than is allowed is not even read."""
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._limits.body_bytes:
            raise self._too_large()
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.seconds):
                while True:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise _client_gone()
                    size += len(message["body"])
                    self._hold(request, size)
                    parts.append(message["body"])
                    if not message.get("more_body"):
                        break
        except TimeoutError as error:
            raise ServingError(
                Code.DEADLINE_EXCEEDED,
                f"The request did not arrive within {self._limits.seconds:g} seconds.",
                http_status=408,
            ) from error
        body = b"".join(parts)
        if "gzip" in request.headers.get("content-encoding", ""):
            body = await self.predictor.convert(2**30, self._unzipped, body)
            self._hold(request, len(body))
        return body

    def _hold(self, request: _Request, size: int) -> None:
        if size > self._limits.body_bytes:
            raise self._too_large()
        if size > max(SMALL_BYTES, request.held_bytes):
            self._held_bytes += size - request.held_bytes
            request.held_bytes = size
            if self._held_bytes > _LARGE_BODIES * self._limits.body_bytes:
                message = "Too many large requests are arriving; try again later."
                raise ServingError(Code.RESOURCE_EXHAUSTED, message)

    def _unzipped(self, body: bytes) -> bytes:
        reader = zlib.decompressobj(wbits=31)
        try:
            text = reader.decompress(body, self._limits.body_bytes + 1)
        except zlib.error as error:
            raise invalid(f"The body cannot be read as gzip: {error}.") from error
        if len(text) > self._limits.body_bytes:
            raise self._too_large()
        return text

    def _too_large(self) -> ServingError:
        most = self._limits.body_bytes
        return too_large(f"The request is larger than {most:,} bytes; send several smaller ones.")

    async def _post(self, request: _Request, method: str, target: Target, body: bytes) -> bytes:
        predictor, rows = self.predictor, self._limits.rows
        most_lists, most_values = 16.0 * rows + 1024, 0.0
        with contextlib.suppress(ServingError):  # raised when the body is read, as in TF Serving
            _, servable = predictor.repository.servable(target)
            most_lists += rows * servable.row_lists
            most_values = rows * servable.row_values
        content = await predictor.convert(
            len(body), json_format.parse, body, most_lists, most_values
        )
        name = json_format.signature_name(content)
        if method != "predict" and not (
            isinstance(content.get("examples"), list) and content["examples"]
        ):
            raise invalid("Expected the key 'examples' with a list of at least one.")
        _, servable = predictor.repository.servable(target)
        if method != "predict":
            servable.refuse(method, name)
        signature = servable.signature(name)
        inputs = await predictor.convert(
            len(body), json_format.tensors, body, content, signature, rows
        )
        outputs = await _unless_gone(
            predictor.run(target.model, signature, inputs), request.receive
        )
        size = sum(array.nbytes for array in outputs.values())
        return await predictor.convert(size, json_format.dump, outputs, "instances" in content)

    def _metadata(self, target: Target) -> bytes:
        number, servable = self.predictor.repository.servable(target)
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signature_defs)
        content = {
            "model_spec": {"name": target.model, "signature_name": "", "version": str(number)},
            "metadata": {"signature_def": _to_dict(signatures)},
        }
        return json.dumps(content).encode()

    def _status(self, target: Target) -> bytes:
        statuses = [version.status() for version in self.predictor.repository.versions(target)]
        message = get_model_status_pb2.GetModelStatusResponse(model_version_status=statuses)
        return json.dumps(_to_dict(message)).encode()


class _Request:
    """A request's method, path and headers."""

    def __init__(self, method: str, path: str, headers: list, receive: Callable[[], Awaitable]):
        self.method = method
        self.path = path
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        self.receive = receive
        self.model = ""
        self.held_bytes = 0

    def target(self, match: re.Match) -> Target:
        """The model that a path names."""
        self.model = unquote(match["model"])
        version, label = match["version"], match["label"]
        number = None if version is None else int(version[-4000:])
        if number is not None and (len(version) > 4000 or number >= 2**63):
            raise invalid(f"Failed to convert version: {version[:40]} to numeric.")
        return Target(self.model, number, None if label is None else unquote(label))


async def _unless_gone(work: asyncio.Future, receive: Callable[[], Awaitable]) -> dict:
    """What some work results in, unless the client closes the connection meanwhile."""
    gone = None
    try:
        if not (await asyncio.wait([work], timeout=_SOON))[0]:
            gone = asyncio.ensure_future(receive())
            await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise _client_gone()
        return work.result()
    finally:
        work.cancel()
        if gone:
            gone.cancel()


def _client_gone() -> ServingError:
    return ServingError(Code.CANCELLED, "The client has closed the connection.")


def _to_dict(message) -> dict:
    return proto_json.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
