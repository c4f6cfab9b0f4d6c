"""Scores of files, computed here: what is written, in which order, and after an interruption."""

import csv

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from exact import randomize
from typer.testing import CliRunner

from rws_keras import HelmholtzMachine
from rws_keras.cli.program import app
from rws_keras.datasets import Rows, Schema
from rws_keras.errors import UserError
from rws_keras.models.scorer import Scorer
from rws_keras.serving.score_file import ScoreFile
from rws_keras.serving.scoring import Scores, score_files

COLUMNS = ["log_likelihood", "standard_error", "effective_sample_size", "num_particles"]
SCHEMA = Schema.from_config(
    {
        "columns": [
            {"name": "smokes", "values": ["no", "yes"]},
            {"name": "drink", "values": ["beer", "milk", "tea"]},
        ]
    }
)


@pytest.fixture(scope="module")
def machine():
    made = HelmholtzMachine.from_sizes(
        4, [3], choices=SCHEMA.groups, schema=SCHEMA.get_config(), seed=0
    )
    return randomize(made, 0)


@pytest.fixture(scope="module")
def plain():
    """A machine that keeps no schema."""
    return randomize(HelmholtzMachine.from_sizes(4, [3], seed=0), 1)


@pytest.fixture
def here(machine, plain, tmp_path, monkeypatch):
    """A directory with both machines, a table and arrays."""
    monkeypatch.chdir(tmp_path)
    machine.save("survey.keras")
    plain.save("plain.keras")
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "drink": random.choice(["tea", "beer", "milk"], 20),
            "who": [f"p, {number}" for number in range(20, 0, -1)],
            "smokes": random.choice(["yes", "no"], 20),
        }
    )
    table.to_csv("d.csv", index=False)
    x = random.integers(0, 2, (6, 2, 2), np.uint8)
    np.save("d.npy", x)
    (tmp_path / "d.png").write_bytes(tf.io.encode_png(x[0, ..., None] * 255).numpy())
    return tmp_path


def score(*arguments):
    return CliRunner().invoke(app, ["score", *map(str, arguments)], catch_exceptions=False).output


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def expected(machine, x, num_particles=100, seed=0):
    functions = Scorer(machine, num_particles=num_particles, seed=seed).signatures()
    return functions["serving_default"](x=tf.constant(x))["log_likelihood"].numpy()


def values(rows, column="log_likelihood"):
    return np.float32([row[column] for row in rows])


def test_a_table_is_read_by_the_machines_own_schema(here, machine):
    """Whatever the order of its columns and values, also if a value is not there at all."""
    shown = score("survey.keras", "d.csv", "--id", "who", "--num-particles", 30, "--seed", 4)
    table = pd.read_csv("d.csv")
    x = np.float32(
        [
            [row.smokes == "yes", *(row.drink == drink for drink in ("beer", "milk", "tea"))]
            for row in table.itertuples()
        ]
    )
    rows = read("d.csv.scores.csv")
    assert list(rows[0]) == ["row", "who", *COLUMNS]
    assert [row["who"] for row in rows] == table["who"].tolist()
    assert [row["row"] for row in rows] == [str(number) for number in range(1, 21)]
    np.testing.assert_array_equal(values(rows), expected(machine, x, 30, 4))
    assert {row["num_particles"] for row in rows} == {"30"}
    assert f"mean log-likelihood {values(rows).mean():.2f} nats (K = 30)" in shown
    table[table["drink"] == "tea"].to_csv("tea.csv", index=False)
    assert "does not use the columns who" in score("survey.keras", "tea.csv")
    np.testing.assert_array_equal(
        values(read("tea.csv.scores.csv")), expected(machine, x[x[:, 3] == 1])
    )


def test_several_files_have_one_output(here, plain):
    shown = score("plain.keras", "d.npy", "d.png")
    assert "Wrote 7 scores to scores.csv" in shown
    assert "(K = 100)" in shown
    rows = read("scores.csv")
    assert [(row["file"], row["row"]) for row in rows] == [
        *(("d.npy", str(number)) for number in range(1, 7)),
        ("d.png", "1"),
    ]
    x = np.load("d.npy").reshape(6, 4).astype(np.float32)
    np.testing.assert_array_equal(values(rows), expected(plain, np.concatenate([x, x[:1]])))


def test_files_that_differ_in_their_ending_have_scores_of_their_own(here):
    for name in ("d.npy", "d.png"):
        score("plain.keras", name)
    assert len(read("d.npy.scores.csv")) == 6
    assert len(read("d.png.scores.csv")) == 1


def test_no_file_is_overwritten_without_being_asked(here):
    (here / "out.csv").write_text("mine")
    with pytest.raises(UserError, match=r"out.csv exists already.*--to.*--overwrite"):
        score("plain.keras", "d.npy", "--to", "out.csv")
    assert (here / "out.csv").read_text() == "mine"
    assert not list(here.glob("*.partial"))
    score("plain.keras", "d.npy", "--to", "out.csv", "--overwrite")
    assert len(read("out.csv")) == 6
    before = (here / "d.csv").read_text()
    with pytest.raises(UserError, match="is one of the files to score"):
        score("survey.keras", "d.csv", "--to", here / "d.csv", "--overwrite")
    assert (here / "d.csv").read_text() == before
    with pytest.raises(UserError, match="is a directory"):
        score("plain.keras", "d.npy", "--to", here, "--overwrite")


class Stopped(Exception):
    """Stands for a Ctrl-C, which would end the tests."""


def stop_after(batches):
    """A `report` that stops when so many batches are done."""

    def report(done):
        if done == batches:
            raise Stopped

    return report


class Counting:
    """Scores that are easily told: the number of a row, in the order they were asked for."""

    def __init__(self, **key):
        self.asked = []
        self.scores = Scores(("log_likelihood",), self._score, {"model": "a", **key})

    def _score(self, x):
        self.asked.append(len(x))
        return {"log_likelihood": x.sum(axis=1) / np.float32(3)}


FILES = {
    "a": Rows(np.eye(5, dtype=np.float32), ["x", 'y "\n", z', "", "ü", "v"]),
    "b": Rows(np.ones([4, 5], np.float32), list("wxyz")),
}


def test_after_an_interruption_it_goes_on(tmp_path):
    whole = ScoreFile(tmp_path / "whole.csv")
    score_files(Counting().scores, FILES, whole, "id", 2)
    path = tmp_path / "scores.csv"
    for stop in (1, 3):
        with pytest.raises(Stopped):
            score_files(Counting().scores, FILES, ScoreFile(path), "id", 2, stop_after(stop))
        assert not path.exists()
    counting = Counting()
    # Another size of the batches does not matter: a row's score does not depend on them.
    found = score_files(counting.scores, FILES, ScoreFile(path), "id", 1)
    assert (found.num_rows, found.num_before) == (9, 6)
    assert found.log_likelihood == pytest.approx((5 + 4 * 5) / 3 / 9)
    assert counting.asked == [1, 1, 1]
    assert path.read_bytes() == whole.path.read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["scores.csv", "whole.csv"]
    rows = read(path)
    assert [row["id"] for row in rows] == [*FILES["a"].ids, *FILES["b"].ids]


@pytest.mark.parametrize("lost", [1, 3, 9, 14, 30])
def test_a_torn_end_is_dropped(tmp_path, lost):
    """After a power cut the last bytes may be missing, or be of something else."""
    whole = ScoreFile(tmp_path / "whole.csv")
    score_files(Counting().scores, FILES, whole, "id", 2)
    for end in (b"", b"\0" * 7, b"a,9"):
        target = ScoreFile(tmp_path / "scores.csv")
        with pytest.raises(Stopped):
            score_files(Counting().scores, FILES, target, "id", 2, stop_after(2))
        content = target.partial.read_bytes()
        target.partial.write_bytes(content[:-lost] + end)
        found = score_files(Counting().scores, FILES, target, "id", 2)
        assert found.num_before < 4
        assert target.path.read_bytes() == whole.path.read_bytes()
        target.path.unlink()


def test_what_is_not_the_same_does_not_go_on(tmp_path):
    def interrupted(key, files, id_column="id", overwrite=False, batches=1):
        target = ScoreFile(tmp_path / "scores.csv", overwrite)
        return score_files(Counting(**key).scores, files, target, id_column, 2, stop_after(batches))

    with pytest.raises(Stopped):
        interrupted({"num_particles": 10, "seed": 1}, FILES)
    other = {"a": FILES["a"], "b": Rows(FILES["b"].x, list("wxyy"))}
    reordered = dict(reversed(FILES.items()))
    cases = [
        ({"num_particles": 20, "seed": 1}, FILES, "id", "num_particles = 10 instead of 20"),
        ({"num_particles": 10, "seed": 2}, FILES, "id", "seed = 1 instead of 2"),
        ({"num_particles": 10, "seed": 1, "model": "b"}, FILES, "id", "model = a instead of b"),
        ({"num_particles": 10, "seed": 1}, other, "id", "another value of files"),
        ({"num_particles": 10, "seed": 1}, reordered, "id", "another value of files"),
        ({"num_particles": 10, "seed": 1}, FILES, "name", "another value of columns"),
    ]
    for key, files, id_column, message in cases:
        with pytest.raises(UserError, match=message):
            interrupted(key, files, id_column)
    found = interrupted(cases[0][0], FILES, overwrite=True, batches=None)
    assert found.num_before == 0
    (tmp_path / "scores.csv").unlink()
    (tmp_path / "scores.csv.partial").write_text("mine")
    with pytest.raises(UserError, match="is not what an interrupted start left there"):
        interrupted({}, FILES)


def test_what_was_scored_before_a_failure_is_kept(tmp_path):
    counting = Counting()

    def fail_at_third(x):
        if len(counting.asked) == 2:
            raise UserError("The server is gone.")
        return counting._score(x)

    target = ScoreFile(tmp_path / "scores.csv")
    failing = counting.scores._replace(score=fail_at_third)
    with pytest.raises(UserError, match=r"gone\. The scores of 4 rows are kept; the same command"):
        score_files(failing, FILES, target, "id", 2)
    assert not target.path.exists()
    assert score_files(Counting().scores, FILES, target, "id", 2).num_before == 4


def test_the_command_goes_on_with_the_same_scores(here, monkeypatch):
    """Bit for bit those of a command that was not interrupted; Ctrl-C leaves no final file."""
    arguments = ["survey.keras", "d.csv", "--batch-size", 3]
    score(*arguments, "--to", "whole.csv")
    append, calls = ScoreFile.append, []

    def interrupted(self, rows):
        append(self, rows)
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(ScoreFile, "append", interrupted)
    assert "Continue with the same command" in score(*arguments, "--to", "out.csv")
    assert not (here / "out.csv").exists()
    monkeypatch.setattr(ScoreFile, "append", append)
    with pytest.raises(UserError, match="num_particles = 100 instead of 99"):
        score(*arguments, "--to", "out.csv", "--num-particles", 99)
    with pytest.raises(UserError, match="another value of model"):
        score("plain.keras", "d.npy", "--to", "out.csv")
    assert "9 of the scores are from an earlier start" in score(*arguments, "--to", "out.csv")
    assert (here / "out.csv").read_bytes() == (here / "whole.csv").read_bytes()


def test_real_units(here):
    """A machine of real units takes numbers as they are, of arrays and tables."""
    machine = HelmholtzMachine.from_sizes(3, [2], p="gaussian", q="gaussian", prior="gaussian")
    randomize(machine, 0, 0.3).save("real.keras")
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.save("real.npy", x)
    np.savetxt("real.csv", x, delimiter=",")
    score("real.keras", "real.npy", "real.csv", "--num-particles", 50)
    rows = read("scores.csv")
    np.testing.assert_array_equal(values(rows[:5]), expected(machine, x, 50))
    np.testing.assert_allclose(values(rows[5:]), values(rows[:5]), rtol=1e-5)
    shown = CliRunner().invoke(app, ["evaluate", "real.keras", "--data", "real.npy"]).output
    assert " 100   5 " in shown
    np.save("nan.npy", np.full([1, 3], np.nan))
    with pytest.raises(UserError, match=r"nan.npy, row 1: the value of unit 1 is missing"):
        score("real.keras", "nan.npy")


def test_options_without_effect_and_names_that_are_taken(here):
    cases = [
        (["plain.keras", "d.npy", "--signature", "score_fast"], "--signature needs --url"),
        (["plain.keras", "d.npy", "--version", "1"], "--version needs --url"),
        (["plain.keras", "d.npy", "--schema-of", "survey.keras"], "--schema-of needs --url"),
        (["m", "d.npy", "--url", "http://a", "--seed", "1"], "--seed has no effect with --url"),
        (["m", "d.npy", "--url", "http://a", "--num-particles", "9"], "--num-particles has no"),
        (["plain.keras", "d.npy", "--id", "who"], "`id_column` has no effect on d.npy"),
        (["plain.keras", "d.npy", "--header"], "`header` has no effect on d.npy"),
        (["survey.keras", "d.csv", "--threshold", "1"], "`threshold` has no effect on d.csv"),
        (["survey.keras", "d.csv", "--id", "name"], r"d.csv has no column 'name'.*drink, who"),
        (["none.keras", "d.csv"], "no file none.keras"),
        (["nothing", "d.csv"], r"Unknown preset 'nothing'.*It is not the directory of a run"),
    ]
    for arguments, message in cases:
        with pytest.raises(UserError, match=message):
            score(*arguments)
    table = pd.read_csv("d.csv").rename(columns={"who": "row"})
    table.to_csv("taken.csv", index=False)
    with pytest.raises(UserError, match="have a column 'row' of their own"):
        score("survey.keras", "taken.csv", "--id", "row")
    assert not list(here.glob("*.scores.csv*"))
