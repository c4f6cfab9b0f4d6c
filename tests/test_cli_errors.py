"""What a command says of an error, whose it is, and of a Ctrl-C."""

import errno
import re
import signal
import subprocess
import time
from pathlib import Path

import program
import pytest
from program import RECIPE
from typer.testing import CliRunner

import rws_keras
from rws_keras import datasets
from rws_keras.cli import errors
from rws_keras.cli.program import app
from rws_keras.cli.program import run as run_here
from rws_keras.errors import UserError

PRESET = "digits-sbn-64-32"


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
    assert "bug in rws_keras" in shown
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
