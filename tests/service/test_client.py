"""The client: scores of files, by REST and gRPC."""

import csv

import numpy as np
import pytest
import tensorflow as tf
from server_process import ServerProcess
from survey import save_machine
from typer.testing import CliRunner
from wire import PRESET, SMALL

from rws_keras import HelmholtzMachine
from rws_keras.callbacks import write_png
from rws_keras.cli.program import app
from rws_keras.errors import UserError
from rws_keras.models.scorer import Scorer
from rws_keras.serving.client import Client, ClientError
from rws_keras.serving.export import export
from rws_keras.serving.scoring import by_server

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """The file of a calibrated machine that keeps a schema."""
    return save_machine(tmp_path_factory.mktemp("machine") / "survey.keras")


@pytest.fixture(scope="module")
def server(tmp_path_factory, survey):
    models = tmp_path_factory.mktemp("models")
    export(PRESET, models, **SMALL)
    export(survey, models, **SMALL)
    server = ServerProcess(
        "--models", models, "--max-rows", 30, "--api-key", "key", log=models.parent / "client-log"
    )
    yield server
    server.kill()


@pytest.fixture(scope="module")
def machine():
    return HelmholtzMachine.from_preset(PRESET)


@pytest.fixture(scope="module")
def x(machine):
    return machine.sample(50, seed=2).x.numpy()


@pytest.fixture(params=["url", "grpc_url"])
def client(request, server):
    return Client(getattr(server, request.param), PRESET, api_key="key")


def as_python(machine, signature, **inputs):
    function = Scorer(machine, **SMALL).signatures()[signature]
    return function(**{key: tf.constant(array) for key, array in inputs.items()})


def test_scores(client, machine, x):
    expected = as_python(machine, "serving_default", x=x)
    found = client.score(x, batch_size=16)
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values)


def test_any_signature(client, machine, x):
    mask = np.ones_like(x[:4])
    mask[:, 10:] = 0.0
    expected = as_python(machine, "impute", x=x[:4], mask=mask)
    found = client.predict("impute", x=x[:4], mask=mask)
    np.testing.assert_array_equal(found["completions"], expected["completions"])
    # One output alone, which REST sends without its name.
    expected = as_python(machine, "reconstruct", x=x[:4])
    found = client.predict("reconstruct", x=x[:4])
    assert list(found) == ["mean"]
    np.testing.assert_array_equal(found["mean"], expected["mean"])
    drawn = client.predict("sample", seed=[1, 2])
    np.testing.assert_array_equal(drawn["x"][0], machine.sample(1, seed=1).x[0])


def test_what_is_refused_is_told(client, server, x):
    with pytest.raises(ClientError, match=r"does not take 1 of the rows: 1 .*binarise"):
        client.predict(x=[x[0], 0.5 * x[1]])
    grey = np.copy(x)
    grey[[1, 20]] = 0.5
    for signature, inputs in [("posterior", {}), ("impute", {"mask": np.ones_like(x[:3])})]:
        with pytest.raises(ClientError, match="1 of the rows: 1 "):
            client.predict(signature, x=grey[:3], **inputs)
    with pytest.raises(ClientError, match="1 of the rows: 18 "):
        list(client.score_batches(np.delete(grey, 1, axis=0)[1:], batch_size=8))
    with pytest.raises(ClientError, match=r"does not take 12 of the rows: 0, 1, .* 9 and 2 more"):
        client.predict(x=0.5 * np.ones_like(x[:12]))
    with pytest.raises(ClientError, match="at most 30"):
        client.predict(x=x)
    with pytest.raises(ClientError, match="rows of data"):
        client.score(x[0])
    with pytest.raises(ClientError, match="numbers"):
        client.predict(x=["a"])
    url = server.url if hasattr(client, "_address") else server.grpc_url
    with pytest.raises(ClientError, match="API key"):
        Client(url, PRESET).score(x[:1])
    with pytest.raises(ClientError, match="unknown model"):
        Client(url, "none", api_key="key").score(x[:1])
    with pytest.raises(ClientError, match="no version 7"):
        Client(url, PRESET, version=7, api_key="key").score(x[:1])


def test_rows_that_are_not_binary_may_be_had_as_nan(client, server, machine, x):
    url = server.url if hasattr(client, "_address") else server.grpc_url
    found = Client(url, PRESET, api_key="key", allow_nan=True).score(
        np.float32([x[0], 0.5 * x[1], np.nan * x[2], x[3]])
    )
    expected = as_python(machine, "serving_default", x=x[[0, 3]])
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key][[0, 3]], values)
        assert np.isnan(found[key][[1, 2]]).all()


def test_nobody_there(monkeypatch):
    monkeypatch.setattr("rws_keras.serving.client._PAUSES", (0.01,))
    for url in ("http://127.0.0.1:9", "grpc://127.0.0.1:9"):
        with pytest.raises(ClientError):
            Client(url, PRESET).score(np.zeros([1, 64]))
    for url in ("127.0.0.1:9", "ftp://127.0.0.1:9", "http://"):
        with pytest.raises(ClientError, match="Expected http"):
            Client(url, PRESET)


@pytest.mark.parametrize("ending", ["npy", "csv", "png"])
@pytest.mark.parametrize("protocol", ["url", "grpc_url"])
def test_the_command_scores_files(server, machine, x, tmp_path, ending, protocol):
    path = tmp_path / f"data.{ending}"
    rows = x[:1] if ending == "png" else x
    if ending == "npy":
        np.save(path, rows.reshape(-1, 8, 8).astype(bool))
    elif ending == "csv":
        np.savetxt(path, rows, fmt="%d", delimiter=",")
    else:
        write_png(path, (rows.reshape(8, 8, 1) * 255).astype(np.uint8))
    arguments = ["score", PRESET, path, "--url", getattr(server, protocol)]
    arguments += ["--batch-size", 16, "--api-key", "key", "--signature", "score_accurate"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    scores = tmp_path / f"{path.name}.scores.csv"
    with scores.open() as file:
        written = list(csv.DictReader(file))
    expected = as_python(machine, "score_accurate", x=rows)
    assert [int(row["row"]) for row in written] == list(range(1, len(rows) + 1))
    for key, values in expected.items():
        np.testing.assert_array_equal(np.float32([row[key] for row in written]), values)
    assert f"{expected['log_likelihood'].numpy().mean():.2f} nats" in result.output
    assert "K is that of the server's score_accurate" in result.output
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, scores.name]


@pytest.mark.parametrize("protocol", ["url", "grpc_url"])
def test_the_command_reads_a_table_by_the_schema_of_a_machine(server, survey, tmp_path, protocol):
    """The server's scores and tail probabilities are those that are computed here."""
    table = tmp_path / "d.csv"
    table.write_text("who,drink,smokes\n7,tea,yes\n8,beer,no\n9,milk,yes\n")
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"

    def score(model, to, *arguments):
        arguments = ["score", model, table, "--id", "who", "--to", to, *arguments]
        result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        with to.open() as file:
            return list(csv.DictReader(file))

    expected = score(survey, here, "--num-particles", SMALL["num_particles"])
    at = ["--url", getattr(server, protocol), "--api-key", "key"]
    found = score("survey", there, *at, "--schema-of", survey)
    assert "tail_probability" in found[0]
    assert found == [{k: v for k, v in row.items() if k != "num_particles"} for row in expected]
    with pytest.raises(UserError, match="keeps no schema"):
        score("survey", tmp_path / "x.csv", *at, "--schema-of", PRESET)
    with pytest.raises(UserError, match="gives latent_1, not scores"):
        score("survey", tmp_path / "x.csv", *at, "--signature", "posterior")
    with pytest.raises(UserError, match=r"no signature 'none'; it has impute, posterior, rec"):
        score("survey", tmp_path / "x.csv", *at, "--signature", "none")


def test_rows_that_are_refused_are_named_as_in_the_file(server, x, tmp_path):
    """By file and row, in whichever batch they are."""
    np.save(tmp_path / "a.npy", x[:20])
    table = tmp_path / "b.csv"
    rows = x[:30].astype(str)
    rows[24, 3] = "0.5"
    table.write_text("\n".join(",".join(row) for row in rows) + "\n")
    arguments = ["score", PRESET, tmp_path / "a.npy", table, "--to", tmp_path / "out.csv"]
    arguments += ["--url", server.url, "--api-key", "key", "--batch-size", 16]
    with pytest.raises(UserError, match=r"does not take 1 of these rows: \S*b.csv row 25\. "):
        CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def test_what_is_continued_is_of_one_version(server, client):
    assert client.served_version() == 1
    assert by_server(client, "score_fast").key["version"] == client.version == 1
