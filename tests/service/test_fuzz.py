"""More than 10,000 malformed requests: no failure of the server, and no growth of its memory."""

import http.client
import json
from urllib.parse import quote

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_process import ServerProcess
from tensorflow_serving.apis import predict_pb2

from rws_keras.serving.export import export

pytestmark = [pytest.mark.fuzz, pytest.mark.processes]

REST, GRPC = 7000, 4000
# Once warmed up. A kilobyte left behind by each request would be 11 MiB.
MOST_GROWTH_MIB = 24
ROW = [0] * 64


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    export(
        "digits-sbn-64-32", models, "digits", num_particles=5, fast=2, accurate=5, num_completions=2
    )
    server = ServerProcess("--models", models, "--max-body-mb", 1, log=models.parent / "log")
    yield server
    server.kill()


def fuzz(examples):
    """Hypothesis with the same examples each time."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just(10**400)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
rows = st.one_of(values, st.just(ROW), st.just([ROW]), st.just({"x": ROW}), st.just({"x": [ROW]}))
signatures = st.sampled_from(["serving_default", "impute", "sample", "reconstruct", "posterior"])
bodies = st.one_of(
    st.binary(max_size=200),
    values.map(json.dumps).map(str.encode),
    st.fixed_dictionaries(
        {},
        optional={
            "signature_name": signatures | values,
            "instances": st.lists(rows, max_size=4) | rows,
            "inputs": rows
            | st.fixed_dictionaries({"x": rows}, optional={"mask": rows, "seed": rows}),
            "else": values,
        },
    )
    .map(json.dumps)
    .map(str.encode),
)
names = st.text(max_size=12).map(lambda text: quote(text, safe="/:.%&=", errors="replace"))
paths = st.one_of(
    st.just("/v1/models/digits:predict"),
    st.builds("/v1/models/digits/versions/{}:predict".format, st.integers() | names),
    st.builds("/v1/models/digits/labels/{}:predict".format, names),
    st.builds("/v1/models/{}:predict".format, names),
    st.builds("/{}".format, names),
)
methods = st.sampled_from(["POST"] * 8 + ["GET", "PUT", "DELETE", "HEAD"])


def test_rest(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    statuses, memory = {}, []

    def ask(*request):
        """A server may close a connection between two requests: then there is a second try."""
        for last in (False, True):
            try:
                connection.request(*request)
                response = connection.getresponse()
                return response, response.read()
            except (ConnectionError, http.client.BadStatusLine):
                connection.close()
                if last:
                    raise
        raise AssertionError

    @fuzz(REST)
    @given(methods, paths, bodies)
    def send(method, path, body):
        response, text = ask(method, path, body)
        statuses[response.status] = statuses.get(response.status, 0) + 1
        assert response.status < 500, text
        if response.status >= 400 and method != "HEAD" and text:
            # A path that the HTTP parser itself refuses is answered in plain text.
            assert text.startswith(b'{"error": "') or response.status == 400
        if sum(statuses.values()) == REST // 5:
            memory.append(server.memory())

    send()
    assert sum(statuses.values()) >= REST
    # It did get through to the models, and was not turned away for one reason only.
    assert {200, 400, 404} <= set(statuses)
    assert server.memory() - memory[0] < MOST_GROWTH_MIB
    assert server.post("/v1/models/digits:predict", {"instances": [ROW]})[0] == 200


dims = st.lists(st.integers(-2, 70) | st.integers(-(2**63), 2**63 - 1), max_size=4)


@st.composite
def tensors(draw):
    """A tensor protobuf: a sound one, and then something in it drawn anew."""
    tensor = predict_pb2.PredictRequest().inputs["x"]
    tensor.dtype = draw(st.sampled_from([1] * 6 + [0, 2, 3, 7, 9, 10, 21, 23]))
    for size in draw(st.just([1, 64]) | dims):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_shape.unknown_rank = draw(st.integers(0, 9)) == 0
    content = draw(st.sampled_from(["content", "floats", "ints", "strings", "none"]))
    if content == "content":
        tensor.tensor_content = draw(st.just(b"\0" * 256) | st.binary(max_size=300))
    elif content == "floats":
        tensor.float_val.extend(draw(st.lists(st.floats(width=32), max_size=66)))
    elif content == "ints":
        tensor.int64_val.extend(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)))
    elif content == "strings":
        tensor.string_val.extend(draw(st.lists(st.binary(max_size=9), max_size=4)))
    return tensor


@st.composite
def requests(draw):
    """The bytes of a request: a protobuf of random content, or no protobuf at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    request = predict_pb2.PredictRequest()
    request.model_spec.name = draw(st.sampled_from(["digits"] * 9 + ["", "none"]))
    request.model_spec.signature_name = draw(signatures | st.just("") | st.text(max_size=9))
    if draw(st.integers(0, 4)) == 0:
        request.model_spec.version.value = draw(st.sampled_from([1, 2, -1, 2**62]))
    for name in draw(st.sampled_from([["x"], ["x"], ["x", "mask"], ["seed"], [], ["y"]])):
        request.inputs[name].CopyFrom(draw(tensors()))
    request.output_filter.extend(draw(st.sampled_from([[], [], ["mean"], ["no"]])))
    return request.SerializeToString()


def test_grpc(server):
    channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    codes, memory = {}, []

    @fuzz(GRPC)
    @given(requests())
    def send(request):
        try:
            call(request, timeout=60)
            code = "OK"
        except grpc.RpcError as error:
            code = error.code().name
        codes[code] = codes.get(code, 0) + 1
        assert code not in ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED")
        if sum(codes.values()) == GRPC // 5:
            memory.append(server.memory())

    send()
    assert sum(codes.values()) >= GRPC
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"} <= set(codes)
    assert server.memory() - memory[0] < MOST_GROWTH_MIB
    assert server.post("/v1/models/digits:predict", {"instances": [ROW]})[0] == 200
