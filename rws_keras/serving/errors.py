"""Errors as clients see them: one code for gRPC, one for HTTP, and what to do about it."""

from __future__ import annotations

import grpc

from rws_keras.errors import UserError

_HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.DEADLINE_EXCEEDED: 408,
    grpc.StatusCode.OUT_OF_RANGE: 413,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
}


class ServingError(UserError):
    """A request that cannot be answered.

    Args:
        code: gRPC status code; `OUT_OF_RANGE` is a request that is too large.
        message: What was wrong, what was expected and what to do.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def http_status(self) -> int:
        """The HTTP status that goes with the code."""
        return _HTTP[self.code]


def invalid(message: str) -> ServingError:
    """A request that is wrong in itself."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """A model, version or label that is not served."""
    return ServingError(grpc.StatusCode.NOT_FOUND, message)


def too_large(message: str) -> ServingError:
    """A request beyond a limit of size."""
    return ServingError(grpc.StatusCode.OUT_OF_RANGE, message)


def too_many(message: str) -> ServingError:
    """One request more than can be worked on at a time."""
    return ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
