"""Errors as clients see them: a gRPC status code, an HTTP status, and what to do about it."""

from __future__ import annotations

import grpc

from rws_keras.errors import UserError

Code = grpc.StatusCode
_HTTP = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.UNAUTHENTICATED: 401,
    Code.NOT_FOUND: 404,
    Code.OUT_OF_RANGE: 413,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


class ServingError(UserError):
    """A request that cannot be answered.

    Args:
        code: gRPC status code; `OUT_OF_RANGE` is a request that is too large.
        message: What was wrong, what was expected and what to do.
        http_status: By default the one that TF Serving sends for the code.
    """

    def __init__(self, code: grpc.StatusCode, message: str, http_status: int | None = None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.http_status = http_status or _HTTP.get(code, 500)


def invalid(message: str) -> ServingError:
    """A request that is wrong in itself."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """A model or version that is not served."""
    return ServingError(Code.NOT_FOUND, message)


def too_large(message: str) -> ServingError:
    """A request beyond a limit of size."""
    return ServingError(Code.OUT_OF_RANGE, message)
