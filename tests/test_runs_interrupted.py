"""Ctrl-C while something runs, and going on with an evaluation."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from rich.console import Console
from test_runs import recipe_of

from rws_keras import HelmholtzMachine, datasets
from rws_keras.objectives import ReweightedWakeSleep
from rws_keras.training.checkpoint import Checkpoint
from rws_keras.training.evaluation import evaluate
from rws_keras.training.progress import Pace, ProgressBar
from rws_keras.training.run import Run

ROOT = Path(__file__).parents[1]


def start(code, *arguments):
    """Runs Python code in a process of its own."""
    # Where the tests run in the background, SIGINT is ignored, and a child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-u", "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


# A minute within TensorFlow, in which Python handles no signal.
LONG = """
import tensorflow as tf
from rws_keras.training.interruption import Interruption

@tf.function
def long():
    began = tf.timestamp()
    return tf.while_loop(lambda n: tf.timestamp() < began + 60.0, lambda n: [n + 1], [0])

with Interruption():
    print("ready")
    long()
"""


@pytest.mark.processes
def test_ctrl_c_is_answered_at_once_and_the_second_quits():
    process = start(LONG)
    assert process.stdout.readline() == "ready\n"
    time.sleep(2)  # into the loop
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "\n"
    assert process.stdout.readline() == (
        "Stopping after the current step; Ctrl-C again quits at once.\n"
    )
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert time.monotonic() - began < 30


@pytest.fixture(scope="module")
def machine():
    return HelmholtzMachine.from_sizes(12, [6, 4], seed=1)


ARGUMENTS = {"num_particles": 300, "batch_size": 10, "seed": 3}


def stop_after(batches):
    def report(done):
        if done == batches:
            raise KeyboardInterrupt

    return report


def test_an_interrupted_evaluation_goes_on_to_the_same_result(machine, binary, tmp_path):
    x, partial = binary(44, 12), tmp_path / "partial.json"
    whole = evaluate(machine, x, **ARGUMENTS, partial=tmp_path / "other.json")
    assert not partial.exists()
    for stop in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            evaluate(machine, x, **ARGUMENTS, partial=partial, report=stop_after(stop))
    seen = []
    assert evaluate(machine, x, **ARGUMENTS, partial=partial, report=seen.append) == whole
    assert seen == [3, 4, 5]
    assert whole["num_data"] == 44


def test_an_evaluation_is_what_the_machine_itself_gives(machine, binary, tmp_path):
    x = binary(44, 12)
    for counts in (None, np.arange(44) % 4):
        partial = tmp_path / "partial.json"
        whole = evaluate(machine, x, **ARGUMENTS, partial=partial, sample_weight=counts)
        assert whole == machine.evaluate(
            x, **ARGUMENTS, sample_weight=counts, return_dict=True, verbose=0
        )
        partial.unlink(missing_ok=True)


OTHERS = ["machine", "data", "num_particles", "batch_size", "seed", "sample_weight"]


@pytest.mark.parametrize("other", OTHERS)
def test_another_evaluation_does_not_go_on_with_it(machine, binary, tmp_path, other):
    arguments = {"machine": machine, "x": binary(44, 12), **ARGUMENTS}
    partial = tmp_path / "partial.json"
    with pytest.raises(KeyboardInterrupt):
        evaluate(**arguments, partial=partial, report=stop_after(2))
    changes = {
        "machine": HelmholtzMachine.from_sizes(12, [6, 4], seed=1),
        "data": binary(44, 12, seed=1),
        "num_particles": 301,
        "batch_size": 11,
        "seed": 4,
        "sample_weight": np.arange(44),
    }
    arguments[{"data": "x"}.get(other, other)] = changes[other]
    seen = []
    evaluate(**arguments, partial=partial, report=seen.append)
    assert seen[0] == 0


EVALUATE = """
import json, sys
from pathlib import Path
from rich.console import Console
from rws_keras import datasets
from rws_keras.training import fitting
from rws_keras.training.run import Run

run = Run(sys.argv[1])
data = datasets.load("digits")
print("ready")
result = fitting.evaluate(run, run.best_machine(), data, "test", 40_000, Console())
print(json.dumps(result))
"""


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("when", [signal.SIGINT, signal.SIGKILL])
def test_a_run_whose_evaluation_is_interrupted(tmp_path, when):
    evaluation = {"batch_size": 10}
    run = Run.create(tmp_path / "run", recipe_of(evaluation=evaluation))
    checkpoint = Checkpoint(run)
    checkpoint.set_model(run.recipe.make_machine(datasets.load("digits")))
    checkpoint.on_epoch_begin(0)
    checkpoint.on_epoch_end(0, {"val_log_likelihood": -1.0})
    partial = run.path / "evaluating-test-40000.json"
    process = start(EVALUATE, run.path)
    deadline = time.monotonic() + 120
    while not partial.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(when)
    out, _ = process.communicate(timeout=60)
    if when == signal.SIGINT:
        assert "Stopping after the current particles; Ctrl-C again quits at once." in out
    assert partial.exists()
    assert "evaluations" not in run.metrics
    out, _ = start(EVALUATE, run.path).communicate(timeout=300)
    assert not partial.exists()
    (interrupted,) = run.metrics["evaluations"]
    run.update_metrics(evaluations=[])
    start(EVALUATE, run.path).communicate(timeout=300)
    assert run.metrics["evaluations"] == [interrupted]


@pytest.mark.slow
def test_a_resumed_training_does_not_count_the_compilation_for_the_time_left(binary):
    class SlowStart(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            time.sleep(5)
            self.first_step = None

        def on_train_batch_end(self, batch, logs=None):
            self.first_step = self.first_step or time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.seconds = time.perf_counter() - self.first_step

    slow = SlowStart()
    screen = io.StringIO()
    bar = ProgressBar(Console(file=screen, width=200), "a", epochs=103, first_epoch=100)
    machine = HelmholtzMachine.from_sizes(12, [6, 4], seed=1)
    machine.compile("adam", ReweightedWakeSleep(2), num_particles=2, jit_compile=False)
    x = binary(40, 12)
    machine.fit(
        x,
        batch_size=10,
        epochs=102,
        initial_epoch=100,
        validation_data=x,
        callbacks=[bar, slow],
        verbose=0,
    )
    first, second = screen.getvalue().splitlines()
    assert "epoch 101/103" in first
    assert "left" not in first  # nothing is known yet
    # One epoch is left, and less than two are done since the first step. With the five seconds
    # before it the estimate would be above this bound, unless the epochs took 20 seconds.
    assert int(re.search(r", (\d+) s left", second)[1]) <= slow.seconds / 1.75 + 1


def test_the_time_left_is_estimated_from_this_session():
    pace = Pace(total=100)
    time.sleep(0.5)  # the compilation
    assert pace.left(90.0) is None
    time.sleep(0.2)
    # Two percent in 0.2 s, eight to go; a loaded machine only takes longer.
    began = time.perf_counter()
    left = pace.left(92.0)
    assert left == pytest.approx(0.8, rel=0.25) or time.perf_counter() - began > 0.05
