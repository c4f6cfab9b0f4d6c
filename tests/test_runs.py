"""Run directories: recipes that cannot be run, divergence, the list of runs, reports."""

import json
import shutil

import numpy as np
import pytest
from rich.console import Console
from test_files import full_disk

from rws_keras import HelmholtzMachine, __version__, datasets
from rws_keras.callbacks import DivergenceError
from rws_keras.errors import UserError
from rws_keras.files import write_json
from rws_keras.objectives import ReweightedWakeSleep
from rws_keras.training import demo, fitting, reporting
from rws_keras.training.checkpoint import Checkpoint, latest
from rws_keras.training.recipe import OptimizerRecipe, Recipe, for_data
from rws_keras.training.run import FORMAT, Run, find

QUIET = Console(quiet=True)


def recipe_of(**changes):
    return Recipe(
        **{
            "dataset": "digits",
            "epochs": 4,
            "model": {"latents": [5]},
            "objective": {"name": "reweighted_wake_sleep", "num_particles": 2},
            "evaluation": {"validation_particles": 2, "num_particles": 10},
            **changes,
        }
    )


@pytest.fixture
def machine():
    machine = HelmholtzMachine.from_sizes(64, [5], seed=0)
    machine.compile("adam", ReweightedWakeSleep(2))
    machine.optimizer.build(machine.trainable_variables)
    return machine


@pytest.fixture
def run(tmp_path, machine):
    """A run of three epochs, as far as its files tell."""
    run = Run.create(tmp_path / "runs" / "a", recipe_of(epochs=3))
    save_epochs(run, machine, [-3.0, -1.0, -2.0])
    return run


def save_epochs(run, machine, likelihoods):
    checkpoint = Checkpoint(run)
    checkpoint.set_model(machine)
    for epoch, likelihood in enumerate(likelihoods):
        checkpoint.on_epoch_begin(epoch)
        checkpoint.on_epoch_end(epoch, {"val_log_likelihood": likelihood})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"latents": [5], "p": "sbm"}}, r"family 'sbm'.*Did you mean 'sbn'\?"),
        ({"model": {"latents": [5], "q": {"family": "nade", "hidden": 3}}}, "hidden"),
        ({"model": {"latents": [5, 3], "p": ["sbn"]}}, "families for 2 latent layers"),
        ({"optimizer": {"options": {"beta_1": "high"}}}, r"'adam' does not work .*'beta_1'"),
        ({"q_optimizer": {"name": "sgd", "options": {"momentum": 7.0}}}, "'sgd' does not work"),
        ({"dataset": "nltcs"}, "nltcs"),
    ],
)
def test_a_recipe_that_cannot_be_run_leaves_nothing_behind(tmp_path, monkeypatch, changes, message):
    # A place without data sets.
    monkeypatch.setenv("RWS_KERAS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RWS_KERAS_MANUAL_DIR", str(tmp_path / "source"))
    with pytest.raises(UserError, match=message):
        Run.create(tmp_path / "run", recipe_of(**changes))
    assert not (tmp_path / "run").exists()


def test_every_optimizer_of_keras_can_be_used():
    from rws_keras.training.recipe import optimizers

    assert {"adam", "sgd", "lamb", "muon"} <= set(optimizers())
    for name in optimizers():
        OptimizerRecipe(name=name).check()


@pytest.mark.parametrize(("rows", "family"), [(49, "sbn"), (50, "arsbn")])
def test_own_data_of_few_rows_get_independent_units(tmp_path, rows, family):
    """20 units, and four fifths of the rows to train on."""
    path = tmp_path / "mine.npy"
    np.save(path, np.random.default_rng(0).integers(0, 2, (rows, 20), np.uint8))
    name, recipe = for_data(path, validation=0.1, test=0.1)
    assert name == "mine"
    assert recipe.model.p == family
    assert recipe.model.prior == "arsbn"


def test_a_run_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run/checkpoints cannot be written: Not a directory"):
        Run.create(tmp_path / "file" / "run", recipe_of())


def diverging(**changes):
    # Each step multiplies the weights by -60: they overflow in the second epoch.
    optimizer = {"name": "sgd", "learning_rate": 1.0, "options": {"weight_decay": 61.0}}
    return recipe_of(optimizer=optimizer, **changes)


def test_a_run_that_diverges_stops_and_keeps_its_last_good_checkpoint(tmp_path):
    run = Run.create(tmp_path / "run", diverging())
    with pytest.raises(DivergenceError, match=r"at step \d+ of epoch 2\..*\[optimizer\]") as caught:
        fitting.fit(run, "diverging", QUIET)
    machine, state = latest(run)
    assert state["epoch"] == 1
    assert all(np.isfinite(weight).all() for weight in machine.get_weights())
    run.best_machine()
    marked = run.metrics["diverged"]
    assert (marked["epoch"], marked["step"]) == (2, caught.value.step)
    assert find(tmp_path).runs[0].status == "diverged"
    # It says what happened, and trains no further.
    with pytest.raises(UserError, match=r"would diverge again.*at step \d+ of epoch 2"):
        fitting.fit(run, "diverging", QUIET)
    assert run.metrics["epoch"] == 1
    with pytest.raises(UserError, match=r"has diverged.*at step \d+ of epoch 2"):
        reporting.report(run, tmp_path)


def test_a_run_that_diverges_in_its_first_epoch(tmp_path):
    run = Run.create(tmp_path / "run", diverging(batch_size=10))
    with pytest.raises(DivergenceError, match=r"epoch 1\..*there is no machine"):
        fitting.fit(run, "diverging", QUIET)
    assert run.status == "diverged"
    assert run.best_validation is None
    assert latest(run) == (None, None)
    with pytest.raises(UserError, match=r"no trained machine\. Training diverged"):
        run.best_machine()


def test_a_full_disk_leaves_the_checkpoint_before(run, machine):
    checkpoint = Checkpoint(run, state=latest(run)[1])
    checkpoint.set_model(machine)
    checkpoint.on_epoch_begin(3)
    with full_disk(left=1000), pytest.raises(UserError, match="epoch-00004 cannot be written"):
        checkpoint.on_epoch_end(3, {"val_log_likelihood": 0.0})
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        "best.keras",
        "epoch-00002",
        "epoch-00003",
    ]
    assert latest(run)[1]["epoch"] == run.metrics["epoch"] == 3
    run.best_machine()


@pytest.mark.slow
def test_a_full_disk_under_the_logs(tmp_path):
    run = Run.create(tmp_path / "run", recipe_of())
    with (
        full_disk(left=2000),
        pytest.raises(UserError, match=r"run/logs cannot be written: File too large\. Free"),
    ):
        fitting.train(run, "a", QUIET)


def test_versions_are_written_down(run):
    assert run.about["versions"]["rws_keras"] == __version__
    assert run.about["format"] == run.metrics["format"] == FORMAT
    # Those of before the field are read ...
    for name in ("run.json", "metrics.json"):
        content = json.loads((run.path / name).read_text())
        del content["format"]
        write_json(run.path / name, content)
    assert run.metrics["epoch"] == 3
    # ... and those of a later version are not misunderstood.
    write_json(run.path / "metrics.json", {"format": FORMAT + 1})
    with pytest.raises(UserError, match=rf"format {FORMAT + 1}.*reads formats up to {FORMAT}"):
        _ = run.metrics


def test_foreign_files_do_not_hide_the_runs(run):
    runs = run.path.parent

    def copy(name):
        return shutil.copytree(run.path, runs / name)

    (copy("b-no-recipe") / "recipe.json").write_text("[1]")
    (copy("c-not-json") / "recipe.json").write_text("{")
    (copy("d-no-text") / "recipe.json").write_bytes(b"\xff\xfe")
    (copy("e-preset") / "run.json").unlink()
    (copy("f-metrics") / "metrics.json").write_text('{"best_epoch": 9, "history": []}')
    (copy("g-metrics") / "metrics.json").write_text("[]")
    copy("deep/below/h")
    (runs / "a-file").write_text("")
    found = find(runs)
    assert [each.path.relative_to(runs).as_posix() for each in found.runs] == ["a", "deep/below/h"]
    reasons = {path.name: reason for path, reason in found.skipped.items()}
    assert "expected an object with named fields" in reasons.pop("b-no-recipe")
    assert "recipe.json" in reasons.pop("c-not-json")
    assert "decode" in reasons.pop("d-no-text")
    assert "no run.json" in reasons.pop("e-preset")
    assert "not from a run" in reasons.pop("f-metrics")
    assert "does not hold a JSON object" in reasons.pop("g-metrics")
    assert not reasons
    assert found.runs[0].status == "unfinished"
    assert found.runs[0].best_validation == -1.0
    assert find(runs / "nowhere") == ([], {})


def test_what_is_missing_of_the_evaluations_is_done(run, machine):
    data = datasets.load("digits")
    # The recipe's K for one split; another K, and an earlier best machine, do not count.
    first = fitting.evaluate(run, machine, data, "validation", 10, QUIET)
    fitting.evaluate(run, machine, data, "test", 3, QUIET)
    assert run.status == "unfinished"
    fitting.finish(run, "a", QUIET)
    assert run.status == "finished"
    assert [(e["split"], e["num_particles"]) for e in run.metrics["evaluations"]] == [
        ("validation", 10),
        ("test", 3),
        ("test", 10),
    ]
    assert run.metrics["evaluations"][0] == first
    run.update_metrics(best_epoch=3)
    assert run.status == "unfinished"
    assert run.evaluations == []


def test_samples_that_are_no_images_are_reported(run, machine, tmp_path):
    fitting.finish(run, "a", QUIET)
    run.samples.unlink()
    path = fitting.draw_samples(machine, run.samples, 7, seed=0)
    assert path == run.path / "samples.csv"
    reporting.report(run, tmp_path / "results")
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["a.csv", "a.json"]
    samples = np.loadtxt(tmp_path / "results" / "a.csv", delimiter=",")
    assert samples.shape == (7, 64)
    assert set(np.unique(samples)) <= {0, 1}


def test_samples_are_written_as_what_the_ending_says(machine, tmp_path):
    path = fitting.draw_samples(machine, tmp_path / "rows.csv", 3, 0, (8, 8))
    assert np.loadtxt(path, delimiter=",").shape == (3, 64)
    with pytest.raises(UserError, match=r"\.png or a \.csv file, not to .*rows\.txt"):
        fitting.draw_samples(machine, tmp_path / "rows.txt", 3, 0, (8, 8))
    with pytest.raises(UserError, match="create its directory first"):
        fitting.draw_samples(machine, tmp_path / "nowhere" / "a.png", 3, 0, (8, 8))


def test_a_run_that_finishes_draws_samples_of_any_data(run, monkeypatch):
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda name: load(name)._replace(image_shape=None))
    fitting.finish(run, "a", QUIET)
    assert (run.path / "samples.csv").exists()


def test_the_demonstration_replaces_runs_only(tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"is not a run.*--run-dir"):
        demo.run(tmp_path, QUIET)
    assert (tmp_path / "digits" / "thesis.tex").exists()
