"""The program starts at once, and imports TensorFlow only where a command needs it."""

import subprocess
import sys

import program
import pytest
import typer
from typer.testing import CliRunner

import rws_keras
from rws_keras.cli.program import app


def commands(command=None, path=()):
    """Every command and group, as the words that call it."""
    command = command or typer.main.get_command(app)
    yield path
    for name, part in getattr(command, "commands", {}).items():
        yield from commands(part, (*path, name))


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
    expected |= {
        f"zoo {name}" for name in ("list", "info", "download", "verify", "publish", "measure")
    }
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
