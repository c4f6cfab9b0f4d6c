"""Runs that begin with the weights of a preset."""

import shutil

import keras
import numpy as np
import pytest
from exact import tiny_machine
from rich.console import Console

from rws_keras import HelmholtzMachine, datasets, layers
from rws_keras.errors import UserError
from rws_keras.models.preset_files import UnknownPresetError
from rws_keras.training import fitting, recipe
from rws_keras.training.initial_weights import copy_weights
from rws_keras.training.run import Run

RECIPE = {
    "dataset": "digits",
    "epochs": 1,
    "model": {"latents": [64, 32]},
    "initial_weights": "digits-sbn-64-32",
}


class Even(layers.StochasticLayer):
    """A prior with weights of its own."""

    def _build(self, given_units):
        self.logits = self.add_weight(name="logits", shape=(self.units,))

    def _distribution(self, given):
        return layers.FactorizedBernoulli(self.logits)


def make(**changes):
    made = recipe.validated({**RECIPE, **changes}, "The recipe")
    return made.make_machine(datasets.load("digits"))


def test_a_machine_of_the_same_families_begins_as_the_preset():
    preset, machine = HelmholtzMachine.from_preset("digits-sbn-64-32"), make()
    for ours, theirs in zip(machine.trainable_variables, preset.trainable_variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_that_the_preset_lacks_are_those_of_the_seed():
    p = [{"family": "pixelcnn", "filters": 4}, "sbn"]
    preset, machine = (
        HelmholtzMachine.from_preset("digits-sbn-64-32"),
        make(model={"latents": [64, 32], "p": p}),
    )
    fresh = make(model={"latents": [64, 32], "p": p}, initial_weights=None)
    x = datasets.load("digits").test[:50]
    for ours, theirs in zip(machine.p_layers[0].weights, fresh.p_layers[0].weights, strict=True):
        same = np.array_equal(ours, theirs)
        assert same == (ours.name not in ("kernel", "bias"))
    # The network's last weights are zero: so far it is the same machine.
    np.testing.assert_allclose(
        *(m.log_likelihood(x, 20, seed=0).log_likelihood for m in (machine, preset)), atol=1e-3
    )


@pytest.mark.parametrize(
    ("sizes", "families", "message"),
    [
        ([3, 3], {}, r"bottom first: \[4, 3, 3\], but \[4, 3, 2\]"),
        ([3, 2], {"missing": "marginalize"}, "`missing`: marginalize, but None"),
        # The kernel of a DSBN begins at its hidden layer, of the same size here. P comes first.
        ([3, 2], {"p": ["sbn", "dsbn"], "q": "sbn", "prior": "sbn"}, r"\(SBN\).* is a DSBN"),
        ([3, 2], {"prior": "gaussian", "q": ["sbn", "gaussian"]}, r"\(SBN\).* is a Gaussian"),
        ([3, 2], {"prior": Even}, r"\(SBN\).* is a Even or has other arguments"),
    ],
)
def test_machines_that_do_not_fit_keep_their_weights(sizes, families, message):
    machine = tiny_machine("sbn", "sbn")
    before = machine.get_weights()
    with pytest.raises(UserError, match=message):
        copy_weights(HelmholtzMachine.from_sizes(4, sizes, **families), machine)
    for old, new in zip(before, machine.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_layers_with_other_arguments_share_what_means_the_same():
    relu, sigmoid = ({"family": "nade", "hidden_units": 3, "activation": a} for a in
                     ("relu", "sigmoid"))  # fmt: skip
    old, new = (HelmholtzMachine.from_sizes(4, [2], p=p, prior="sbn") for p in (relu, sigmoid))
    copy_weights(old, new)
    for ours, theirs in zip(new.p_layers[0].weights, old.p_layers[0].weights, strict=True):
        copied = ours.name in ("kernel", "bias")
        assert copied == np.array_equal(ours, theirs) or not np.any(theirs)
    new = HelmholtzMachine.from_sizes(4, [2], p=relu, prior="sbn")
    copy_weights(old, new)
    for ours, theirs in zip(new.p_layers[0].weights, old.p_layers[0].weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_bad_presets_are_refused_before_the_run():
    with pytest.raises(UnknownPresetError, match="digits-sbn-64-33"):
        make(initial_weights="digits-sbn-64-33")
    with pytest.raises(UserError, match=r"\[64, 64, 32\], but \[64, 10\]"):
        make(model={"latents": [10]})


def test_paths_are_absolute_and_not_told_to_others(tmp_path, monkeypatch):
    HelmholtzMachine.from_preset("digits-sbn-64-32").save_to_preset(tmp_path / "own")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    made = recipe.validated({**RECIPE, "initial_weights": "../own"}, "The recipe")
    monkeypatch.chdir(tmp_path)
    made.make_machine(datasets.load("digits"))
    shutil.rmtree(tmp_path / "own")
    assert made.without_paths()["initial_weights"] == "own"
    for name in ("digits-sbn-64-32", "hf://someone/digits"):
        named = recipe.validated({**RECIPE, "initial_weights": name}, "The recipe")
        assert named.without_paths()["initial_weights"] == name


def test_a_run_goes_on_without_the_preset(tmp_path):
    HelmholtzMachine.from_preset("digits-sbn-64-32").save_to_preset(tmp_path / "own")
    made = recipe.validated(
        {**RECIPE, "initial_weights": str(tmp_path / "own"), "epochs": 2}, "The recipe"
    )
    run = Run.create(tmp_path / "run", made)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    quiet = Console(quiet=True)
    fitting.train(run, "tiny", quiet, callbacks=[Stop()])
    shutil.rmtree(tmp_path / "own")
    fitting.train(Run.open(tmp_path / "run"), "tiny", quiet, callbacks=[])
    assert run.metrics["epoch"] == 2
