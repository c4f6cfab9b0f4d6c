"""The zoo: what it holds, what it claims, and the command that keeps it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rws_keras import HelmholtzMachine, PresetError, datasets
from rws_keras.cli.program import app
from rws_keras.errors import UserError
from rws_keras.models import preset_files, pretrained
from rws_keras.training import recipe as recipes
from rws_keras.training.run import Run
from rws_keras.zoo import cards, leaderboard, published
from rws_keras.zoo import publish as publishing

ROOT = Path(__file__).parents[1]
MNIST_SBN = ["mnist-sbn-200", "mnist-sbn-200-200", "mnist-sbn-200-200-200"]
FOLDERS = publishing.folders()


def metadata(name):
    return metadata_of(publishing.ZOO / name)


def metadata_of(folder):
    return preset_files.read_metadata(folder / preset_files.METADATA)


def nll_of(name):
    return -metadata(name)["test"]["log_likelihood"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_preset_is_what_it_says(folder):
    assert "parameters as listed" in publishing.verify(folder)
    about = preset_files.read_metadata(folder / preset_files.METADATA)
    assert about["name"] == folder.name
    listed = {path.name for path in folder.iterdir()} - {preset_files.METADATA}
    assert listed == set(about["files"])


def test_the_recipes_of_the_presets_are_those_of_the_project():
    known = [recipes.load(name)[1] for name in recipes.names()]
    for folder in FOLDERS:
        assert recipes.load(folder / "recipe.json")[1] in known, folder.name


def test_index_and_leaderboard_are_those_of_the_presets():
    publishing.verify_index()


def test_the_digits_measure_as_listed():
    assert "as listed" in publishing.verify(publishing.ZOO / "digits-sbn-64-32", measure=True)


def test_the_zoo_is_small():
    assert sum(path.stat().st_size for path in publishing.ZOO.rglob("*")) < 60e6


def test_the_leaderboard_ranks_presets_among_published_figures():
    known = {
        "dataset": "plants",
        "family": "SBN",
        "family_of_q": "AR-SBN",
        "latent_units": [5, 2],
        "num_parameters": 1234,
        "test": {"log_likelihood_se": 0.1, "num_particles": 1000},
    }
    entries = {
        name: {**known, **more, "test": {**known["test"], "log_likelihood": value}}
        for name, value, more in (
            ("worst", -20.0, {}),
            ("middle", -13.0, {"family_of_prior": "AR-SBN"}),
            ("best", -12.0, {"family_of_prior": "SBN"}),
        )
    }
    page = leaderboard.leaderboard(entries).split("## plants\n")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()[3:]]
    learn_spn, trees = published.figures("plants")
    assert [row[0] for row in rows] == [
        "**12.00 (0.10)**",
        f"{learn_spn.nll}",
        "**13.00 (0.10)**",
        f"{trees.nll}",
        "**20.00 (0.10)**",
    ]
    assert rows[0][1:] == [
        *("SBN 5-2", "1,234", "Q = AR-SBN", "K = 1,000", "[best](best/README.md)"),
    ]
    assert rows[2][1] == "SBN 5-2, AR-SBN prior"
    assert rows[1][-1] == f"[{learn_spn.source}](https://proceedings.mlr.press/v28/gens13.html)"


@pytest.mark.parametrize("name", MNIST_SBN)
def test_mnist_presets_beat_the_published_wake_sleep(name):
    known = published.of_machine("binarized_mnist", cards.label(metadata(name)))
    (wake_sleep,) = (figure.nll for figure in known if figure.method == "wake-sleep")
    assert nll_of(name) < wake_sleep


def test_published_figures_are_of_data_sets_of_the_library_and_have_a_source():
    content = json.loads(published.FILE.read_text())
    assert set(content["datasets"]) <= set(datasets.NAMES)
    for name in content["datasets"]:
        found = published.figures(name)
        assert all(figure.nll > 0.0 and figure.source for figure in found)
    sources = {figure.source for name in content["datasets"] for figure in published.figures(name)}
    # No address of this one is known that does not change.
    assert set(content["sources"]) == sources - {"Murray & Salakhutdinov, 2009"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 seconds"),
        (1.4, "1 second"),
        (18.2, "18 seconds"),
        (119.4, "119 seconds"),
        (119.6, "2 minutes"),
        (540, "9 minutes"),
        (7199, "120 minutes"),
        (9000, "2.5 hours"),
    ],
)
def test_durations_in_a_unit_that_fits(seconds, text):
    assert cards.duration(seconds) == text


# A real run, published.


def command(*arguments):
    return CliRunner().invoke(app, ["zoo", *map(str, arguments)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tiny"
    arguments = ["fit", "digits", "--epochs", "2", "--run-dir", str(path)]
    subprocess.run(
        [sys.executable, "-m", "rws_keras", *arguments],
        check=True,
        cwd=ROOT,
        env=os.environ.copy(),
        capture_output=True,
    )
    return path


@pytest.fixture
def zoo(run, tmp_path):
    result = command("publish", run, "--zoo", tmp_path / "zoo")
    assert result.exit_code == 0, result.output
    return tmp_path / "zoo"


@pytest.mark.processes
def test_a_published_run_is_a_preset(zoo, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert sorted(path.name for path in zoo.iterdir()) == ["README.md", "index.json", "tiny"]
    assert "tiny" in command("list", "--zoo", zoo).output
    assert "Limits" in command("info", "tiny", "--zoo", zoo).output
    assert command("download", "tiny", "--zoo", zoo).output.strip() == str(zoo / "tiny")
    assert "as listed" in command("verify", "--measure", "--zoo", zoo).output
    about = preset_files.read_metadata(zoo / "tiny" / preset_files.METADATA)
    assert about["training"]["epochs"] == 2
    (test,) = (e for e in Run(run).metrics["evaluations"] if e["split"] == "test")
    assert about["test"]["log_likelihood"] == test["log_likelihood"]
    assert about["training"]["versions"]["tensorflow"]
    assert cards.nll(about["test"]) in (zoo / "README.md").read_text()


@pytest.mark.processes
def test_more_particles_on_few_rows_are_in_the_card(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "tiny")
    for particles in (30, 7):
        arguments = ["evaluate", copy, "--rows", 40, "--num-particles", particles]
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
    assert command("publish", copy, "--zoo", tmp_path / "zoo").exit_code == 0
    about = metadata_of(tmp_path / "zoo" / "tiny")
    rows = datasets.load("digits").test[:40]
    for entry in about["test_on_few_rows"]:
        machine = Run(copy).best_machine()
        again = machine.evaluate(
            rows, num_particles=entry["num_particles"], batch_size=100, return_dict=True, verbose=0
        )
        assert again["log_likelihood"] == pytest.approx(entry["log_likelihood"], abs=1e-5)
    few, more = sorted(about["test_on_few_rows"], key=lambda entry: entry["num_particles"])
    expected = (
        f"On the first 40 test rows the estimate is {-few['log_likelihood']:.2f} with K = 7, "
        f"{-more['log_likelihood']:.2f} with K = 30."
    )
    assert expected in (tmp_path / "zoo" / "tiny" / "README.md").read_text()
    # The figure of the preset is still that of all rows.
    assert about["test"]["num_data"] == len(datasets.load("digits").test)


def test_an_interrupted_measurement_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    machine, zoo = tmp_path / "tiny.keras", tmp_path / "zoo"
    HelmholtzMachine.from_sizes(64, [3], seed=0).save(machine)
    options = ["--data", "digits", "--description", "tiny", "--num-particles", 9, "--zoo", zoo]
    assert command("publish", machine, *options).exit_code == 0
    estimate, calls = HelmholtzMachine.estimate_in_parts, []

    def interrupted(self, x, *arguments):
        calls.append(len(x))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return estimate(self, x, *arguments)

    monkeypatch.setattr(HelmholtzMachine, "estimate_in_parts", interrupted)
    result = command("verify", "tiny", "--measure", "--zoo", zoo)
    assert (result.exit_code, result.output) == (130, "Stopped. Continue with the same command.\n")
    (partial,) = (tmp_path / "keras" / "rws_keras").iterdir()
    assert json.loads(partial.read_text())["batches"] == 1
    assert "as listed" in command("verify", "tiny", "--measure", "--zoo", zoo).output
    # The first of three batches was not done again.
    assert calls == [100, 100, 100, 100]
    assert not partial.exists()


@pytest.mark.processes
def test_a_preset_is_measured_with_more_particles(zoo, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    before = metadata_of(zoo / "tiny")
    few = command("measure", "tiny", "--zoo", zoo, "--num-particles", 5)
    assert isinstance(few.exception, UserError)
    assert "tiny was measured with K = 1,000, which is better than K = 5." in str(few.exception)
    assert metadata_of(zoo / "tiny") == before
    for arguments in (["--rows", 30, "--num-particles", 5], ["--num-particles", 1500]):
        result = command("measure", "tiny", "--zoo", zoo, *arguments)
        assert result.exit_code == 0, result.output
    about = metadata_of(zoo / "tiny")
    few = [(e["num_particles"], e["num_data"]) for e in about["test_on_few_rows"]]
    assert few == [(5, 30), (1000, 30)]
    assert (about["test"]["num_particles"], about["test"]["num_data"]) == (1500, 300)
    # More particles of the same machine: tighter, and not by much.
    gain = about["test"]["log_likelihood"] - before["test"]["log_likelihood"]
    assert 0.0 < gain < 0.5
    assert (
        f"is {-about['test_on_few_rows'][0]['log_likelihood']:.2f} with K = 5"
        in (zoo / "tiny" / "README.md").read_text()
    )
    publishing.verify(zoo / "tiny", measure=True)
    publishing.verify_index(zoo)
    assert not list((tmp_path / "keras" / "rws_keras").iterdir())


@pytest.mark.processes
def test_publishing_again_replaces_the_preset(zoo, run):
    (zoo / "tiny" / "README.md").write_text("spoilt")
    assert command("publish", run, "--zoo", zoo).exit_code == 0
    publishing.verify_index(zoo)
    publishing.verify(zoo / "tiny")
    assert sorted(path.name for path in zoo.iterdir()) == ["README.md", "index.json", "tiny"]


@pytest.mark.processes
@pytest.mark.parametrize("name", ["README.md", "config.json", preset_files.WEIGHTS, "recipe.json"])
def test_verify_notices_a_changed_file(zoo, name):
    content = (zoo / "tiny" / name).read_bytes()
    (zoo / "tiny" / name).write_bytes(content[:-1] + b"?")
    with pytest.raises(PresetError, match=name.replace(".", "[.]")):
        publishing.verify(zoo / "tiny")


@pytest.mark.processes
def test_verify_notices_a_card_that_tells_something_else(zoo):
    path, card = zoo / "tiny" / preset_files.METADATA, zoo / "tiny" / "README.md"
    card.write_text(card.read_text() + "The best of all.\n")
    about = json.loads(path.read_text())
    about["files"]["README.md"]["sha256"] = preset_files.sha256(card)
    path.write_text(json.dumps(about))
    with pytest.raises(PresetError, match="does not match"):
        publishing.verify(zoo / "tiny")


@pytest.mark.processes
def test_verify_notices_a_wrong_claim(zoo):
    path = zoo / "tiny" / preset_files.METADATA
    about = json.loads(path.read_text())
    about["test"]["log_likelihood"] += 1.0
    (zoo / "tiny" / "README.md").write_text(
        cards.model_card(about, json.loads((zoo / "tiny" / "recipe.json").read_text()))
    )
    about["files"]["README.md"]["sha256"] = preset_files.sha256(zoo / "tiny" / "README.md")
    path.write_text(json.dumps(about))
    publishing.verify(zoo / "tiny")
    with pytest.raises(PresetError, match="but the measured value is"):
        publishing.verify(zoo / "tiny", measure=True)
    with pytest.raises(PresetError, match="index"):
        publishing.verify_index(zoo)


@pytest.mark.processes
def test_what_cannot_be_published_is_told(run, tmp_path):
    with pytest.raises(ValueError, match="cannot be the name of a preset"):
        publishing.publish(Run(run), "../up", tmp_path)
    Run.create(tmp_path / "unfinished", Run(run).recipe)
    with pytest.raises(ValueError, match="not finished"):
        publishing.publish(Run(tmp_path / "unfinished"), "some", tmp_path)
    assert not (tmp_path / "some").exists()


@pytest.mark.processes
def test_a_zoo_holds_published_presets_only(zoo, run):
    pretrained.save(HelmholtzMachine.from_sizes(4, [3]), zoo / "saved")
    before = (zoo / "index.json").read_bytes()
    with pytest.raises(PresetError, match="saved was saved, but not published"):
        publishing.publish(Run(run), "another", zoo)
    assert not (zoo / "another").exists()
    assert (zoo / "index.json").read_bytes() == before


@pytest.mark.processes
def test_what_is_generated_can_be_generated_anew(zoo):
    def content():
        return {path: path.read_bytes() for path in zoo.rglob("*") if path.is_file()}

    before = content()
    (zoo / "tiny" / "README.md").write_text("an older card")
    (zoo / "README.md").write_text("an older leaderboard")
    publishing.regenerate(zoo)
    assert content() == before
    publishing.verify(zoo / "tiny")
    publishing.verify_index(zoo)


def test_a_preset_is_calibrated_with_its_validation_rows(tmp_path):
    """To the same distribution as that of the zoo; nothing else of the preset changes."""
    zoo, folder = tmp_path / "zoo", tmp_path / "zoo" / "digits-sbn-64-32"
    shutil.copytree(publishing.ZOO / folder.name, folder)
    content = json.loads((folder / "config.json").read_text())
    kept = content["config"].pop("calibration")
    (folder / "config.json").write_text(json.dumps(content))
    preset_files.write_metadata(folder, preset_files.read_metadata(folder / "preset.json"))
    assert HelmholtzMachine.from_preset(folder).calibration is None
    arguments = ["zoo", "calibrate", folder.name, "--zoo", str(zoo)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.output == f"Calibrated {folder.name}.\n"
    found = HelmholtzMachine.from_preset(folder).calibration.get_config()
    assert found["num_data"] == kept["num_data"] == 300
    np.testing.assert_allclose(found["log_likelihoods"], kept["log_likelihoods"], rtol=1e-4)
    publishing.verify(folder)
    publishing.verify_index(zoo)
