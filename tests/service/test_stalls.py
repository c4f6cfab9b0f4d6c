"""Hostile and unlucky clients, on loopback: the others are answered meanwhile."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import socket
import threading
import time
import tracemalloc
import types

import grpc
import numpy as np
import psutil
import pytest
import tensorflow as tf
from server_process import ServerProcess
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from wire import PREDICT, ROW, request_for

from rws_keras.serving import json_format, tensors
from rws_keras.serving.batcher import Batcher
from rws_keras.serving.errors import ServingError
from rws_keras.serving.export import export
from rws_keras.serving.metrics import Metrics
from rws_keras.serving.predictor import Limits, Predictor
from rws_keras.serving.repository import Repository
from rws_keras.serving.rest import RestApi
from rws_keras.serving.servable import Signature

pytestmark = pytest.mark.processes

PRESET = "digits-sbn-64-32"
HEAD = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\n".encode()
IDLE, TIMEOUT = 1.5, 3.0
SLOW = "score_accurate"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    # So many particles that 512 rows take seconds.
    export(PRESET, models, "digits", num_particles=5, fast=2, accurate=10_000, num_completions=2)
    options = ["--idle-timeout", IDLE, "--rest-timeout", TIMEOUT]
    server = ServerProcess("--models", models, *options, log=models.parent / "log")
    yield server
    assert server.stop() == 0, server.log


def connect(server, *content):
    connection = socket.create_connection(("127.0.0.1", server.rest_port), timeout=30)
    for part in content:
        connection.sendall(part)
    return connection


def answer(connection):
    """What comes until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(2**16):
            parts.append(part)
    return b"".join(parts)


def metric(server, name):
    _, text = server.get("/monitoring/prometheus/metrics")
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@contextlib.contextmanager
def health(server):
    """How long each of many questions after its health takes meanwhile."""
    seconds, stop = [], threading.Event()

    def ask():
        while not seconds or not stop.wait(0.01):
            start = time.perf_counter()
            assert server.get("/healthz")[0] == 200
            seconds.append(time.perf_counter() - start)

    thread = threading.Thread(target=ask)
    thread.start()
    yield seconds
    stop.set()
    thread.join()


def test_slow_bodies_do_not_keep_others_out(server):
    with contextlib.ExitStack() as stack:
        head = HEAD + b"Content-Length: 1000\r\n\r\n{"
        slow = [stack.enter_context(connect(server, head)) for _ in range(200)]
        statuses = [server.post(PREDICT, {"instances": [ROW]})[0] for _ in range(20)]
        assert statuses == [200] * 20
        found = [answer(connection) for connection in slow]
    assert all(text.startswith(b"HTTP/1.1 408 ") for text in found)


def test_what_large_bodies_take_together_is_bounded():
    limits = Limits(body_bytes=2**17, seconds=0.5)
    scope = {"type": "http", "method": "POST", "path": PREDICT, "headers": []}

    async def ask(app, size):
        sent, parts = [], [{"type": "http.request", "body": b" " * size, "more_body": True}]

        async def receive():
            return parts.pop() if parts else await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        await app(dict(scope), receive, send)
        return sent[0]["status"]

    async def run():
        metrics = Metrics()
        batcher = Batcher(64, 1, metrics)
        predictor = Predictor(Repository(lambda: None), batcher, limits, metrics)
        app = RestApi(predictor)
        large = [asyncio.create_task(ask(app, 2**17)) for _ in range(16)]
        await asyncio.sleep(0.1)
        # No more than 16 of the largest; what is small arrives beside them.
        found = await asyncio.gather(ask(app, 2**17), ask(app, 2**16 + 1), ask(app, 2**16))
        found += await asyncio.gather(*large)
        found.append(await ask(app, 2**17))
        predictor.close()
        return found

    assert asyncio.run(run()) == [429, 429, 408] + 16 * [408] + [408]


@pytest.mark.parametrize(
    ("before", "part"),
    [
        (HEAD + b"X-Large: ", b"a" * 2**16),
        (HEAD, b"X-Many: 1\r\n" * 2**13),
        (b"GET /healthz?", b"a" * 2**16),
    ],
    ids=["one of 100 MiB", "many", "path"],
)
def test_headers_beyond_64_kib(server, before, part):
    memory = server.memory()
    with connect(server, before) as connection, health(server) as seconds:
        with contextlib.suppress(ConnectionError):
            for _ in range(1600):
                connection.sendall(part)
        text = answer(connection)
    # The answer is lost where the system resets the connection, for what was sent after it.
    assert text.startswith(b"HTTP/1.1 431 ") or not text
    assert server.memory() - memory < 20
    assert max(seconds) < 1


def test_headers_beyond_64_kib_are_answered(server):
    with connect(server, HEAD + b"X-Large: " + b"a" * 2**16) as connection:
        text = answer(connection)
    assert text.startswith(b"HTTP/1.1 431 ")
    assert b'{"error": ' in text
    with connect(server, b"no HTTP\r\n\r\n") as connection:
        assert answer(connection).startswith(b"HTTP/1.1 400 ")
    for code in ("OUT_OF_RANGE", "INVALID_ARGUMENT"):
        assert metric(server, f'rws_keras_requests_total{{code="{code}",model="none"') >= 1
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
    with connect(server, chunked) as connection, contextlib.suppress(ConnectionError):
        for _ in range(100):
            connection.sendall(b"X-Trailer: " + b"a" * 2**16)
        assert answer(connection) == b""
    headers = {f"x-{number}": "a" * 60 for number in range(90)}
    assert server.get("/healthz", **headers)[0] == 200


def test_connections_that_never_end_are_closed(server):
    """A body that goes on after its answer; answers that are not read."""
    sample = json.dumps({"signature_name": "sample", "inputs": list(range(4000))}).encode()
    head = HEAD + b"Content-Length: %d\r\n\r\n"
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        endless = stack.enter_context(connect(server, head % 2**30))
        for requests in (1, 2):
            unread = stack.enter_context(connect(server))
            unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            unread.sendall(requests * (head % len(sample) + sample))
        assert endless.recv(2**16).startswith(b"HTTP/1.1 413 ")
        with contextlib.suppress(ConnectionError):
            while time.perf_counter() - start < 4 * IDLE + 5:
                endless.sendall(b" ")
                time.sleep(0.1)
        while time.perf_counter() - start < 4 * IDLE + 5 and connections(server):
            time.sleep(0.1)
        assert connections(server) == 0


def connections(server):
    """How many connections to its HTTP port the server has, but for those of this test's own."""
    found = psutil.Process(server.process.pid).net_connections("tcp")
    mine = [each for each in found if each.status != psutil.CONN_LISTEN]
    return sum(each.laddr.port == server.rest_port for each in mine)


def test_idle_connections_are_closed(server):
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(server)) for _ in range(300)]
        idle += [stack.enter_context(connect(server, HEAD)) for _ in range(10)]
        request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        idle += [stack.enter_context(connect(server, request)) for _ in range(10)]
        # After an answer, and the beginning of another request.
        begun = stack.enter_context(connect(server, request + b"G"))
        assert {answer(connection)[9:12] for connection in [*idle, begun]} == {b"", b"200"}
    assert time.perf_counter() - start < IDLE + 5
    assert server.get("/healthz")[0] == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"instances":[' + b"[]," * 5_500_000 + b"[]]}", 400),
        (b'{"instances":' + b"[" * 2**23, 400),
        (b'{"more":[' + b"0," * 8_000_000 + b"0]}", 400),
        (b'{"more":[' + b"NaN," * 4_000_000 + b"0]}", 400),
        (b'{"inputs":[' + b"0," * 8_000_000 + b"0]}", 400),
    ],
    ids=["lists", "depth", "numbers", "NaN", "a long input"],
)
def test_large_bodies_are_parsed_beside_other_requests(server, body, status):
    def send(_):
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
        connection.request("POST", PREDICT, body)
        return connection.getresponse().status

    def worst():
        with concurrent.futures.ThreadPoolExecutor(6) as pool, health(server) as seconds:
            assert list(pool.map(send, range(6))) == [status] * 6
        return max(seconds)

    # A stall is one each time; a busy machine, now and then.
    assert any(worst() < 0.2 for _ in range(6))
    assert server.memory() < 1500


def slow_body(rows):
    return json.dumps({"signature_name": SLOW, "instances": [ROW] * rows}).encode()


def single(server):
    """How long one row takes."""
    start = time.perf_counter()
    assert server.post(PREDICT, slow_body(1))[0] == 200
    return time.perf_counter() - start


def test_a_row_does_not_wait_for_512_others(server):
    with contextlib.ExitStack() as stack:
        body = slow_body(512)
        for _ in range(2):
            stack.enter_context(
                connect(server, HEAD + b"Content-Length: %d\r\n\r\n" % len(body), body)
            )
        time.sleep(0.3)
        seconds = [single(server) for _ in range(8)]
        assert metric(server, "rws_keras_requests_in_flight") == 2
    assert np.median(seconds) < 0.2


def idle(server):
    """Waits until nothing is being worked on."""
    for _ in range(100):
        if metric(server, "rws_keras_requests_in_flight") == 0:
            return True
        time.sleep(0.05)
    return False


def test_what_nobody_waits_for_is_not_computed(server):
    assert idle(server)
    body = slow_body(512)
    head = HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    gone = [connect(server, head, body) for _ in range(6)]
    time.sleep(0.5)
    assert metric(server, "rws_keras_requests_in_flight") == 6
    for connection in gone:
        connection.close()
    calls = [
        server.prediction.Predict.future(request_for(SLOW, x=np.float32([ROW] * 512)), timeout=0.3)
        for _ in range(6)
    ]
    assert {call.exception().code() for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    cancelled = server.prediction.Predict.future(request_for(SLOW, x=np.float32([ROW] * 512)))
    time.sleep(0.2)
    cancelled.cancel()
    assert idle(server)
    assert single(server) < 1
    count = metric(server, "rws_keras_batches_total")
    time.sleep(0.5)
    assert metric(server, "rws_keras_batches_total") == count
    assert (
        'code="CANCELLED",model="digits",protocol="rest"'
        in server.get("/monitoring/prometheus/metrics")[1]
    )


def test_a_rest_request_has_a_deadline(server):
    start = time.perf_counter()
    status, found = server.post(PREDICT, slow_body(4000))
    assert (status, found["error"]) == (504, f"The request took more than {TIMEOUT:g} seconds.")
    assert time.perf_counter() - start < TIMEOUT + 2
    assert idle(server)


def test_it_listens_before_it_is_ready(server):
    assert server.readiness[0] == 503
    assert server.readiness[-1] == 200


def test_a_line_break_after_a_request_does_not_keep_a_connection(server):
    with connect(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
        received = b""
        while not received.endswith(b'{"status":"ok"}'):
            received += connection.recv(2**16)
        connection.sendall(b"\r\n")
        connection.settimeout(5 * IDLE)
        assert answer(connection) == b""


def refuse(function, *shape):
    """Calls a function of a signature; returns the message and the peak in MiB."""
    definition = meta_graph_pb2.SignatureDef()
    definition.inputs["x"].dtype = tf.float32.as_datatype_enum
    for size in shape:
        definition.inputs["x"].tensor_shape.dim.add(size=size)
    signature = Signature("f", definition, types.SimpleNamespace(signatures={"f": None}))
    tracemalloc.start()
    try:
        with pytest.raises(ServingError) as caught:
            function(signature)
        return str(caught.value), tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def test_strings_take_no_memory_of_their_longest_one():
    content = {"instances": ["a" * 100_000] + ["b"] * 3000}
    body = json.dumps(content).encode()
    message, peak = refuse(
        lambda signature: json_format.tensors(body, content, signature, 4096), -1
    )
    assert "it holds strings" in message
    assert peak < 10.0


def test_a_shape_without_values_takes_no_memory():
    proto = tensor_pb2.TensorProto(dtype=tf.float32.as_datatype_enum)
    for size in (1, 2 * 10**8):
        proto.tensor_shape.dim.add(size=size)
    message, peak = refuse(
        lambda signature: tensors.to_array(proto, "x", signature, Limits()), -1, -1
    )
    assert "200,000,000 values, too many" in message
    assert peak < 10.0
