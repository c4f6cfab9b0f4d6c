"""A machine is whatever the user has of it: a run, a preset, a `.keras` file."""

import json

import numpy as np
import pandas as pd
import pytest
from exact import exact_log_likelihood, randomize
from typer.testing import CliRunner

from rws_keras import HelmholtzMachine, PresetError, datasets
from rws_keras.cli.program import app
from rws_keras.datasets import Schema
from rws_keras.errors import UserError
from rws_keras.models import preset_files
from rws_keras.training import sources
from rws_keras.training.accuracy import evaluate_to_accuracy
from rws_keras.training.run import Run
from rws_keras.zoo import publish as publishing

RECIPE = """
dataset = "train.csv"
epochs = 1
[data]
validation_data = "validation.csv"
test_data = "test.csv"
leave_out = ["id"]
[model]
latents = [2]
[evaluation]
validation_particles = 5
num_particles = 20
"""


def command(*arguments):
    runner = CliRunner(env={"COLUMNS": "200"})
    return runner.invoke(app, list(map(str, arguments)), catch_exceptions=False).output


def answers(rows, seed):
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": [f"p{number}" for number in range(rows)],
            "smokes": random.choice(["no", "yes"], rows),
            "drink": random.choice(["beer", "milk", "tea"], rows),
        }
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run of a table in three files, and its machine as a file and as a preset."""
    home = tmp_path_factory.mktemp("sources")
    answers(60, 0).to_csv(home / "train.csv", index=False)
    answers(20, 1).to_csv(home / "validation.csv", index=False)
    # Other columns first, other values first.
    test = answers(30, 2)[["drink", "id", "smokes"]].sort_values("drink", ascending=False)
    test.to_csv(home / "test.csv", index=False)
    (home / "own.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        command("fit", "own.toml")
    machine = Run(home / "runs" / "own-0").best_machine()
    machine.save(home / "own.keras")
    machine.save_to_preset(home / "saved")
    return home


@pytest.fixture
def inside(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


KINDS = ["runs/own-0", "own.keras", "saved"]


def test_the_machine_is_the_same_wherever_it_is_kept(inside):
    found = [sources.find(kind) for kind in KINDS]
    assert [source.name for source in found] == ["own-0", "own", "saved"]
    machines = [source.machine() for source in found]
    for machine in machines:
        assert Schema.of(machine).units == ["smokes", "drink=beer", "drink=milk", "drink=tea"]
        for one, other in zip(machine.p_layers, machines[0].p_layers, strict=True):
            np.testing.assert_array_equal(one.get_weights()[0], other.get_weights()[0])
    assert sources.find("digits-sbn-64-32").image_shape == (8, 8)
    assert [source.image_shape for source in found] == [None, None, None]


def test_what_holds_no_machine(inside, tmp_path):
    import keras

    keras.Sequential([keras.Input([1]), keras.layers.Dense(1)]).save(tmp_path / "dense.keras")
    (tmp_path / "damaged.keras").write_text("no archive")
    cases = {
        tmp_path / "dense.keras": "holds a Sequential, not a HelmholtzMachine",
        tmp_path / "damaged.keras": "is damaged .*Save the machine again",
        tmp_path / "none.keras": "There is no file",
        tmp_path: "is not the folder of a preset.*It is not the directory of a run.*keras",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message):
            sources.find(path).machine()


def test_the_parts_of_the_data_are_those_of_the_files(inside):
    run = Run("runs/own-0")
    data = run.recipe.load_data()
    assert [len(part) for part in (data.train, data.validation, data.test)] == [60, 20, 30]
    test = pd.read_csv("test.csv")
    np.testing.assert_array_equal(data.test[:, 0], test["smokes"] == "yes")
    np.testing.assert_array_equal(data.test[:, 3], test["drink"] == "tea")
    assert run.recipe.data.test_data == str(inside / "test.csv")
    told = run.recipe.without_paths()
    assert (told["dataset"], told["data"]["test_data"]) == ("train.csv", "test.csv")
    assert str(inside) not in json.dumps(told)


@pytest.mark.parametrize("kind", KINDS)
def test_scoring(inside, kind):
    output = inside / f"{kind.replace('/', '-')}.csv"
    command("score", kind, "test.csv", "--id", "id", "--to", output, "--num-particles", 3000)
    scores, test = pd.read_csv(output), pd.read_csv("test.csv")
    assert scores["id"].tolist() == test["id"].tolist()
    machine = sources.find(kind).machine()
    x = Schema.of(machine).encode(test)
    np.testing.assert_allclose(scores["log_likelihood"], exact_log_likelihood(machine, x), atol=0.1)


def test_evaluating_any_machine_on_any_data(inside):
    shown = command("evaluate", "own.keras", "--data", "test.csv")
    assert "does not use the columns id" in shown
    cells = [line.split() for line in shown.splitlines() if line.split()[:1] == ["test.csv"]]
    machine = sources.find("own.keras").machine()
    x = Schema.of(machine).encode(pd.read_csv("test.csv"))
    assert float(cells[0][1]) == pytest.approx(exact_log_likelihood(machine, x).mean(), abs=0.05)
    assert cells[0][3:5] == ["100", "30"]
    run = Run("runs/own-0")
    before = len(run.metrics["evaluations"])
    assert "validation.csv" in command("evaluate", run.path, "--data", "validation.csv")
    assert len(run.metrics["evaluations"]) == before
    command("evaluate", run.path)
    assert run.metrics["evaluations"][-1]["num_particles"] == 100
    shown = command("evaluate", "digits-sbn-64-32", "--num-particles", 2, "--split", "validation")
    assert "validation" in shown
    for source in (["digits-sbn-64-32"], ["own.keras", "--data", "test.csv"]):
        shown = command("evaluate", *source, "--num-particles", 2, "--rows", 7)
        (cells,) = (line.split() for line in shown.splitlines() if line.split()[:1] in _SPLITS)
        assert cells[3:5] == ["2", "7"]


_SPLITS = (["test"], ["test.csv"])


def test_what_cannot_be_evaluated(inside):
    cases = [
        (["own.keras"], "does not say what it was trained on.*--data"),
        (["own.keras", "--data", "test.csv", "--split", "test"], "`split` has no effect"),
        (["own.keras", "--data", "test.csv", "--rows", "31"], "There are only 30 rows"),
        (["own.keras", "--data", "digits"], "the machine has 4 visible units"),
        (["own.keras", "--data", "digit"], "Unknown data set 'digit'"),
        (["own.keras", "--data", "test.csv", "--accuracy", "0"], "must be a positive"),
    ]
    for arguments, message in cases:
        with pytest.raises(UserError, match=message):
            command("evaluate", *arguments)


def test_evaluating_to_an_accuracy(inside):
    shown = command("evaluate", "runs/own-0", "--accuracy", 1e-6, "--num-particles", 300)
    assert "30 of 30 rows did not reach a standard error of 1e-06 nats with 300" in shown
    shown = command("evaluate", "runs/own-0", "--accuracy", 0.05)
    assert "All rows reached a standard error of 0.05 nats." in shown
    assert "K (median)" in shown


def test_particles_of_an_evaluation_to_an_accuracy():
    """They go with the rows: a machine whose Q fits some rows better than others."""
    machine = randomize(HelmholtzMachine.from_sizes(4, [3], seed=0), 0)
    x = np.random.default_rng(0).integers(0, 2, (16, 4))
    found = evaluate_to_accuracy(machine, x, 0.03, 20_000, batch_size=5)
    estimates = [
        machine.log_likelihood(x[start : start + 5], 20_000, [0, batch], 0.03)
        for batch, start in enumerate(range(0, 16, 5))
    ]
    taken = np.concatenate([each.num_particles for each in estimates])
    assert len(set(taken)) > 1
    assert (found.median_particles, found.most_particles) == (np.median(taken), taken.max())
    assert (found.num_data, found.num_short) == (16, 0)
    exact = exact_log_likelihood(machine, x.astype(np.float32))
    assert found.log_likelihood == pytest.approx(exact.mean(), abs=0.04)
    assert found.log_likelihood_se == pytest.approx(exact.std(ddof=1) / 4, abs=0.04)
    most = int(np.median(taken)) // 2
    short = evaluate_to_accuracy(machine, x, 0.03, most, batch_size=5)
    assert short.num_short == (taken > most).sum() > 0
    assert short.num_short < 16
    rows, counts = np.unique(x, axis=0, return_counts=True)
    counted = evaluate_to_accuracy(machine, rows, 0.03, 20_000, 5, counts=counts)
    assert counted.num_data == 16
    assert counted.log_likelihood == pytest.approx(exact.mean(), abs=0.04)


def test_sampling(inside):
    command("sample", "own.keras", "--num-samples", 7)
    drawn = pd.read_csv("own.samples.csv")
    assert list(drawn.columns) == ["smokes", "drink"]
    assert len(drawn) == 7
    assert set(drawn["smokes"]) <= {"no", "yes"}
    command("sample", "saved", "--to", "other.csv", "--num-samples", 7)
    pd.testing.assert_frame_equal(pd.read_csv("other.csv"), drawn)
    command("sample", "digits-sbn-64-32", "--num-samples", 4)
    assert (inside / "digits-sbn-64-32.samples.png").exists()
    with pytest.raises(UserError, match="not known to be images"):
        command("sample", "own.keras", "--to", "grid.png")


def test_exporting_a_keras_file(inside):
    shown = command("export", "own.keras", "--to", "models", "--accurate", 20, "--fast", 2)
    assert "models/own/1" in shown
    about = json.loads((inside / "models/own/1/assets.extra/model.json").read_text())
    assert about["preset"]["latent_units"] == [2]


def test_publishing_a_keras_file(inside, tmp_path):
    zoo = tmp_path / "zoo"
    given = ["zoo", "publish", "own.keras", "--zoo", zoo]
    with pytest.raises(
        UserError, match=r"neither a description .* nor a test likelihood.*--data.*--description"
    ):
        command(*given)
    assert not zoo.exists()
    described = [*given, "--description", "Answers"]
    with pytest.raises(UserError, match="nor a test likelihood"):
        command(*described)
    assert "Wrote" in command(*described, "--data", "test.csv", "--num-particles", 500)
    folder = zoo / "own"
    about = preset_files.read_metadata(folder / preset_files.METADATA)
    machine = sources.find("own.keras").machine()
    x = Schema.of(machine).encode(pd.read_csv("test.csv"))
    assert about["test"]["num_data"] == 30
    assert about["test"]["num_particles"] == 500
    exact = exact_log_likelihood(machine, x).mean()
    assert about["test"]["log_likelihood"] == pytest.approx(exact, abs=0.05)
    card = (folder / "README.md").read_text()
    for text in (
        "Answers",
        "`test.csv`",
        "SBN, SBN",
        "K = 500",
        "there is no record of the training",
    ):
        assert text in card
    for absent in ("validation NLL", "independent units", "recipe.json", str(inside)):
        assert absent not in card
    assert not (folder / "recipe.json").exists()
    publishing.verify(folder)
    publishing.regenerate(zoo)
    publishing.verify_index(zoo)
    with pytest.raises(UserError, match=r"is a published preset already\. Copy its folder"):
        command("zoo", "publish", folder, "--zoo", zoo, "--name", "again")
    with pytest.raises(UserError, match="no effect on a run"):
        command("zoo", "publish", "runs/own-0", "--zoo", zoo, "--data", "test.csv")


def test_a_published_keras_file_is_measured_again(tmp_path):
    machine = randomize(HelmholtzMachine.from_sizes(64, [3], seed=0), 0, scale=0.1)
    machine.save(tmp_path / "mine.keras")
    zoo = tmp_path / "zoo"
    command(
        *("zoo", "publish", tmp_path / "mine.keras", "--zoo", zoo, "--description", "Random"),
        *("--data", "digits", "--num-particles", 5),
    )
    assert "as listed" in publishing.verify(zoo / "mine", measure=True)
    assert (zoo / "mine" / "samples.png").exists()
    path = zoo / "mine" / preset_files.METADATA
    about = json.loads(path.read_text())
    about["test"]["log_likelihood"] += 1.0
    path.write_text(json.dumps(about))
    with pytest.raises(PresetError, match=r"does not match preset\.json"):
        publishing.verify(zoo / "mine", measure=True)


# Data in several files.


@pytest.fixture
def files(tmp_path):
    for seed, name in enumerate(("a", "b")):
        answers(20, seed).drop(columns="id").to_csv(tmp_path / f"{name}.csv", index=False)
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(seed).integers(0, 2, (9, 4)))
    np.save(tmp_path / "wide.npy", np.zeros([3, 5]))
    np.save(tmp_path / "image.npy", np.zeros([3, 2, 2]))
    return tmp_path


def test_one_part_of_its_own_leaves_the_others_to_shares(files):
    for kind in ("csv", "npy"):
        first, second = files / f"a.{kind}", files / f"b.{kind}"
        data = datasets.load_file(first, test=0.2, validation_data=second)
        rows = {"csv": (16, 20, 4), "npy": (7, 9, 2)}[kind]
        assert tuple(map(len, (data.train, data.validation, data.test))) == rows
        whole = datasets.load_file(second, validation=0.2, test=0.2)
        total = sum(part.sum(axis=0) for part in (whole.train, whole.validation, whole.test))
        np.testing.assert_array_equal(data.validation.sum(axis=0), total)


def test_files_that_do_not_fit(files):
    (files / "odd.csv").write_text("smokes,drink\nyes,tea\nno,wine\n")
    (files / "less.csv").write_text("smokes,age\nyes,1\nno,2\n")
    (files / "more.csv").write_text("smokes,drink,age\nyes,tea,1\nno,tea,2\n")
    cases = [
        ("a.csv", {"test_data": "odd.csv"}, r"odd.csv, row 2, column 'drink': 'wine' is not one"),
        ("a.csv", {"validation_data": "less.csv"}, r"less.csv has (no column 'drink'|a column)"),
        ("a.csv", {"test_data": "more.csv"}, r"more.csv has a column 'age', which .*a.csv does"),
        ("a.csv", {"test_data": "a.npy"}, r"a.npy is no table, but .*a.csv is one"),
        ("a.npy", {"test_data": "a.csv"}, r"a.csv is a table, but .*a.npy is none"),
        ("a.npy", {"test_data": "wide.npy"}, r"wide.npy has 5 values in a row, but .* has 4"),
        ("a.npy", {"test_data": "image.npy"}, r"image.npy has 2 x 2 values in a row"),
        ("a.npy", {"test_data": "none.npy"}, "There is no file .*none.npy"),
        (
            "a.npy",
            {"test_data": "b.npy", "test": 0.1},
            "`test` has no effect together with `test_data`",
        ),
        (
            "a.npy",
            {"test_data": "b.npy", "validation_data": "b.npy", "seed": 1},
            "`seed` has no effect if all three",
        ),
    ]
    for name, options, message in cases:
        given = {
            key: files / value if isinstance(value, str) else value
            for key, value in options.items()
        }
        with pytest.raises(UserError, match=message):
            datasets.load_file(files / name, **given)


def test_separate_files_at_the_command_line(files, monkeypatch):
    monkeypatch.chdir(files)
    with pytest.raises(UserError, match="with a recipe, set them in"):
        command("fit", "digits", "--test-data", "b.csv")
    seen = []
    monkeypatch.setattr("rws_keras.training.fitting.train", lambda run, *_: seen.append(run.recipe))
    monkeypatch.setattr("rws_keras.training.workers.index", lambda: 1)
    command("fit", "a.csv", "--validation-data", "b.csv", "--test-data", "b.csv")
    data = seen[0].load_data()
    assert [len(part) for part in (data.train, data.validation, data.test)] == [20, 20, 20]


def test_a_misspelt_key_of_the_data(tmp_path):
    (tmp_path / "a.toml").write_text(RECIPE.replace("leave_out", "leaveout"))
    with pytest.raises(UserError, match=r"data.leaveout: Unknown key 'leaveout'.*'leave_out'"):
        command("fit", tmp_path / "a.toml")
