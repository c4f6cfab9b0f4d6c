"""`~` in the paths that users give, where no shell has replaced it."""

import inspect
import os
import shutil
import typing
from pathlib import Path

import numpy as np
import pytest
from zoo_server import NAME, ZOO, serving_a_zoo

import rws_keras
from rws_keras import HelmholtzMachine, callbacks, datasets
from rws_keras.callbacks.images import write_png
from rws_keras.cli.program import app
from rws_keras.errors import UserError
from rws_keras.files import expanded
from rws_keras.models import pretrained
from rws_keras.serving.export import export
from rws_keras.serving.model_config import parse_config
from rws_keras.serving.repository import Repository
from rws_keras.serving.score_file import ScoreFile
from rws_keras.training import fitting, recipe, sources
from rws_keras.training.run import Run, find


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's home directory; the working directory is another."""
    for name in ("home", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield tmp_path / "home"
    assert not os.listdir(tmp_path / "elsewhere")


def test_only_a_tilde_at_the_start_stands_for_the_home_directory(home):
    assert expanded("~/a") == expanded(Path("~", "a")) == home / "a"
    assert expanded("~") == home
    for path in ("a", "/a", "a/~", "./~/a", "~nobody-of-that-name/a", "~$x.csv"):
        assert expanded(path) == Path(path)


def test_every_path_of_the_command_line_is_expanded(home):
    found = []
    for group in (app, *(group.typer_instance for group in app.registered_groups)):
        for command in group.registered_commands:
            hints = typing.get_type_hints(command.callback, include_extras=True)
            for name in inspect.signature(command.callback).parameters:
                hint, information = hints[name].__origin__, hints[name].__metadata__[0]
                if hint is Path or Path in typing.get_args(hint):
                    assert information.parser("~/a") == home / "a", (command.callback, name)
                    found.append(name)
    assert {"to", "models", "model_config_file", "run_dir", "paths", "runs", "zoo"} <= set(found)
    with pytest.raises(UserError, match=f"no directory {home}/models"):
        app(["serve", "--models=~/models"], standalone_mode=False)


def test_presets_below_the_home_directory(home, tmp_path, monkeypatch):
    shutil.copytree(ZOO, home / "zoo")
    monkeypatch.setenv("RWS_KERAS_ZOO", "~/zoo")
    assert pretrained.zoo_address() == pretrained.zoo_address("~/zoo/") == str(home / "zoo")
    assert rws_keras.presets() == rws_keras.presets("~/zoo")
    assert pretrained.locate(NAME) == pretrained.locate(f"~/zoo/{NAME}") == home / "zoo" / NAME
    machine = HelmholtzMachine.from_preset(f"~/zoo/{NAME}")
    assert machine.save_to_preset("~/mine") == home / "mine"
    machine.export("~/exported", verbose=False, num_particles=2, fast=2, accurate=2)
    assert (home / "exported" / "saved_model.pb").exists()
    with serving_a_zoo(tmp_path, monkeypatch):
        monkeypatch.setenv("KERAS_HOME", "~/cache")
        assert pretrained.locate(NAME).is_relative_to(home / "cache")


def test_models_below_the_home_directory(home):
    (home / "preset").symlink_to(ZOO / NAME)
    version = export("~/preset", "~/models", num_particles=2, fast=2, accurate=2)
    assert version == home / "models" / NAME / "1"
    model = f'name: "m" base_path: "~/models/{NAME}" model_platform: "tensorflow"'
    text = f"model_config_list {{ config {{ {model} }} }}"
    repository = Repository(lambda: parse_config(text), lambda path: None)
    repository.update()
    assert repository.serving() == {"m": [1]}


def test_files_and_runs_below_the_home_directory(home):
    np.save(home / "x.npy", np.eye(3))
    assert datasets.read_rows("~/x.npy").x.shape == (3, 3)
    assert ScoreFile("~/scores.csv").path == home / "scores.csv"
    assert write_png("~/a.png", np.zeros([2, 2, 1], np.uint8)) == home / "a.png"
    machine = HelmholtzMachine.from_sizes(64, [3])
    assert fitting.draw_samples(machine, "~/b.png", 2, 0, (8, 8)) == home / "b.png"
    machine.save("~/own.keras")
    assert sources.find("~/own.keras").machine().latent_units == [3]
    assert callbacks.TensorBoard("~/logs").log_dir == str(home / "logs")
    assert callbacks.TensorBoard("gs://bucket/logs").log_dir == "gs://bucket/logs"
    (home / "own.json").write_text('{"dataset": "digits", "epochs": 1, "model": {"latents": [5]}}')
    run = Run.create("~/runs/own", recipe.load("~/own.json")[1])
    assert run.path == home / "runs" / "own"
    assert [each.path for each in find("~/runs").runs] == [run.path]
    assert {"own.keras", "a.png", "b.png"} <= set(os.listdir(home))
