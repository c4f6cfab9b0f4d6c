"""Data of one's own: from files of all kinds to a trained machine."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from rws_keras import datasets
from rws_keras.cli.program import app
from rws_keras.datasets import load_file
from rws_keras.errors import UserError
from rws_keras.training import recipe, reporting
from rws_keras.training.comparing import Results
from rws_keras.training.run import Run
from rws_keras.zoo import publish


@pytest.fixture
def survey(tmp_path):
    """Two hundred answers: a choice of three that goes with yes or no, and an identifier."""
    random = np.random.default_rng(0)
    smokes = random.random(200) < 0.4
    drink = np.where(smokes, "beer", np.where(random.random(200) < 0.5, "tea", "milk"))
    table = pd.DataFrame({"id": np.arange(200), "smokes": np.where(smokes, "yes", "no")})
    table["drink"], table["age"] = drink, np.where(random.random(200) < 0.5, 1, 0)
    path = tmp_path / "survey.csv"
    table.to_csv(path, index=False)
    return path


def test_a_table_is_split_at_random(survey):
    data = load_file(survey, validation=0.2, test=0.1, leave_out=["id"])
    assert (data.name, data.image_shape) == ("survey.csv", None)
    assert data.schema.units == ["smokes", "drink=beer", "drink=milk", "drink=tea", "age"]
    assert [len(part) for part in (data.train, data.validation, data.test)] == [140, 40, 20]
    whole = data.schema.encode(datasets.read_table(survey))
    parts = np.concatenate([data.train, data.validation, data.test])
    np.testing.assert_array_equal(np.sort(parts.T @ parts), np.sort(whole.T @ whole))
    again, other = (load_file(survey, leave_out=["id"], seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(load_file(survey, leave_out=["id"]).test, again.test)
    assert not np.array_equal(again.test, other.test)


def test_arrays(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 5), np.uint8)
    np.save(tmp_path / "grey.npy", images)
    np.savez(tmp_path / "binary.npz", x=images.reshape(30, 20) > 127)
    grey, binary = (
        load_file(tmp_path / "grey.npy", threshold=128),
        load_file(tmp_path / "binary.npz"),
    )
    assert (grey.image_shape, binary.image_shape) == ((4, 5), None)
    np.testing.assert_array_equal(grey.train, binary.train)
    with pytest.raises(UserError, match=r"row 1, column 1: expected 0 or 1, got .* threshold"):
        load_file(tmp_path / "grey.npy")


def test_a_folder_of_images(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 5, 1), np.uint8)
    for number, image in enumerate(images):
        (tmp_path / f"{number:02}.png").write_bytes(tf.io.encode_png(image).numpy())
    data = load_file(tmp_path, validation=0.25, test=0.25)
    rows = images.reshape(12, 20) >= 128
    parts = [data.train, data.validation, data.test]
    assert data.image_shape == (4, 5)
    np.testing.assert_array_equal(sum(part.sum(axis=0) for part in parts), rows.sum(axis=0))
    (tmp_path / "99.png").write_bytes(tf.io.encode_png(images[0, :3]).numpy())
    with pytest.raises(UserError, match=r"99.png has 3 x 5 pixels, but .*00.png has 4 x 5"):
        load_file(tmp_path)
    (tmp_path / "99.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"99.png cannot be read as a PNG image"):
        load_file(tmp_path)


def test_what_cannot_be_loaded(tmp_path, survey):
    cases = {
        "There is no file": lambda: load_file(tmp_path / "none.csv"),
        "'id' has 200 values|'id' has numbers": lambda: load_file(survey),
        "no column 'name' to leave out": lambda: load_file(survey, leave_out=["name"]),
        "`threshold` has no effect": lambda: load_file(survey, threshold=1.0),
        "of which 0 would be test data": lambda: load_file(survey, leave_out=["id"], test=0.001),
        "of which 0 would be training data": lambda: load_file(
            survey, leave_out=["id"], validation=0.6, test=0.5
        ),
    }
    empty = tmp_path / "empty"
    empty.mkdir()
    cases["has no images"] = lambda: load_file(empty)
    np.savez(tmp_path / "two.npz", a=np.zeros([3, 2]), b=np.zeros([3, 2]))
    cases["must hold one array; it has a, b"] = lambda: load_file(tmp_path / "two.npz")
    np.save(tmp_path / "flat.npy", np.zeros(3))
    cases[r"must hold numbers \[N, D\]"] = lambda: load_file(tmp_path / "flat.npy")
    cases["`choices` has no effect"] = lambda: load_file(tmp_path / "flat.npy", choices=["a"])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:50])
    cases["cut.npz cannot be read"] = lambda: load_file(tmp_path / "cut.npz")
    for message, load in cases.items():
        with pytest.raises(UserError, match=message):
            load()


def test_a_recipe_of_ones_own_data(survey):
    content = {"dataset": str(survey), "model": {"latents": [3]}, "epochs": 1}
    made = recipe.validated({**content, "data": {"leave_out": ["id"]}}, "Recipe")
    results = Results(survey.parent / "results")
    assert results.path(made).parent == results.directory
    machine = made.make_machine(made.load_data())
    assert machine.p_layers[0].choices == [1, 3, 1]
    with pytest.raises(UserError, match=r"\[data\] has no effect on the data set 'digits'"):
        recipe.validated({**content, "dataset": "digits", "data": {}}, "Recipe")


def test_fitting_a_table(survey, monkeypatch):
    """Without a recipe; the machine beats independent units, and the run knows its data."""
    monkeypatch.chdir(survey.parent)
    arguments = ["fit", str(survey), "--leave-out", "id", "--epochs", "8"]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False).output
    for text in ("independent units", "Chow-Liu tree", "rws-keras export runs/survey-0"):
        assert text in shown
    run = Run.open(survey.parent / "runs" / "survey-0")
    assert run.recipe.dataset == str(survey)
    assert run.recipe.data.leave_out == ["id"]
    machine = run.best_machine()
    data = run.recipe.load_data()
    assert machine.p_layers[0].choices == data.schema.groups
    # The entropy is about 0.67 + 0.6 · 0.69 + 0.69 = 1.78; units that know nothing of each other
    # need 2.4 and more, and do not know that one drink is drunk.
    found = machine.evaluate(data.test, num_particles=100, seed=0, return_dict=True, verbose=0)
    assert -3.0 < found["log_likelihood"] < -1.2
    assert reporting.summary(run)["recipe"]["dataset"] == "survey.csv"
    preset = publish.publish(run, "survey", survey.parent / "zoo")
    card = (preset / "README.md").read_text()
    assert "`survey.csv`" in card
    assert "density-estimation" not in card
    for file in preset.glob("*.*"):
        assert str(survey.parent).encode() not in file.read_bytes(), file.name
    with pytest.raises(UserError, match=r"its data set, survey.csv, is not one of"):
        publish.verify(preset, measure=True)
    drawn = pd.read_csv(run.path / "samples.csv")
    assert list(drawn.columns) == ["smokes", "drink", "age"]
    assert set(drawn["drink"]) == {"beer", "milk", "tea"}


def test_options_of_data_are_not_for_recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="with a recipe, set them in"):
        CliRunner().invoke(app, ["fit", "digits", "--leave-out", "id"], catch_exceptions=False)
