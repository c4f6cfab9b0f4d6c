"""Dtype policies: the likelihood is float32, or the policy is refused by its name."""

import keras
import numpy as np
import pytest

from rws_keras import HelmholtzMachine, layers
from rws_keras.errors import UserError
from rws_keras.objectives import ReweightedWakeSleep


@pytest.fixture(autouse=True)
def default_policy():
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


class Deep(layers.StochasticLayer):
    """Holds Keras layers, which follow the policy."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.dense = keras.layers.Dense(units)

    def _distribution(self, given):
        self.seen = self.dense(given)
        return layers.FactorizedBernoulli(self.seen)


MACHINES = {
    "sbn": lambda: HelmholtzMachine.from_sizes(8, [5, 3], seed=0),
    "nade": lambda: HelmholtzMachine.from_sizes(8, [5], p="nade", q="arsbn", seed=0),
    "gaussian": lambda: HelmholtzMachine.from_sizes(
        8, [5], p="dsbn", q="gaussian", prior="gaussian", seed=0
    ),
}


def trained(make, x):
    keras.utils.set_random_seed(0)
    machine = make()
    machine.compile("adam", ReweightedWakeSleep(2), num_particles=5, jit_compile=False)
    machine.fit(x, batch_size=5, verbose=0)
    return machine


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", MACHINES)
def test_under_mixed_policies_everything_is_float32(policy, kind, binary):
    x = binary(20, 8)
    expected = trained(MACHINES[kind], x)
    keras.config.set_dtype_policy(policy)
    machine = trained(MACHINES[kind], x)
    scores = machine.predict(x, verbose=0)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_keras_layers_inside_follow_a_mixed_policy(policy, binary, tmp_path):
    x = binary(20, 8)
    keras.config.set_dtype_policy(policy)
    machine = trained(lambda: HelmholtzMachine([Deep(8), layers.SBN(3)], [Deep(3)], seed=0), x)
    layer = machine.p_layers[0]
    distribution = layer.distribution(np.ones([2, 3], np.float32))
    assert layer.seen.dtype == policy.removeprefix("mixed_")
    assert distribution.logits.dtype == np.float32
    assert layer.dense.kernel.dtype == "float32"
    assert machine.predict(x, verbose=0).dtype == np.float32


@pytest.mark.parametrize("policy", ["float64", "float16", "bfloat16"])
def test_other_policies_are_refused_by_name(policy):
    for make in (
        lambda: layers.SBN(4, dtype=policy),
        lambda: ReweightedWakeSleep(2, dtype=policy),
    ):
        with pytest.raises(UserError, match=f"dtype policy '{policy}'"):
            make()
    keras.config.set_dtype_policy(policy)
    for make in (
        *MACHINES.values(),
        lambda: HelmholtzMachine.from_preset("digits-sbn-64-32"),
    ):
        with pytest.raises(UserError, match=f"^[A-Za-z]* does not work with .*'{policy}'"):
            make()


@pytest.mark.parametrize("floatx", ["float64", "float16"])
def test_another_floatx_is_refused_by_name(floatx):
    keras.config.set_floatx(floatx)
    with pytest.raises(UserError, match=f"'{floatx}'"):
        HelmholtzMachine.from_sizes(8, [5])
    # Explicit layers do not help: Keras would round the data.
    with pytest.raises(UserError, match=f"floatx of '{floatx}'"):
        layers.SBN(4, dtype="float32")
