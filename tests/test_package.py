"""The wheel, installed where the checkout is out of sight: what it contains, and that it works.

The environment has the packages that a plain `pip install` of the wheel brings, and no others: no
extras, no tools of the tests. They are links to the packages of the tests' environment.
"""

import json
import os
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import venv
import zipfile
from importlib import metadata
from textwrap import dedent

import numpy as np
import pytest
from dependencies import ROOT, closure, requirements
from server_process import free_port

import rws_keras

pytestmark = [pytest.mark.processes, pytest.mark.slow]

PRESET = "digits-sbn-64-32"


def run(*command, **options):
    """Runs a command; returns what it wrote to standard output."""
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=600, **options
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT)
    (path,) = directory.iterdir()
    return path


class Installation:
    """A virtual environment with the wheel in it, and a working directory elsewhere."""

    def __init__(self, wheel, directory):
        self.environment = directory / "environment"
        self.cwd = directory / "elsewhere"
        self.cwd.mkdir()
        venv.create(self.environment)
        self.python = self.environment / "bin" / "python"
        packages = sysconfig.get_path("purelib", "venv", vars={"base": str(self.environment)})
        for name in closure(requirements()):
            distribution = metadata.distribution(name)
            for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
                link = os.path.join(packages, top)
                if not os.path.lexists(link):
                    os.symlink(distribution.locate_file(top), link)
        pip = [sys.executable, "-m", "pip", "--python", self.python]
        run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel)
        own = {"PYTHONPATH", "KERAS_HOME", "RWS_KERAS_ZOO", "XLA_FLAGS"}
        self.variables = {key: value for key, value in os.environ.items() if key not in own}
        self.variables["PATH"] = f"{self.environment / 'bin'}:{os.environ['PATH']}"
        self.variables["COLUMNS"] = "200"

    def run(self, *command):
        """Runs a command of the environment; returns what it wrote to standard output."""
        return run(self.environment / "bin" / command[0], *command[1:], **self.options)

    @property
    def options(self):
        return {"cwd": self.cwd, "env": self.variables}


@pytest.fixture(scope="module")
def installation(wheel, tmp_path_factory):
    return Installation(wheel, tmp_path_factory.mktemp("installation"))


def test_the_wheel_has_the_package_with_recipes_and_presets_and_nothing_else(wheel):
    found = set(zipfile.ZipFile(wheel).namelist())
    about = f"rws_keras-{rws_keras.__version__}.dist-info"
    assert {name.split("/")[0] for name in found} == {"rws_keras", about}
    assert f"{about}/licenses/LICENSE" in found
    found = {name for name in found if not name.startswith(about)}
    folders = {
        "recipes": ROOT / "training/recipes",
        "comparisons": ROOT / "training/comparisons",
        "zoo": ROOT / "zoo",
    }
    data = {
        f"rws_keras/data/{name}/{path.relative_to(folder)}"
        for name, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert f"rws_keras/data/zoo/{PRESET}/model.weights.h5" in data
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "rws_keras").rglob("*.py")}
    others = {"rws_keras/py.typed", "rws_keras/datasets/density_estimation.sha256"}
    assert found == data | code | others


def test_the_installed_package_is_the_one_in_use(installation):
    code = """
        import importlib.metadata, importlib.util, json, sys
        import rws_keras
        absent = ["tensorflow_datasets", "uvloop", "pytest", "training", "serving", "zoo", "tests"]
        print(json.dumps({
            "file": rws_keras.__file__,
            "path": sys.path,
            "versions": [rws_keras.__version__, importlib.metadata.version("rws-keras")],
            "present": [name for name in absent if importlib.util.find_spec(name)],
        }))
    """
    found = json.loads(installation.run("python", "-c", dedent(code)))
    assert found["file"].startswith(str(installation.environment))
    assert not [entry for entry in found["path"] if entry.startswith(str(ROOT))]
    assert found["versions"] == [rws_keras.__version__] * 2
    assert found["present"] == []


def test_every_preset_loads_and_scores(installation):
    code = """
        import numpy as np, rws_keras
        for name, about in rws_keras.presets().items():
            machine = rws_keras.HelmholtzMachine.from_preset(name)
            x = machine.sample(2, seed=0).x
            assert np.isfinite(machine.log_likelihood(x, 10, seed=0).log_likelihood).all(), name
            print(name)
    """
    assert installation.run("python", "-c", dedent(code)).split() == list(rws_keras.presets())


def test_the_demonstration(installation):
    output = installation.run("rws-keras", "demo")
    for model in ("Reweighted Wake-Sleep, K = 5", "classic wake-sleep", "independent pixels"):
        assert model in output
    assert (installation.cwd / "runs" / "demo" / "digits" / "metrics.json").exists()


def test_lists(installation):
    recipes = installation.run("rws-keras", "recipes")
    for path in (ROOT / "training" / "recipes").glob("*.toml"):
        assert path.stem in recipes
    presets = installation.run("python", "-m", "rws_keras", "zoo", "list")
    for name in rws_keras.presets():
        assert name in presets


def test_an_exported_preset_is_served(installation):
    installation.run("rws-keras", "export", PRESET, "--to", "models")
    assert (installation.cwd / "models" / PRESET / "1" / "saved_model.pb").exists()
    rest_port, grpc_port = free_port(), free_port()
    ports = ["--rest-port", str(rest_port), "--grpc-port", str(grpc_port)]
    command = [installation.environment / "bin" / "rws-keras", "serve", "--models", "models"]
    x = rws_keras.datasets.load("digits").test[:3]
    with open(installation.cwd / "log", "w") as log:
        server = subprocess.Popen([*command, *ports], stderr=log, **installation.options)
    try:
        answer = predict(rest_port, x, server)
    finally:
        server.terminate()
    assert server.wait(60) == 0, (installation.cwd / "log").read_text()
    machine = rws_keras.HelmholtzMachine.from_preset(PRESET)
    expected = machine.log_likelihood(x, 10_000, seed=0).log_likelihood.numpy()
    found, error = (
        np.array([row[key] for row in answer["predictions"]])
        for key in ("log_likelihood", "standard_error")
    )
    # Five standard errors of an estimate from 100 particles; the noise is always the same.
    np.testing.assert_array_less(np.abs(found - expected), 5 * error + 0.1)


def predict(port, x, server):
    """Asks for scores until the model is loaded."""
    url = f"http://127.0.0.1:{port}/v1/models/{PRESET}:predict"
    body = json.dumps({"instances": x.tolist()}).encode()
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, body, timeout=60) as response:
                return json.load(response)
        except OSError as error:
            if isinstance(error, urllib.error.HTTPError) and error.code != 503:
                raise
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
