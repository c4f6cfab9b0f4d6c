"""Training on several replicas: the gradient of all data, and noise of its own on each."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from rws_keras import HelmholtzMachine
from rws_keras.objectives import ReweightedWakeSleep
from rws_keras.training import workers
from rws_keras.training.run import Run

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]


class Baseline(ReweightedWakeSleep):
    """With a network that builds itself, which learns to predict the log-weights."""

    def __init__(self, num_particles):
        super().__init__(num_particles)
        self.network = keras.layers.Dense(1)

    def loss(self, machine, x, draws):
        loss, particles = super().loss(machine, x, draws)
        signal = tf.stop_gradient(tf.reduce_mean(particles.log_weights, axis=0))
        return loss + tf.reduce_mean(tf.square(signal - self.network(x)[:, 0])), particles


def free_addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{opened.getsockname()[1]}" for opened in sockets]
    for opened in sockets:
        opened.close()
    return addresses


def run_all(commands):
    """Runs commands side by side, each with variables of its own; returns their outputs."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    environment |= {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=cwd,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command, variables, cwd in commands
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    return outputs


def check_steps(path, num_data=21, relative=False):
    found = np.load(path)
    difference = np.abs(found["weights"] - found["expected"]).max()
    assert difference < 1e-6 * (np.abs(found["expected"]).max() if relative else 1.0)
    # The check has teeth: the same noise everywhere, or averages that do not regard the
    # numbers of rows, would be seen.
    for wrong in ("same_noise", "unweighted"):
        assert np.abs(found["weights"] - found[wrong]).max() > 1e-2
    assert found["num_data"] == found["evaluated"][0] == num_data


@pytest.mark.parametrize(
    ("data", "objective", "num_data"),
    [
        ("unweighted", "ReweightedWakeSleep", 21),
        ("weighted", "ReweightedWakeSleep", 40),
        ("unweighted", "NVIL", 21),
    ],
)
def test_two_logical_devices(data, objective, num_data, tmp_path):
    out = tmp_path / "steps.npz"
    step = [ROOT / "tests/distributed_step.py", "mirrored", out, data, objective]
    run_all([(step, {}, tmp_path)])
    # Of NVIL the running variances are near 100, and rounding does the more to all weights.
    check_steps(out, num_data, relative=objective == "NVIL")


def test_one_replica_of_a_strategy_learns(binary):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        machine = HelmholtzMachine.from_sizes(10, [6], seed=0)
        machine.compile("adam", ReweightedWakeSleep(3))
    before = machine.get_weights()[0]
    history = machine.fit(binary(40, 10), batch_size=16, verbose=0).history
    assert history["num_data"] == [40]
    assert np.abs(machine.get_weights()[0] - before).max() > 0


def test_networks_of_an_objective_are_built_under_a_strategy(binary):
    """They have no weights before `compile` sends something through them."""
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        machine = HelmholtzMachine.from_sizes(10, [6], seed=0)
        machine.compile("adam", Baseline(3), jit_compile=False)
    network = machine.objective.network
    before = network.get_weights()
    assert [weight.shape for weight in before] == [(10, 1), (1,)]
    machine.fit(binary(8, 10), verbose=0)
    assert np.abs(network.get_weights()[0] - before[0]).max() > 0


def test_two_processes(tmp_path):
    cluster = {"worker": free_addresses(2)}
    outs = [tmp_path / f"steps-{index}.npz" for index in range(2)]
    run_all(
        [
            (
                [ROOT / "tests/distributed_step.py", "worker", out],
                {
                    "TF_CONFIG": json.dumps(
                        {"cluster": cluster, "task": {"type": "worker", "index": index}}
                    )
                },
                tmp_path,
            )
            for index, out in enumerate(outs)
        ]
    )
    for out in outs:
        check_steps(out)
    np.testing.assert_array_equal(*(np.load(out)["weights"] for out in outs))


def test_training_command_with_two_workers(tmp_path):
    """A run, and its resumption: the workers report the same, and only the chief's run stays."""
    (tmp_path / "tiny.toml").write_text(
        'dataset = "digits"\nepochs = 2\nbatch_size = 99\n[model]\nlatents = [10, 5]\n'
        "[evaluation]\nvalidation_particles = 5\nnum_particles = 20\n"
    )

    def fit(*more):
        addresses = ",".join(free_addresses(2))
        fit = ["-m", "rws_keras", "fit", "tiny.toml", "--run-dir", "run", "--workers", addresses]
        return run_all([([*fit, "--worker", i, *more], {}, tmp_path) for i in range(2)])

    chief, other = fit()
    reported = [line.split(", 0 s left")[0] for line in other.splitlines() if "epoch 2/2" in line]
    assert reported
    assert reported[0] in chief
    run = Run(tmp_path / "run")
    assert run.metrics["epoch"] == 2
    assert [entry["num_data"] for entry in run.metrics["evaluations"]] == [300, 300]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "tiny.toml"]
    before = run.best_machine().get_weights()
    chief, _ = fit("--resume")
    assert "epoch" not in chief.split("split")[0]  # there was nothing left to do
    np.testing.assert_array_equal(before[0], run.best_machine().get_weights()[0])


@pytest.mark.parametrize(
    ("addresses", "worker", "message"),
    [
        ("a:1,b", 0, "HOST:PORT"),
        ("a:1,b:2", None, "which of the 2 workers"),
        ("a:1,b:2", 2, "0 to 1"),
        (None, 1, "needs --workers"),
    ],
)
def test_workers_must_be_told_apart(addresses, worker, message):
    with pytest.raises(ValueError, match=message):
        workers.configure(addresses, worker)


@pytest.mark.parametrize(("pipelines", "replicas"), [(1, 1), (2, 2), (3, 3), (1, 3), (2, 4)])
def test_shares_together_are_the_minibatches(pipelines, replicas):
    rows = np.arange(22).reshape(11, 2)
    batches = tf.data.Dataset.from_tensor_slices(rows).batch(7)
    local = replicas // pipelines
    streams = []
    for pipeline in range(pipelines):
        context = tf.distribute.InputContext(pipelines, pipeline, replicas)
        parts = list(workers.share(batches, context).as_numpy_iterator())
        streams += [parts[replica::local] for replica in range(local)]
    steps = [np.concatenate(parts) for parts in zip(*streams, strict=True)]
    assert [len(step) for step in steps] == [7, 4]
    np.testing.assert_array_equal(np.concatenate(steps), rows)
