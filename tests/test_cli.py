"""The command line: how fast it starts, what it prints, and how it fails."""

import errno
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import program
import pytest
import typer
from server_process import free_port
from typer.testing import CliRunner

import rws_keras
from rws_keras import datasets
from rws_keras.cli import errors, output
from rws_keras.cli.program import app
from rws_keras.cli.program import run as run_here
from rws_keras.errors import UserError

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
RECIPE = '{"dataset": "digits", "epochs": 1, "model": {"latents": [5]}}'


def commands(command=None, path=()):
    """Every command and group, as the words that call it."""
    command = command or typer.main.get_command(app)
    yield path
    for name, part in getattr(command, "commands", {}).items():
        yield from commands(part, (*path, name))


# Starting.


def loaded_by(directory, *arguments):
    """The modules that the program has loaded when it ends, and what it printed."""
    path = program.install(directory)
    report = "import atexit, sys\natexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    path.write_text(path.read_text().replace("from", f"{report}from", 1))
    options = {"capture_output": True, "text": True, "check": True, "timeout": 120}
    done = subprocess.run([path, *arguments], env=program.environment(), **options)
    return set(done.stderr.split()), done.stdout


@pytest.mark.processes
@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_help_does_not_wait_for_tensorflow(words, tmp_path):
    modules, shown = loaded_by(tmp_path, *words, "--help")
    assert "Usage:" in shown
    assert "rws_keras.cli.program" in modules
    assert not modules & {"tensorflow", "keras", "numpy", "rws_keras.models"}


@pytest.mark.processes
def test_nor_does_it_as_a_module():
    # At this level of notices the program does not keep standard error from Python either.
    variables = {"PYTHONPROFILEIMPORTTIME": "1", "TF_CPP_MIN_LOG_LEVEL": "0"}
    done = program.run("--help", env=program.environment(**variables))
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "rws_keras.cli.program" in modules
    assert not modules & {"tensorflow", "keras", "numpy", "rws_keras.models"}


@pytest.mark.processes
def test_a_command_imports_what_it_needs(tmp_path):
    modules, shown = loaded_by(tmp_path, "data", "digits")
    assert "64 binary variables" in shown
    assert {"tensorflow", "keras", "numpy", "rws_keras.models"} <= modules


def test_all_commands_are_there():
    expected = {"fit", "evaluate", "sample", "runs", "recipes", "report", "demo", "data"}
    expected |= {"export", "serve", "score"}
    expected |= {f"zoo {name}" for name in ("list", "info", "download", "verify", "publish")}
    assert expected <= {" ".join(words) for words in commands()}


@pytest.mark.processes
def test_a_script_gets_the_whole_library_at_once(tmp_path):
    """Keras finds the registered classes of a saved machine, which the script never names."""
    machine = rws_keras.HelmholtzMachine.from_sizes(4, [2])
    machine.compile("adam", rws_keras.objectives.ReweightedWakeSleep(2))
    machine.save(tmp_path / "x.keras")
    script = "import keras, rws_keras\nprint(keras.saving.load_model('x.keras').latent_units)"
    (tmp_path / "script.py").write_text(script)
    options = {"cwd": tmp_path, "env": program.environment(), "text": True}
    assert subprocess.check_output([sys.executable, "script.py"], **options) == "[2]\n"


@pytest.mark.processes
@pytest.mark.parametrize("name", ["rws-keras", "rws-keras.exe", "rws-keras-script.py"])
def test_the_program_gets_it_at_first_use(tmp_path, name):
    (tmp_path / name).write_text(
        "import os, sys, rws_keras\n"
        "assert os.environ['KERAS_BACKEND'] == 'tensorflow'\n"
        "assert 'keras' not in sys.modules\n"
        "assert set(rws_keras.__all__) <= set(dir(rws_keras))\n"
        "assert not hasattr(rws_keras, 'nothing')\n"
        "from rws_keras import HelmholtzMachine, objectives\n"
        "import keras\n"
        "found = keras.saving.get_registered_object('rws_keras>ReweightedWakeSleep')\n"
        "print(HelmholtzMachine.__name__, found.__name__)\n"
    )
    options = {"cwd": tmp_path, "env": program.environment(), "text": True}
    found = subprocess.check_output([sys.executable, name], **options)
    assert found == "HelmholtzMachine ReweightedWakeSleep\n"


def test_the_version():
    result = CliRunner().invoke(app, ["--version"])
    assert result.output == f"rws-keras {rws_keras.__version__}\n"


# Errors.


def test_an_error_of_the_users_is_one_message(capsys):
    with pytest.raises(SystemExit) as caught:
        run_here(["data", "digit"])
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(r"Error: Unknown data set 'digit'.*\n", shown.err)


@pytest.mark.parametrize("arguments", [["--traceback", "data", "x"], ["data", "x", "--traceback"]])
def test_its_traceback_is_shown_when_asked_for(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        run_here(arguments)
    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert "in load" in shown


def test_an_error_of_the_library_keeps_its_traceback(monkeypatch, capsys):
    def broken(name):
        raise ValueError("broken")

    monkeypatch.setattr(datasets, "load", broken)
    with pytest.raises(ValueError, match="broken"):
        run_here(["data", "digits"])
    shown = capsys.readouterr().err
    assert "fault of rws_keras" in shown
    assert "Error: " not in shown


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("Give a name."), "Give a name."),
        (FileNotFoundError(errno.ENOENT, "No such file", "a/b"), "a/b: No such file. Check the"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied. Change"),
        (OSError(errno.ENOSPC, "No space left", "a", None, "b"), "b: No space left. Free some"),
        (OSError(errno.EIO, "Input/output error", "a"), None),
        (FileNotFoundError(errno.ENOENT, "No such file", rws_keras.__file__), None),
        (ValueError("broken"), None),
    ],
)
def test_which_errors_are_the_users(error, message):
    found = errors.explain(error)
    assert found is None if message is None else found.startswith(message)


def test_what_a_command_cannot_read_or_write(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("directory.toml").mkdir()
    for arguments, message in (
        (["fit", "directory.toml"], "Recipe directory.toml cannot be read: Is a directory."),
        (
            ["fit", "digits", "--run-dir", "file/run"],
            "file/run/checkpoints cannot be written: Not a",
        ),
        (["export", PRESET, "--to", "file"], f"file/{PRESET}: Not a directory."),
    ):
        with pytest.raises(SystemExit):
            run_here(arguments)
        assert capsys.readouterr().err.startswith(f"Error: {message}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk(tmp_path, monkeypatch, capsys):
    def full(*_):
        with open("/dev/full", "w") as file:
            file.write("1")

    monkeypatch.setattr("rws_keras.training.fitting.draw_samples", full)
    monkeypatch.setattr("rws_keras.training.run.Run.best_machine", lambda run: None)
    (tmp_path / "recipe.json").write_text(RECIPE)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SystemExit):
        run_here(["sample", str(tmp_path), "--to", "grid.png"])
    expected = "Error: grid.png: No space left on device. Free some space"
    assert capsys.readouterr().err.startswith(expected)


def test_misspelt_names_are_recognised():
    for arguments, hint in (
        (["fti"], "Did you mean 'fit'?"),
        (["zoo", "lst"], "Did you mean 'list'?"),
        (["fit", "digits", "--epoch", "3"], "--epochs"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert hint in result.output


def test_nothing_is_written_where_nobody_expects_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, option in ((["report", "run"], "--to"), (["zoo", "publish", "run"], "--zoo")):
        with pytest.raises(UserError, match=option):
            CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert not list(tmp_path.iterdir())


# Ctrl-C.


@pytest.mark.processes
def test_ctrl_c_while_tensorflow_is_imported(tmp_path):
    # Where the tests run in the background, SIGINT is ignored, and a child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [program.install(tmp_path), "recipes"],
        env=program.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    maps = Path(f"/proc/{process.pid}/maps")
    deadline = time.monotonic() + 60
    while "libtensorflow" not in maps.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")


def test_an_interrupted_import_counts_as_ctrl_c(monkeypatch, capsys):
    def interrupted(name):
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(datasets, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_here(["data", "digits"])
    assert capsys.readouterr().err == ""


# Output.

_COLUMNS = ["preset", "data", "test NLL (nats)", "K", "description"]
_ROWS = [
    ["mnist-sbn-400-300-200-100-10", "binarized_mnist", "90.53 (0.24)", "1,000", "five " * 20],
    ["digits", "digits", "19.16 (0.22)", "1,000", "small [and] quick"],
]


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
def test_no_table_is_cut_off(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    output.show(_COLUMNS, _ROWS, folded="description")
    shown = capsys.readouterr().out
    assert "…" not in shown
    words = " ".join(shown.split())
    for *cells, _ in _ROWS:
        assert all(cell in words for cell in cells)
    assert shown.count("five") == 20
    assert "small [and] quick" in words
    assert max(map(len, shown.splitlines())) <= width


def test_in_a_pipe_every_row_is_one_line(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    output.show(_COLUMNS, _ROWS, folded="description")
    lines = capsys.readouterr().out.splitlines()
    for row in _ROWS:
        (line,) = (line for line in lines if row[0] in line and row[1] in line)
        assert all(cell.strip() in line for cell in row)


def test_runs_are_listed_beside_what_is_not_one(tmp_path):
    for name, content in (("damaged", "{"), ("foreign", "[1]"), ("new", RECIPE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.json").write_text(content)
        (tmp_path / name / "run.json").write_text("{}")
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "recipe.json").write_text(RECIPE)
    wide = CliRunner(env={"COLUMNS": "300"})
    shown = wide.invoke(app, ["runs", str(tmp_path)], catch_exceptions=False).output
    for name, state in (
        ("damaged", "is left out"),
        ("foreign", "is left out"),
        ("preset", "is left out"),
        ("new", "0/1"),
    ):
        (line,) = (line for line in shown.splitlines() if name in line)
        assert state in line


# The commands as a user runs them: none prints what TensorFlow has to say about itself.


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
        shown = quiet("score", "x.npy", "--model", PRESET, "--url", url, cwd=directory)
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
