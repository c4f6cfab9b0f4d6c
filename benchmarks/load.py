"""A load on a server: `python -m benchmarks.load JOB.json RESULT.json`, in a process of its own.

Requests are put together beforehand, so that the clients take as little as they can of the
processor that they share with the server; every answer is compared with the expected one.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


async def rest_client(job: dict) -> Callable[[np.ndarray], Callable[[], Awaitable]]:
    """A REST client: makes of rows a call that gives their log-likelihoods."""
    reader, writer = await asyncio.open_connection("127.0.0.1", job["port"], limit=2**24)

    def prepare(rows):
        content = {"signature_name": job["signature"], "inputs": rows.astype(int).tolist()}
        body = json.dumps(content).encode()
        head = f"POST /v1/models/{job['model']}:predict HTTP/1.1\r\nHost: localhost\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

        async def call():
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
            answer = json.loads(await reader.readexactly(length))
            return np.float32(answer["outputs"]["log_likelihood"])

        return call

    return prepare


async def grpc_client(job: dict) -> Callable[[np.ndarray], Callable[[], Awaitable]]:
    """Likewise for gRPC, by the stubs of `tensorflow-serving-api`."""
    channel = grpc.aio.insecure_channel(
        f"127.0.0.1:{job['port']}", [("grpc.use_local_subchannel_pool", 1)]
    )
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def prepare(rows):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = job["model"]
        request.model_spec.signature_name = job["signature"]
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(rows))

        async def call():
            return tf.make_ndarray((await stub.Predict(request)).outputs["log_likelihood"])

        return call

    return prepare


async def run(job: dict) -> dict:
    """Runs so many clients for so long, each with one request at a time.

    Returns:
        `requests`, `seconds`, `wrong` (answers that differ in any bit), and the latencies
        `p50_ms` and `p99_ms`.
    """
    x, expected = np.load(job["data"]), np.load(job["expected"])
    connect = {"rest": rest_client, "grpc": grpc_client}[job["protocol"]]

    async def calls_of(number):
        prepare = await connect(job)
        starts = (np.arange(16) * 37 + number * 101) % (len(x) - job["rows"])
        spans = [slice(start, start + job["rows"]) for start in starts]
        return [(prepare(x[span]), expected[span]) for span in spans]

    async def client(calls, end):
        latencies, wrong = [], 0
        while (before := time.perf_counter()) < end:
            call, right = calls[len(latencies) % len(calls)]
            answer = await call()
            latencies.append(time.perf_counter() - before)
            wrong += not np.array_equal(answer, right)
        return latencies, wrong

    prepared = [await calls_of(number) for number in range(job["clients"])]
    start = time.perf_counter()
    found = await asyncio.gather(*(client(calls, start + job["seconds"]) for calls in prepared))
    seconds = time.perf_counter() - start
    latencies = np.concatenate([own for own, _ in found])
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    return {
        "requests": len(latencies),
        "seconds": seconds,
        "wrong": sum(wrong for _, wrong in found),
        "p50_ms": p50,
        "p99_ms": p99,
    }


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps(asyncio.run(run(job))))
