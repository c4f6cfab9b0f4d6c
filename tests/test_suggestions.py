"""Suggestions for names that do not exist."""

import pytest

from rws_keras import datasets
from rws_keras.suggestions import did_you_mean, unknown


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("mnist", datasets.NAMES, "binarized_mnist"),
        ("MNIST", datasets.NAMES, "binarized_mnist"),
        ("digit", ["digits-k1", "digits", "mnist-sbn-200"], "digits"),
        ("adm", ["adadelta", "adam", "adamw", "sgd"], "adam"),
        ("adamoptimizer", ["sgd", "adam", "adamw"], "adam"),
        ("epoch", ["epochs", "seed"], "epochs"),
        ("nipz", datasets.NAMES, "nips"),
        (3, ["adam"], None),
        ("q", ["q_optimizer", "sequence"], None),
        ("xyz", datasets.NAMES, None),
    ],
)
def test_the_nearest_name(name, known, expected):
    assert did_you_mean(name, known) == (f" Did you mean '{expected}'?" if expected else "")


def test_an_unknown_data_set():
    with pytest.raises(ValueError, match=r"Unknown data set 'mnist'; .*mean 'binarized_mnist'\?"):
        datasets.load("mnist")
    assert unknown("fruit", "pear", ["fig"]) == "Unknown fruit 'pear'; expected one of fig."
