"""The API key of a server, for those that want one."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

import grpc

from rws_keras.serving.errors import ServingError


def check_key(headers: Mapping[str, str], key: str) -> None:
    """Compares the key of a request with the server's.

    Args:
        headers: Of the request, their names in small letters: `x-api-key: KEY` or
            `authorization: Bearer KEY`. In gRPC they are called metadata.
        key: The server's key.

    Raises:
        ServingError: If it is missing or wrong.
    """
    bearer = str(headers.get("authorization", "")).removeprefix("Bearer ")
    given = str(headers.get("x-api-key") or bearer)
    if not hmac.compare_digest(given.encode(), key.encode()):
        raise ServingError(grpc.StatusCode.UNAUTHENTICATED, "The API key is missing or wrong.")
