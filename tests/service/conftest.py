"""A server of the digits, exported small, and a second version of it that scores otherwise."""

import shutil

import pytest
from server_process import ServerProcess
from wire import PRESET, SMALL

from rws_keras import HelmholtzMachine
from rws_keras.models.scorer import Scorer
from rws_keras.serving.export import export


@pytest.fixture(scope="session")
def x():
    return HelmholtzMachine.from_preset(PRESET).sample(6, seed=1).x.numpy()


@pytest.fixture(scope="session")
def scorers():
    """The functions of versions 1 and 2, in Python."""
    machine = HelmholtzMachine.from_preset(PRESET)
    return {seed: Scorer(machine, **SMALL, seed=seed).signatures() for seed in (1, 2)}


@pytest.fixture(scope="session")
def versions(tmp_path_factory):
    """Two versions that give different scores."""
    models = tmp_path_factory.mktemp("exported")
    for seed in (1, 2):
        export(PRESET, models, "digits", **SMALL, seed=seed)
    return models / "digits"


@pytest.fixture(scope="session")
def server(versions, tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(versions / "1", models / "digits" / "1")
    server = ServerProcess("--models", models, log=tmp_path_factory.mktemp("log") / "log")
    yield server
    assert server.stop() == 0, server.log


@pytest.fixture
def own_server(versions, tmp_path):
    """Starts servers of version 1 with options of the test's own."""
    shutil.copytree(versions / "1", tmp_path / "models" / "digits" / "1")
    started = []

    def start(*options):
        options = ("--models", tmp_path / "models", *options)
        started.append(ServerProcess(*options, log=tmp_path / "log"))
        return started[-1]

    yield start
    for each in started:
        each.kill()
