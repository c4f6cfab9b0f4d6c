"""The commands as a user runs them: none prints what TensorFlow says about itself."""

import os
import pty
import re
import subprocess
import sys

import numpy as np
import program
import pytest
from server_process import free_port

from rws_keras import datasets

PRESET = "digits-sbn-64-32"
TINY = """
dataset = "digits"
epochs = 1
[model]
latents = [5]
[evaluation]
validation_particles = 5
num_particles = 5
"""


def quiet(*arguments, cwd):
    """Runs a command that must succeed and print nothing to standard error."""
    done = program.run(*arguments, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Where a run was trained, and a preset exported."""
    directory = tmp_path_factory.mktemp("user")
    (directory / "tiny.toml").write_text(TINY)
    shown = quiet("fit", "tiny.toml", cwd=directory)
    assert "runs/tiny-0" in shown
    assert f"models/{PRESET}/1" in quiet("export", PRESET, cwd=directory)
    np.save(directory / "x.npy", datasets.load("digits").test[:3])
    return directory


@pytest.mark.processes
def test_evaluating_and_sampling(directory):
    shown = quiet("evaluate", "runs/tiny-0", "--num-particles", 7, cwd=directory)
    assert re.search(r"test .* 7 +300", shown)
    assert "Wrote 4 samples" in quiet("sample", "runs/tiny-0", "--num-samples", 4, cwd=directory)


@pytest.mark.processes
def test_verifying_the_presets_that_come_with_the_library(directory):
    assert "as listed" in quiet("zoo", "verify", PRESET, cwd=directory)
    assert not (directory / "zoo").exists()


@pytest.mark.processes
def test_a_terminal_sees_no_notices_either(directory):
    screen, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rws_keras", "fit", "tiny.toml", "--seed", "1"],
        cwd=directory,
        env=program.environment(),
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    process.communicate(timeout=300)
    os.set_blocking(screen, False)
    os.close(theirs)
    with pytest.raises(OSError, match="Input/output error"):  # the end: nothing was written
        os.read(screen, 1000)
    os.close(screen)


@pytest.mark.processes
def test_who_asks_for_notices_gets_them(directory):
    options = {"cwd": directory, "env": program.environment(TF_CPP_MIN_LOG_LEVEL="0")}
    assert "InitializeLog" in program.run("recipes", **options).stderr


def serve(directory, models, port):
    """Starts the server; returns it and what it says until it serves."""
    arguments = ["serve", "--models", models, "--rest-port", port, "--grpc-port", 0]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "rws_keras", *map(str, arguments)],
        cwd=directory,
        env=program.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if "Serving on" in line:
            break
    return process, "".join(said)


def stop(process):
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")


@pytest.mark.processes
def test_serving_and_scoring(directory):
    port = free_port()
    process, said = serve(directory, "models", port)
    try:
        assert said.splitlines()[0] == f"Model {PRESET}: version 1"
        url = f"http://127.0.0.1:{port}"
        shown = quiet("score", PRESET, "x.npy", "--url", url, cwd=directory)
        assert "Wrote 3 scores" in shown
        options = ("--models", "models", "--rest-port", port, "--grpc-port", 0)
        second = program.run("serve", *options, cwd=directory)
        assert second.returncode == 2
        assert second.stderr.startswith(f"Error: Port {port} of 127.0.0.1 cannot be used for REST")
    finally:
        stop(process)


@pytest.mark.processes
def test_serving_an_empty_directory(directory, tmp_path):
    process, said = serve(directory, tmp_path, 0)
    try:
        assert f"no models in {tmp_path}" in said
        assert "rws-keras export" in said
        assert "127.0.0.1:0" not in said
    finally:
        stop(process)
