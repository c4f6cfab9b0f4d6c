"""Presets that a user saves, and machines loaded from a preset with changes."""

import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest

import rws_keras
from rws_keras import HelmholtzMachine, PresetError, files
from rws_keras.errors import UserError, reason
from rws_keras.models import preset_files, pretrained
from rws_keras.zoo import publish as publishing

ZOO = Path(__file__).parents[1] / "zoo"
NAME = "digits-sbn-64-32"


def load(preset, load_weights=True, **overrides):
    return HelmholtzMachine.from_preset(preset, load_weights, **overrides)


def make(seed=3, p="sbn", q="sbn"):
    keras.utils.set_random_seed(seed)
    return HelmholtzMachine.from_sizes(9, [5, 3], p=p, q=q, seed=seed, name="mine")


def trained(x, seed=3):
    machine = make(seed)
    objective = rws_keras.objectives.ReweightedWakeSleep(num_particles=3)
    machine.compile(keras.optimizers.Adam(), objective, jit_compile=False)
    machine.fit(x, batch_size=8, epochs=1, verbose=0)
    return machine


def weights(machine):
    return [array for layer in machine.p_layers + machine.q_layers for array in layer.get_weights()]


def assert_same_weights(first, second, same=True):
    pairs = list(zip(weights(first), weights(second), strict=True))
    assert all(np.array_equal(*pair) for pair in pairs) == same


def keys(path):
    """The arrays of a weights file."""
    import h5py

    found = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
    return sorted(found)


# Saving.


@pytest.mark.parametrize("p", ["sbn", "dsbn", "arsbn", "nade"])
def test_a_saved_machine_is_the_same_bit_for_bit(tmp_path, binary, p):
    machine = make(p=p, q=p)
    again = load(machine.save_to_preset(tmp_path / "mine"))
    assert again.get_config() == machine.get_config()
    assert_same_weights(again, machine)
    estimates = [each.log_likelihood(binary(6, 9), 20, seed=1) for each in (machine, again)]
    np.testing.assert_array_equal(*(each.log_likelihood.numpy() for each in estimates))


def test_training_is_left_out(tmp_path, binary):
    machine = trained(binary(32, 9))
    folder = machine.save_to_preset(tmp_path / "trained")
    fresh = make().save_to_preset(tmp_path / "fresh")
    assert keys(folder / preset_files.WEIGHTS) == keys(fresh / preset_files.WEIGHTS)
    assert "Adam" not in (folder / preset_files.CONFIG).read_text()
    assert_same_weights(load(folder), machine)
    # The machine itself goes on as it was.
    assert machine.optimizer.iterations.numpy() == 4


def test_the_noise_goes_on_where_it_was(tmp_path, binary):
    """Its state is part of the machine: what is drawn next is the same."""
    machine = trained(binary(32, 9))
    states = ({}, {}, {})
    loaded = load(machine.save_to_preset(tmp_path / "trained"))
    for each, state in zip((machine, loaded, make()), states, strict=True):
        each.save_own_variables(state)
    assert {key: np.asarray(value).tolist() for key, value in states[0].items()} == {
        key: np.asarray(value).tolist() for key, value in states[1].items()
    }
    assert any(np.any(np.asarray(states[0][key]) != states[2][key]) for key in states[0])


def test_what_is_written_of_it(tmp_path):
    machine = make()
    folder = pretrained.save(machine, tmp_path / "a" / "v1.2 of mine", {"note": "my own"})
    about = json.loads((folder / "preset.json").read_text())
    files = about.pop("files")
    assert about == {
        "format": 1,
        "name": "v1.2 of mine",
        "visible_units": 9,
        "latent_units": [5, 3],
        "num_parameters": machine.count_params(),
        "rws_keras": rws_keras.__version__,
        "note": "my own",
    }
    assert set(files) == {"config.json", "model.weights.h5"}
    for name, entry in files.items():
        assert entry["size"] == (folder / name).stat().st_size
        assert entry["sha256"] == preset_files.sha256(folder / name)
    # Nothing is left beside it, and others may read it as they may any new folder.
    assert os.listdir(tmp_path / "a") == [folder.name]
    (tmp_path / "new").mkdir()
    assert folder.stat().st_mode == (tmp_path / "new").stat().st_mode


def test_paths_of_all_kinds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("relative", "~/home", tmp_path / "absolute", "trailing/"):
        load(make().save_to_preset(path))
    load("~/home")
    assert sorted(os.listdir(tmp_path)) == ["absolute", "home", "relative", "trailing"]


def test_a_preset_is_replaced(tmp_path):
    first, second = make(3), make(4)
    first.save_to_preset(tmp_path / "mine")
    second.save_to_preset(tmp_path / "mine")
    assert_same_weights(load(tmp_path / "mine"), second)
    (tmp_path / "empty").mkdir()
    load(first.save_to_preset(tmp_path / "empty"))
    assert sorted(os.listdir(tmp_path)) == ["empty", "mine"]


def test_anything_else_is_not_replaced(tmp_path):
    machine = make()
    (tmp_path / "file").write_text("text")
    with pytest.raises(PresetError, match="is a file"):
        machine.save_to_preset(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("text")
    with pytest.raises(PresetError, match=r"not belong to a preset: thesis\.tex"):
        machine.save_to_preset(tmp_path / "folder")
    machine.save_to_preset(tmp_path / "mine")
    (tmp_path / "mine" / ".git").mkdir()
    with pytest.raises(PresetError, match=r"not belong to a preset: \.git"):
        machine.save_to_preset(tmp_path / "mine")
    assert (tmp_path / "file").read_text() == "text"
    assert os.listdir(tmp_path / "folder") == ["thesis.tex"]
    assert_same_weights(load(tmp_path / "mine"), machine)


@pytest.mark.parametrize("step", ["_sync", "rename"])
def test_a_failure_leaves_the_old_preset(tmp_path, monkeypatch, step):
    first = make(3)
    first.save_to_preset(tmp_path / "mine")
    rename = Path.rename

    def fail(path, to=None):
        if step == "rename" and path.name != ".partial-mine":
            return rename(path, to)
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files if step == "_sync" else Path, step, fail)
        with pytest.raises(UserError, match="no space"):
            make(4).save_to_preset(tmp_path / "mine")
    assert_same_weights(load(tmp_path / "mine"), first)
    assert os.listdir(tmp_path) == ["mine"]


def test_what_is_written_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    """The files and their names: a power cut after the renaming finds a whole preset."""
    events = []
    sync, rename = files._sync, Path.rename
    monkeypatch.setattr(files, "_sync", lambda path: [events.append(path.name), sync(path)])
    monkeypatch.setattr(
        Path, "rename", lambda path, to: [events.append("rename"), rename(path, to)]
    )
    make().save_to_preset(tmp_path / "mine")
    renaming = events.index("rename")
    files_and_folder = {"config.json", "model.weights.h5", "preset.json", ".partial-mine"}
    assert files_and_folder <= set(events[:renaming])
    assert events[renaming:] == ["rename", tmp_path.name]


def test_without_a_card(tmp_path):
    folder = make().save_to_preset(tmp_path / "mine")
    card = publishing.card(folder)
    assert "has no card" in card
    assert "5-3" in card
    assert publishing.verify(folder).endswith("as listed, no card")
    with pytest.raises(PresetError, match="saved, but not published"):
        publishing.verify(folder, measure=True)
    with pytest.raises(PresetError, match="mine was saved, but not published"):
        publishing.write_index(tmp_path)
    assert publishing.card(ZOO / NAME) == (ZOO / NAME / "README.md").read_text()


# Loading with changes.


def test_fresh_weights(tmp_path):
    machine = make()
    folder = machine.save_to_preset(tmp_path / "mine")
    first, second = load(folder, load_weights=False), load(folder, load_weights=False)
    for fresh in (first, second):
        assert_same_weights(fresh, machine, same=False)
        assert fresh.get_config() == machine.get_config()
    assert_same_weights(first, second, same=False)


def test_another_name_and_seed():
    plain, changed = load(NAME), load(NAME, seed=7, name="other")
    assert_same_weights(plain, changed)
    assert (changed.seed, changed.name) == (7, "other")
    assert plain.name != "other"


@pytest.mark.slow
@pytest.mark.parametrize("load_weights", [False, True])
def test_another_seed_seeds_the_noise(binary, load_weights):
    """The weights hold the noise's state, and must not undo the seed."""

    def trained_on(seed):
        machine = load(NAME, load_weights, seed=seed)
        machine.set_weights([np.full_like(array, 0.1) for array in machine.get_weights()])
        objective = rws_keras.objectives.ReweightedWakeSleep(num_particles=2)
        machine.compile(keras.optimizers.SGD(0.1), objective, jit_compile=False)
        machine.fit(binary(16, 64), batch_size=16, epochs=1, verbose=0, shuffle=False)
        return machine

    assert_same_weights(trained_on(7), trained_on(7))
    assert_same_weights(trained_on(7), trained_on(8), same=False)


def test_other_layers_without_the_weights():
    keras.utils.set_random_seed(0)
    p_layers = [rws_keras.layers.SBN(64), rws_keras.layers.DSBN(10), rws_keras.layers.SBN(5)]
    q_layers = [rws_keras.layers.SBN(10), rws_keras.layers.NADE(5, hidden_units=4)]
    machine = load(NAME, load_weights=False, p_layers=p_layers, q_layers=q_layers)
    assert machine.latent_units == [10, 5]
    assert isinstance(machine.q_layers[1], rws_keras.layers.NADE)
    assert machine.p_layers[1] is p_layers[1]


@pytest.mark.parametrize(
    ("load_weights", "overrides", "message"),
    [
        (True, {"sed": 1}, "`sed`.*cannot be replaced. Allowed: .*seed"),
        (True, {"dtype": "float64"}, "`dtype`.*Allowed: name, seed"),
        (True, {"p_layers": []}, "`p_layers`.*load_weights=False.*Allowed: name, seed"),
        (False, {"dtype": "float64"}, "`dtype`.*Allowed: name, seed, .*schema, p_layers, q_layers"),
        (False, {"p_layers": []}, "P layers"),
    ],
)
def test_overrides_that_cannot_be_are_told(load_weights, overrides, message):
    with pytest.raises(UserError, match=message):
        load(NAME, load_weights, **overrides)


def test_the_class_is_checked():
    class Other(HelmholtzMachine):
        pass

    with pytest.raises(PresetError, match="a HelmholtzMachine, not a Other"):
        pretrained.load(Other, NAME)


@pytest.mark.parametrize("field", ["name", "visible_units", "latent_units", "num_parameters"])
def test_incomplete_metadata_are_told(tmp_path, field):
    folder = make().save_to_preset(tmp_path / "mine")
    about = json.loads((folder / "preset.json").read_text())
    del about[field]
    (folder / "preset.json").write_text(json.dumps(about))
    with pytest.raises(PresetError, match=f"damaged: it must have .*{field}"):
        load(folder)


# Whatever a damaged file makes a library raise.


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  The end.\n"), "The end"),
        (ValueError(), "ValueError"),
        (AssertionError("  \n "), "AssertionError"),
        (KeyError("p_layers"), "KeyError: 'p_layers'"),
    ],
)
def test_the_reason_of_an_error(error, expected):
    assert reason(error) == expected


@keras.saving.register_keras_serializable(package="tests")
class Silent(HelmholtzMachine):
    """Fails without a word, as an assertion in some library may."""

    @classmethod
    def from_config(cls, config):
        raise AssertionError


def test_an_error_without_a_message_is_told(tmp_path):
    folder = make().save_to_preset(tmp_path / "mine")
    config = {"module": None, "class_name": "Silent", "config": {}}
    files.write_json(folder / "config.json", {**config, "registered_name": "tests>Silent"})
    preset_files.write_metadata(folder, preset_files.read_metadata(folder / "preset.json"))
    with pytest.raises(PresetError, match="does not hold a machine: AssertionError"):
        load(folder)
