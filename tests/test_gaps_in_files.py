"""Files with empty cells: from the table to a machine, its scores and what makes rows odd."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from rws_keras import datasets
from rws_keras.cli.program import app
from rws_keras.errors import UserError
from rws_keras.training import recipe
from rws_keras.training.run import Run


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A survey of 300 rows with empty cells, and the run of a machine that was fitted to it."""
    folder = tmp_path_factory.mktemp("survey")
    random = np.random.default_rng(0)
    smokes = random.random(300) < 0.5
    drink = np.where(smokes, "beer", np.where(random.random(300) < 0.5, "tea", "milk"))
    table = pd.DataFrame({"id": np.arange(300), "smokes": np.where(smokes, "yes", "no")})
    table["coughs"], table["drink"] = table["smokes"], drink
    for column in ("smokes", "coughs", "drink"):
        table.loc[random.random(300) < 0.2, column] = None
    table.to_csv(folder / "survey.csv", index=False)
    arguments = ["fit", str(folder / "survey.csv"), "--leave-out", "id", "--epochs", "25"]
    options = ["--run-dir", str(folder / "run")]
    shown = CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False).output
    (folder / "shown.txt").write_text(shown)
    return folder


def test_empty_cells_are_missing_and_counted(here):
    data = datasets.load_file(here / "survey.csv", leave_out=["id"])
    assert data.has_gaps
    whole = pd.read_csv(here / "survey.csv").drop(columns="id")
    missing, rows = int(whole.isna().sum().sum()), int(whole.isna().any(axis=1).sum())
    told = f"{missing} of 900 values ({missing / 900:.1%}) are missing, in {rows} of 300 rows."
    assert told in " ".join((here / "shown.txt").read_text().split())


def test_the_machine_marginalizes_and_is_calibrated(here):
    machine = Run.open(here / "run").best_machine()
    data = datasets.load_file(here / "survey.csv", leave_out=["id"])
    assert machine.missing == "marginalize"
    assert machine.calibration.num_data == len(data.validation)
    gap = np.nan
    answers = np.array([[1, 0, 1, 0, 0], [1, 1, 1, 0, 0], [gap] * 5], np.float32)
    without_cough, with_cough, nothing = machine.predict(answers, num_particles=500, verbose=0)
    assert nothing == pytest.approx(0.0, abs=0.2)
    assert without_cough < with_cough - 0.5


def test_scores_of_rows_with_gaps(here):
    (here / "new.csv").write_text("id,drink,smokes,coughs\na,beer,yes,yes\nb,,,\nc,tea,yes,no\n")
    arguments = ["score", str(here / "run"), str(here / "new.csv"), "--id", "id", "--explain", "2"]
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    scores = pd.read_csv(here / "new.csv.scores.csv", keep_default_na=False).set_index("id")
    machine = Run.open(here / "run").best_machine()
    expected = machine.calibration.tail_probability(scores["log_likelihood"].astype("f4"))
    np.testing.assert_allclose(scores["tail_probability"], expected, rtol=1e-5)
    assert scores["log_likelihood"].idxmin() == "c"
    assert scores.loc["c", "oddest"].startswith("smokes (")
    assert scores.loc["a", "oddest"].count(";") == 1
    assert scores.loc["b", "oddest"] == ""


def test_another_number_of_particles_has_no_tail_probability(here):
    arguments = ["score", str(here / "run"), str(here / "survey.csv"), "--num-particles", "20"]
    to = ["--id", "id", "--to", str(here / "twenty.csv")]
    shown = CliRunner().invoke(app, [*arguments, *to], catch_exceptions=False).output
    assert "There are no tail probabilities: the machine was calibrated with K = 100." in shown
    assert "tail_probability" not in pd.read_csv(here / "twenty.csv").columns


def test_a_machine_of_whole_rows_refuses_gaps(here, tmp_path):
    """By file, row and unit."""
    whole = pd.read_csv(here / "survey.csv").dropna()
    whole.to_csv(tmp_path / "whole.csv", index=False)
    arguments = ["fit", str(tmp_path / "whole.csv"), "--leave-out", "id", "--epochs", "1"]
    run = str(tmp_path / "run")
    CliRunner().invoke(app, [*arguments, "--run-dir", run], catch_exceptions=False)
    assert Run.open(tmp_path / "run").best_machine().missing is None
    (tmp_path / "new.csv").write_text("drink,smokes,coughs\nbeer,yes,\n,yes,yes\n")
    arguments = ["score", run, str(tmp_path / "new.csv")]
    with pytest.raises(UserError, match=r"new.csv, row 1: the value of unit 'coughs' is missing"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_arrays_with_nan(tmp_path):
    x = (np.random.default_rng(0).random((40, 6)) < 0.5).astype(np.float32)
    x[:5, 2] = np.nan
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "grey.npy", x * 200)
    for data in (
        datasets.load_file(tmp_path / "x.npy"),
        datasets.load_file(tmp_path / "grey.npy", threshold=100),
    ):
        found = np.concatenate(data.parts)
        assert np.isnan(found).sum() == 5
        np.testing.assert_array_equal(np.unique(found[~np.isnan(found)]), [0.0, 1.0])
    with pytest.raises(UserError, match=r"x.npy, row 1: the value of unit 3 is missing .*: 5\)"):
        datasets.read_rows(tmp_path / "x.npy")
    found = datasets.read_rows(tmp_path / "x.npy", missing=True).x
    np.testing.assert_array_equal(found, x)


def test_rows_with_gaps_are_counted():
    nan = np.nan
    x = np.array([[0, nan], [0, 0], [0, nan], [1, nan], [0, nan]], np.float32)
    rows, counts = datasets.count_rows(x)
    np.testing.assert_array_equal(rows, [[0, nan], [0, 0], [1, nan]])
    np.testing.assert_array_equal(counts, [3, 1, 1])


def test_a_recipe_may_ask_for_it():
    content = {"dataset": "digits", "model": {"latents": [3]}, "epochs": 1}
    asked = {**content, "model": {"latents": [3], "missing": "marginalize"}}
    for given, missing in ((content, None), (asked, "marginalize")):
        made = recipe.validated(given, "Recipe")
        assert made.make_machine(made.load_data()).missing == missing


def test_tensorboard_of_a_table_with_gaps(here):
    """Its marginals and correlations leave the gaps out: no chart of the run is NaN."""
    run = Run.open(here / "run")
    found = 0
    for path in run.logs.rglob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars" or not value.tag:
                    assert np.isfinite(tf.make_ndarray(value.tensor)).all(), value.tag
                    found += 1
    assert found > 20
