"""The training command: recipes, runs, and going on after an interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import typer
from rich.console import Console
from typer.testing import CliRunner

from rws_keras.cli.program import app
from rws_keras.datasets import BinaryData
from rws_keras.errors import UserError
from rws_keras.training import fitting, recipe, reporting
from rws_keras.training.checkpoint import latest
from rws_keras.training.interruption import Interruption
from rws_keras.training.run import Run

ROOT = Path(__file__).parents[1]

TINY = """
dataset = "digits"
epochs = 4
batch_size = 100
seed = 3

[model]
latents = [10, 5]

[objective]
name = "reweighted_wake_sleep"
num_particles = 3

[optimizer]
learning_rate = 1e-2
schedule = "cosine"

[evaluation]
validation_particles = 5
num_particles = 20
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def command(*arguments):
    """Runs `rws-keras` in a process of its own; returns the process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    # Where the tests run in the background, SIGINT is ignored, and a child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-m", "rws_keras", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def invoke(*arguments):
    """Runs the command in this process; an error of the user's is raised."""
    return CliRunner().invoke(
        app, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False
    )


def weights_of(run):
    return Run.open(run).best_machine().get_weights()


def history_of(run):
    return Run.open(run).metrics["history"]


def assert_same_result(first, second):
    assert history_of(first) == history_of(second)
    for ours, theirs in zip(weights_of(first), weights_of(second), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    evaluations = [Run.open(run).metrics["evaluations"] for run in (first, second)]
    assert evaluations[0] == evaluations[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was never interrupted."""
    directory = tmp_path_factory.mktemp("finished")
    (directory / "tiny.toml").write_text(TINY)
    invoke("fit", directory / "tiny.toml", "--run-dir", directory / "run")
    return directory / "run"


@pytest.mark.slow
def test_a_run_directory_holds_what_it_should(finished):
    run = Run.open(finished)
    assert run.recipe.dataset == "digits"
    assert run.recipe.seed == 3
    about = json.loads((finished / "run.json").read_text())
    assert about["seed"] == 3
    assert about["versions"]["tensorflow"] == tf.__version__
    assert about["command"].startswith("rws-keras")
    metrics = run.metrics
    assert metrics["epoch"] == len(metrics["history"]) == 4
    best = max(entry["val_log_likelihood"] for entry in metrics["history"])
    assert metrics["history"][metrics["best_epoch"] - 1]["val_log_likelihood"] == best
    splits = [(entry["split"], entry["num_particles"]) for entry in metrics["evaluations"]]
    assert splits == [("validation", 20), ("test", 20)]
    for entry in metrics["evaluations"]:
        assert entry["num_data"] == 300
        assert entry["log_likelihood_se"] > 0
    names = sorted(path.name for path in run.checkpoints.iterdir())
    assert names == ["best.keras", "epoch-00003", "epoch-00004"]
    assert tf.io.decode_png(run.samples.read_bytes()).shape[0] > 50
    assert list(run.logs.glob("train/events*"))
    assert not list(finished.rglob("*partial*"))


@pytest.mark.slow
def test_the_best_machine_is_the_one_of_the_best_epoch(finished):
    run = Run.open(finished)
    machine = run.best_machine()
    metrics = run.metrics
    from rws_keras import datasets

    value = machine.evaluate(
        datasets.load("digits").validation, batch_size=100, return_dict=True, verbose=0
    )
    expected = metrics["history"][metrics["best_epoch"] - 1]["val_log_likelihood"]
    assert value["log_likelihood"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("when", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_goes_on_to_the_same_result(finished, tiny, tmp_path, when):
    run = tmp_path / "run"
    process = command("fit", tiny, "--run-dir", run)
    # Somewhere after the first epoch, wherever the process happens to be.
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/epoch-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(when)
    out, err = process.communicate(timeout=120)
    if when == signal.SIGINT:
        assert process.returncode == 130, err
        assert "--resume" in out
    else:
        assert process.returncode == -signal.SIGKILL
    resumed = command("fit", tiny, "--run-dir", run, "--resume")
    out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    assert_same_result(finished, run)


def test_an_interruption_that_keras_swallows_comes_back():
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interruption() as interruption:
            interruption.on_train_batch_end(0)  # nothing has come yet
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                interruption.on_train_batch_end(1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, usual)


def crash_at_epoch(monkeypatch, epoch):
    """Lets the process die, as it were, while it saves the machine of an epoch."""
    save = keras.Model.save
    saved = []

    def crash(machine, path):
        if len(saved) == epoch - 1:
            Path(path).write_bytes(b"half")
            raise RuntimeError("power cut")
        saved.append(path)
        save(machine, path)

    monkeypatch.setattr("rws_keras.HelmholtzMachine.save", crash)


@pytest.mark.slow
def test_a_crash_while_a_checkpoint_is_written_loses_that_epoch_only(
    finished, tiny, tmp_path, monkeypatch
):
    run = Run.create(tmp_path / "run", recipe.load(tiny)[1])
    crash_at_epoch(monkeypatch, 3)
    with pytest.raises(RuntimeError, match="power cut"):
        fitting.fit(run, "tiny", Console(quiet=True))
    monkeypatch.undo()
    assert latest(run)[1]["epoch"] == 2
    fitting.fit(run, "tiny", Console(quiet=True))
    assert_same_result(finished, run.path)


@pytest.mark.slow
def test_a_crash_between_the_last_checkpoint_and_the_metrics(finished, tiny, tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run", recipe.load(tiny)[1])
    update = Run.update_metrics

    def crash(run, **entries):
        if entries["epoch"] == 4:
            raise RuntimeError("power cut")
        update(run, **entries)

    monkeypatch.setattr(Run, "update_metrics", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        fitting.fit(run, "tiny", Console(quiet=True))
    monkeypatch.undo()
    fitting.fit(run, "tiny", Console(quiet=True))
    assert_same_result(finished, run.path)


def copy_of(run, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "copy")
    return Run.open(tmp_path / "copy")


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["machine.keras", "state.json"])
def test_a_damaged_checkpoint_says_what_to_do(finished, tmp_path, damage):
    run = copy_of(finished, tmp_path)
    path = run.checkpoints / "epoch-00004" / damage
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"damaged.*Delete .*epoch-00004 and resume again"):
        latest(run)


@pytest.mark.slow
def test_a_damaged_best_machine(finished, tmp_path):
    run = copy_of(finished, tmp_path)
    run.best.write_bytes(b"not a Keras file")
    with pytest.raises(ValueError, match=r"best\.keras is damaged"):
        invoke("evaluate", run.path)


@pytest.mark.slow
def test_evaluate_adds_to_the_metrics(finished, tmp_path):
    run = copy_of(finished, tmp_path)
    invoke("evaluate", run.path, "--num-particles", 7, "--split", "train")
    entry = run.metrics["evaluations"][-1]
    assert (entry["split"], entry["num_particles"], entry["num_data"]) == ("train", 7, 1197)
    invoke("evaluate", run.path, "--num-particles", 7, "--split", "train")
    assert run.metrics["evaluations"][-1] == entry
    assert len(run.metrics["evaluations"]) == 3
    invoke("evaluate", run.path, "--num-particles", 7, "--split", "train", "--rows", 30)
    *others, few = run.metrics["evaluations"]
    assert (few["num_data"], few["first_rows"]) == (30, 30)
    assert others[-1] == entry
    assert few["log_likelihood"] != entry["log_likelihood"]
    invoke("evaluate", run.path, "--num-particles", 7, "--split", "train", "--rows", 30)
    assert run.metrics["evaluations"] == [*others, few]
    with pytest.raises(UserError, match="only 1,197 rows, 1,198 were asked for"):
        invoke("evaluate", run.path, "--split", "train", "--rows", 1198)
    with pytest.raises(typer.BadParameter, match="'tests' is not one of"):
        invoke("evaluate", run.path, "--split", "tests")


@pytest.mark.slow
def test_sample_writes_a_grid(finished, tmp_path):
    invoke("sample", finished, "--num-samples", 9, "--to", tmp_path / "grid.png")
    image = tf.io.decode_png((tmp_path / "grid.png").read_bytes())
    enlarged = 3 * 9 + 1
    assert image.shape[0] == image.shape[1]
    assert image.shape[0] % enlarged == 0


@pytest.mark.slow
def test_report_keeps_the_figures(finished, tmp_path):
    path = reporting.report(Run.open(finished), tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run.json", "run.png"]
    content = json.loads(path.read_text())
    assert content["updates"] == 4 * 12
    assert content["num_parameters"] == weights_count(finished)
    assert content["evaluations"] == Run.open(finished).metrics["evaluations"]
    assert -40 < content["independent_units"]["log_likelihood"] < -20


def weights_count(run):
    return sum(weight.size for weight in weights_of(run))


@pytest.mark.slow
def test_early_stopping_keeps_its_count_over_a_resumption(tiny, tmp_path, monkeypatch):
    # So low a learning rate changes no weight: the first epoch stays the best.
    chosen = {
        **recipe.load(tiny)[1].model_dump(),
        "epochs": 50,
        "patience": 2,
        "optimizer": {"learning_rate": 1e-30},
    }
    run = Run.create(tmp_path / "run", recipe.Recipe(**chosen))
    crash_at_epoch(monkeypatch, 3)
    with pytest.raises(RuntimeError, match="power cut"):
        fitting.fit(run, "tiny", Console(quiet=True))
    monkeypatch.undo()
    fitting.fit(run, "tiny", Console(quiet=True))
    assert run.metrics["best_epoch"] == 1
    assert run.metrics["epoch"] == 3
    # A run that has stopped trains no further.
    fitting.fit(run, "tiny", Console(quiet=True))
    assert run.metrics["epoch"] == 3


@pytest.mark.slow
def test_starting_over_an_existing_run_is_refused(finished, tiny):
    with pytest.raises(ValueError, match=r"contains a run already.*--resume.*--run-dir"):
        invoke("fit", tiny, "--run-dir", finished)
    with pytest.raises(ValueError, match="another recipe, number of epochs or seed"):
        invoke("fit", tiny, "--run-dir", finished, "--resume", "--epochs", 9)


def test_resuming_what_is_not_a_run(tiny, tmp_path):
    with pytest.raises(ValueError, match="is not a run directory"):
        invoke("fit", tiny, "--run-dir", tmp_path / "nowhere", "--resume")
    with pytest.raises(ValueError, match="It is not the directory of a run"):
        invoke("sample", tmp_path)


@pytest.mark.processes
def test_unknown_recipe_names_the_nearest():
    process = command("fit", "digit")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "Did you mean 'digits'?" in err
    assert err.startswith("Error: ")
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 4", "epochs = 0", "epochs: `epochs` must be a positive integer, got 0."),
        ("epochs = 4", "epoch = 4", "epoch: Unknown key 'epoch'; .* Did you mean 'epochs'?"),
        ("latents =", "latent =", "model.latent: Unknown key 'latent'; .*mean 'latents'?"),
        (
            'dataset = "digits"',
            'dataset = "digit"',
            "dataset: .*Did you mean 'digits'?",
        ),
        ("latents = [10, 5]", "latents = []", "model.latents"),
        ("reweighted_wake_sleep", "reweighted_wake", "Did you mean 'reweighted_wake_sleep'"),
        ("num_particles = 3", "num_particle = 3", "objective: .*Did you mean 'num_particles'?"),
        ("num_particles = 3", "num_particles = 0", "must be a positive integer"),
        ('schedule = "cosine"', 'schedule = "cosin"', "optimizer.schedule"),
        ('schedule = "cosine"', 'name = "adm"', "optimizer: Unknown optimizer 'adm'; .*'adam'?"),
        ('schedule = "cosine"', "options = {beta1 = 0.5}", "Unknown argument 'beta1'; .*'beta_1'?"),
        ('schedule = "cosine"', "options = {learning_rate = 1.0}", "next to `options`"),
        ("epochs = 4", "epochs = ", "line 3"),
        # Integers are what they are everywhere in the library.
        ("epochs = 4", "epochs = true", "epochs: .*positive integer, got True."),
        ("batch_size = 100", "batch_size = 10.0", "batch_size: .*positive integer, got 10.0."),
        ("seed = 3", 'seed = "1"', "seed: .*an integer of at least 0, got '1'."),
        ("seed = 3", "seed = false", "seed: .*an integer of at least 0, got False."),
        ("seed = 3", "seed = -1", "seed: .*an integer of at least 0, got -1."),
        ("seed = 3", "seed = 2147483648", "seed: .*less than 2147483648"),
        ("seed = 3", "patience = true", "patience: .*positive integer, got True."),
        ("latents = [10, 5]", "latents = [10, true]", "model.latents.1: .*got True."),
        ("latents = [10, 5]", 'latents = ["4"]', "model.latents.0: .*got '4'."),
        ("latents = [10, 5]", "latents = [4.0]", "model.latents.0: .*got 4.0."),
        ("num_particles = 20", "num_particles = true", "evaluation.num_particles: .*got True."),
        ("num_particles = 20", "batch_size = 5.0", "evaluation.batch_size: .*got 5.0."),
        ("n_particles = 5", "n_particles = 5.0", "evaluation.validation_particles: .*got 5.0."),
    ],
)
def test_bad_recipes(tiny, old, new, message):
    tiny.write_text(TINY.replace(old, new))
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        recipe.load(tiny)


def test_all_recipes_load_and_make_machines():
    assert {"digits", "mnist-sbn-200-200-200"} <= set(recipe.names())
    for name in recipe.names():
        _, loaded = recipe.load(name)
        # With the weights of a preset it must have the preset's sizes.
        rows = np.zeros([1000, 784 if loaded.initial_weights else 20], np.uint8)
        machine = loaded.make_machine(BinaryData("zeros", rows, rows, rows))
        assert machine.latent_units == loaded.model.latents


def test_recipes_are_listed():
    assert "digits-wake-sleep" in invoke("recipes").output


def test_a_particle_schedule_and_fewer_validation_rows(tmp_path):
    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((self.model.objective.num_particles, int(logs["val_num_data"])))

    seen = []
    text = TINY.replace("num_particles = 3\n", "").replace("epochs = 4", "epochs = 3")
    text = text.replace("validation_particles = 5", "validation_particles = 5\nvalidation_rows = 7")
    path = tmp_path / "tiny.toml"
    path.write_text(text + "\n[particle_schedule]\n0 = 1\n2 = 4\n")
    run = Run.create(tmp_path / "run", recipe.load(path)[1])
    fitting.train(run, "tiny", Console(quiet=True), callbacks=[Look()])
    assert seen == [(1, 7), (1, 7), (4, 7)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 3", "seed = 3\nparticle_schedule = { 0 = 1 }", "has no effect together with"),
        ("num_particles = 3", "[particle_schedule]\n1 = 2", "a value for epoch 0"),
        ("[evaluation]", "[evaluation]\nvalidation_rows = 100000", "validation_rows is 100000"),
    ],
)
def test_what_would_have_no_effect_is_refused(tiny, old, new, message):
    tiny.write_text(TINY.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        recipe.load(tiny)[1].check()
