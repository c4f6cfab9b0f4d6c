"""Runs that begin with the weights of a preset."""

import numpy as np
import pytest
from exact import tiny_machine

from rws_keras import HelmholtzMachine, datasets, layers
from rws_keras.errors import UserError
from rws_keras.models.preset_files import UnknownPresetError
from rws_keras.training import recipe
from rws_keras.training.initial_weights import copy_weights

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


def test_machines_that_do_not_fit_keep_their_weights():
    machine = tiny_machine("sbn", "sbn")
    before = machine.get_weights()
    other = HelmholtzMachine.from_sizes(4, [3, 3])
    with pytest.raises(UserError, match=r"layers of \[4, 3, 3\] units.* has \[4, 3, 2\]"):
        copy_weights(other, machine)
    # The kernel of a DSBN begins at its hidden layer. In P it is reached after others.
    other = HelmholtzMachine.from_sizes(
        4, [3, 2], p=["sbn", {"family": "dsbn", "hidden_units": 7}], q="sbn", prior="sbn"
    )
    with pytest.raises(UserError, match=r"do not fit: '.*kernel' has shape \(2, 3\).*\(7, 3\)"):
        copy_weights(other, machine)
    other = HelmholtzMachine.from_sizes(4, [3, 2], prior=Even)
    with pytest.raises(UserError, match=r"\(SBN\) has no weights in common with the Even"):
        copy_weights(other, machine)
    for old, new in zip(before, machine.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_bad_presets_are_refused_before_the_run():
    with pytest.raises(UnknownPresetError, match="digits-sbn-64-33"):
        make(initial_weights="digits-sbn-64-33")
    with pytest.raises(UserError, match=r"layers of \[64, 64, 32\] units.* has \[64, 10\]"):
        make(model={"latents": [10]})


def test_paths_are_not_told_to_others(tmp_path):
    HelmholtzMachine.from_preset("digits-sbn-64-32").save_to_preset(tmp_path / "own")
    made = recipe.validated({**RECIPE, "initial_weights": str(tmp_path / "own")}, "The recipe")
    assert made.without_paths()["initial_weights"] == "own"
    assert recipe.validated(RECIPE, "").without_paths()["initial_weights"] == "digits-sbn-64-32"
