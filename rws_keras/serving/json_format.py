"""Requests and answers of TF Serving's REST API as JSON."""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import tensorflow as tf

from rws_keras.serving.errors import invalid
from rws_keras.serving.servable import Signature

# Values that are converted at once; between two pieces other threads have their turn.
_PIECE = 50_000
# TF Serving also takes these, which orjson does not. Numbers beyond float32 stand in for them.
_SPECIAL = {b"NaN": 7.65432109876e299, b"Infinity": 8.76543210987e299, b"Inf": 8.76543210987e299}
_STRING = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")')
# Values that NumPy would convert, or make huge arrays of; a string before a colon is a key.
_BOOLEAN_OR_STRING = re.compile(rb'true|false|"\s*[\],}]')


def parse(body: bytes, most_lists: float, most_values: float) -> dict:
    """Reads a JSON object.

    Nothing else runs while Python's objects for it are made, so there must not be millions that no
    request needs: they take seconds.

    Args:
        body: The text, in UTF-8.
        most_lists: How many lists, objects and quotation marks there may be.
        most_values: How many values besides.

    Raises:
        ServingError: If it is something else.
    """
    lists = body.count(b"[") + body.count(b"{") + body.count(b'"')
    if lists > most_lists or body.count(b",") > most_values + most_lists:
        raise invalid("The JSON has more values than any request of the allowed number of rows.")
    try:
        gc.disable()  # which looks at all lists again and again while they are made
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" not in body and b"Inf" not in body:
            raise invalid(f"JSON parse error: {error}.") from error
        content = _parse_special(body)
    finally:
        gc.enable()
    if not isinstance(content, dict):
        raise invalid(f"Expected a JSON object, got {type(content).__name__}.")
    return content


def _parse_special(body: bytes) -> Any:
    parts = _STRING.split(body)
    for index in range(0, len(parts), 2):  # what is between strings
        for token, number in _SPECIAL.items():
            parts[index] = parts[index].replace(token, str(number).encode())
    try:
        return orjson.loads(b"".join(parts))
    except orjson.JSONDecodeError as error:
        raise invalid(f"JSON parse error: {error}.") from error


def signature_name(content: dict) -> str:
    """The signature that a request names, "" if none.

    Raises:
        ServingError: If it is not a string.
    """
    name = content.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("JSON value: 'signature_name' key must be a string value.")
    return name


def tensors(
    body: bytes, content: dict, signature: Signature, most_rows: int
) -> dict[str, np.ndarray]:
    """The inputs of a `:predict` request, of rows (`instances`) or of columns (`inputs`).

    Args:
        body: The request's bytes.
        content: Their content.
        signature: The signature to run.
        most_rows: How many rows a request may have.

    Raises:
        ServingError: If the request does not fit the signature.
    """
    if ("instances" in content) == ("inputs" in content):
        raise invalid("Expected one of the keys 'instances' (rows) and 'inputs' (columns).")
    if "instances" in content:
        columns = _columns(content["instances"], signature)
    else:
        columns = _named(content["inputs"], signature)
        # As in TF Serving, more names than are needed do no harm here.
        columns = {name: columns[name] for name in signature.inputs if name in columns}
    signature.check_names(columns)
    # The name of the signature is a string too.
    most = 1 if "signature_name" in content else 0
    unusual = len(_BOOLEAN_OR_STRING.findall(body)) > most
    arrays = {}
    for name, (dtype, shape) in signature.inputs.items():
        arrays[name] = _array(name, columns[name], dtype, shape, unusual)
        signature.check_shape(name, arrays[name].shape, most_rows)
    return arrays


def _columns(instances: Any, signature: Signature) -> dict[str, Any]:
    """Rows as one list for each input."""
    if not isinstance(instances, list) or not instances:
        raise invalid("Expected 'instances' to be a list of at least one row.")
    if not isinstance(instances[0], dict):
        if any(isinstance(row, dict) for row in instances):
            raise invalid("Expected a value or a list, got an object: 'instances' mixes both.")
        return _named(instances, signature)
    names = set(signature.inputs)
    for row in instances:
        if not isinstance(row, dict) or set(row) != names:
            given = ", ".join(sorted(row)) if isinstance(row, dict) else "no object"
            raise invalid(
                f"Each of 'instances' must have the keys {', '.join(sorted(names))}; got: {given}."
            )
    return {name: [row[name] for row in instances] for name in names}


def _named(values: Any, signature: Signature) -> dict[str, Any]:
    """The inputs by name; the name may be missing where there is one only."""
    if isinstance(values, dict):
        return values
    if len(signature.inputs) != 1:
        raise invalid(f"Expected an object with the inputs: {', '.join(signature.inputs)}.")
    return {next(iter(signature.inputs)): values}


def _array(
    name: str, values: Any, dtype: tf.DType, shape: Sequence[int], unusual: bool
) -> np.ndarray:
    """Nested lists as an array of the signature's dtype."""
    rows = max(1, _PIECE // max(1, abs(math.prod(shape[1:]))))
    try:
        if not isinstance(values, list) or len(values) <= rows:
            return _piece(values, dtype, unusual)
        starts = range(0, len(values), rows)
        return np.concatenate([_piece(values[i : i + rows], dtype, unusual) for i in starts])
    except (ValueError, OverflowError) as error:
        raise invalid(f"The input `{name}` is not an array of {dtype.name}: {error}.") from error


def _piece(values: Any, dtype: tf.DType, unusual: bool) -> np.ndarray:
    types = set(map(type, np.asarray(values, object).flat)) if unusual else set()
    if str in types:
        raise ValueError("it holds strings")
    array = np.asarray(values)
    wanted = np.dtype(dtype.as_numpy_dtype)
    if not array.size:
        return array.astype(wanted)
    if bool in types:
        array = array.astype(bool)
    if array.dtype.kind == "f" and np.abs(array).max() > 1e299:
        for token, number in _SPECIAL.items():
            array[array == number] = float(token)
            array[array == -number] = -float(token)
    if not _lossless(array, wanted):
        raise ValueError("it holds values of another type, or beyond its range")
    return array.astype(wanted)


def _lossless(array: np.ndarray, wanted: np.dtype) -> bool:
    """Whether TF Serving takes such values for a dtype."""
    kind = array.dtype.kind
    if kind == "f" and wanted.kind == "f":
        return bool(np.abs(array[np.isfinite(array)]).max(initial=0) <= np.finfo(wanted).max)
    if kind not in "iu" or wanted.kind not in "iuf":
        return kind == wanted.kind == "b"
    if wanted.kind == "f":
        most = 2 ** (np.finfo(wanted).nmant + 1) - 1  # beyond, not every integer has a float
        least = -most
    else:
        least, most = np.iinfo(wanted).min, np.iinfo(wanted).max
    return least <= int(array.min()) and int(array.max()) <= most


def dump(outputs: dict[str, np.ndarray], by_row: bool) -> bytes:
    """An answer to `:predict`, floats with the digits of their dtype.

    A single output comes without its name.
    """
    arrays = [np.ascontiguousarray(array) for array in outputs.values()]
    names = list(outputs)
    if not by_row:
        texts = [b"[" + b",".join(_rows([array], None)) + b"]" for array in arrays]
        if len(texts) == 1:
            return b'{"outputs":' + texts[0] + b"}"
        pairs = zip(names, texts, strict=True)
        return b'{"outputs":{' + b",".join(orjson.dumps(n) + b":" + t for n, t in pairs) + b"}}"
    rows = _rows(arrays, None if len(arrays) == 1 else names)
    return b'{"predictions":[' + b",".join(rows) + b"]}"


def _rows(arrays: list[np.ndarray], names: list[str] | None) -> list[bytes]:
    """Pieces of the text of rows, without the brackets around all of them."""
    count = len(arrays[0])
    step = max(1, _PIECE * count // max(1, sum(array.size for array in arrays)))
    pieces = []
    for start in range(0, count, step):
        parts = [array[start : start + step] for array in arrays]
        finite = all(part.dtype.kind != "f" or np.isfinite(part).all() for part in parts)
        if not finite:  # orjson has no NaN; the digits of float32 as a float64 are the same
            parts = [part.astype("U32").astype(np.float64).tolist() for part in parts]
        content: Any = parts[0]
        if names is not None:
            content = [dict(zip(names, row, strict=True)) for row in zip(*parts, strict=True)]
        if finite:
            text = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
        else:
            text = json.dumps(content, separators=(",", ":")).encode()
        pieces.append(text[1:-1])
    return pieces
