"""The server as a whole: batches, limits and the key, and how it ends and starts again."""

import concurrent.futures
import signal
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from server_process import ServerProcess
from wire import PREDICT, PRESET, ROW, as_python, request_for

from rws_keras import HelmholtzMachine

pytestmark = pytest.mark.processes


def test_rows_of_many_requests_are_answered_each_with_its_own(server, scorers):
    machine = HelmholtzMachine.from_preset(PRESET)
    x = machine.sample(64, seed=5).x.numpy()
    # Signatures of equal inputs and outputs: their batches must not mix either.
    tiers = ["score_fast", "serving_default", "score_accurate"]
    expected = {tier: as_python(scorers[1][tier], x=x)["log_likelihood"] for tier in tiers}

    def ask(row):
        # One in eight is not binary, and must not affect those that share its batch.
        if row % 8 == 7:
            body = {"signature_name": tiers[row % 3], "instances": [[0.5] * 64]}
            return np.isnan(server.post(PREDICT, body)[1]["predictions"][0]["log_likelihood"])
        request = request_for(tiers[row % 3], x=x[row : row + 1])
        return tf.make_ndarray(server.prediction.Predict(request).outputs["log_likelihood"])[0]

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        found = list(pool.map(ask, list(range(64)) * 4))
    right = [True if row % 8 == 7 else expected[tiers[row % 3]][row] for row in range(64)] * 4
    assert found == right


def test_limits_and_key(own_server, x):
    options = ["--max-rows", 4, "--max-body-mb", 0.01, "--max-concurrency", 1]
    server = own_server(*options, "--api-key", "secret")
    assert server.get("/healthz")[0] == 200
    for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer no"}):
        assert server.post(PREDICT, {"instances": [ROW]}, **headers)[0] == 401
    assert server.get("/v1/models/digits")[0] == 401
    key = {"X-API-Key": "secret"}
    assert server.post(PREDICT, {"instances": [ROW]}, **key)[0] == 200
    assert server.post(PREDICT, {"instances": [ROW]}, Authorization="Bearer secret")[0] == 200
    assert server.post(PREDICT, {"instances": [ROW] * 5}, **key)[0] == 413
    status, answer = server.post(PREDICT, b" " * 20_000, **key)
    assert (status, "larger than" in answer["error"]) == (413, True)
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Predict(request_for(x=x[:1]))
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    server.prediction.Predict(request_for(x=x[:1]), metadata=[("x-api-key", "secret")])

    def ask(_):
        body = {"signature_name": "score_accurate", "instances": [ROW] * 4}
        return server.post(PREDICT, body, **key)[0]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(ask, range(200)))
    assert set(statuses) == {200, 429}
    assert ask(0) == 200


def test_after_kill_and_restart_it_answers_as_before(own_server, x):
    before = own_server()
    expected = before.post(PREDICT, {"instances": x.tolist()})
    before.process.send_signal(signal.SIGKILL)
    before.process.wait()
    assert own_server().post(PREDICT, {"instances": x.tolist()}) == expected


def test_told_to_end_it_answers_what_it_has_begun(own_server):
    server = own_server()
    rows = [ROW] * 4000
    body = {"signature_name": "score_accurate", "inputs": rows}
    request = request_for("score_accurate", x=np.float32(rows))

    def ask(number):
        if number % 2:
            outputs = server.prediction.Predict(request).outputs
            return len(tf.make_ndarray(outputs["log_likelihood"]))
        status, answer = server.post(PREDICT, body)
        assert status == 200, answer
        return len(answer["outputs"]["log_likelihood"])

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(ask, number) for number in range(12)]
        time.sleep(0.5)
        assert server.process.poll() is None
        assert not all(each.done() for each in asked)
        assert server.stop() == 0, server.log
        assert [each.result() for each in asked] == [4000] * 12


def test_options_that_make_no_sense(tmp_path):
    for options in ([], ["--models", tmp_path / "none"], ["--model-config-file", tmp_path]):
        with pytest.raises(RuntimeError, match="Error: "):
            ServerProcess(*options, log=tmp_path / "log")
