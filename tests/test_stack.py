"""A stack is a chain: its product of conditional distributions, in one order stated once."""

import numpy as np
import pytest
import tensorflow as tf
from exact import all_vectors, randomize, tiny_machine

from rws_keras import HelmholtzMachine, layers
from rws_keras.errors import UserError
from rws_keras.layers.noise import uniform_noise


@pytest.fixture
def machine():
    return tiny_machine("sbn", "nade", seed=3)


def test_the_states_of_a_sample_have_its_log_probabilities(machine):
    x = all_vectors(4)[:6]
    for stack, given in [(machine.p, None), (machine.q, x)]:
        noise = uniform_noise(stack.noise_shapes(6), 0)
        states, log_probs = stack.sample(noise, given)
        assert [state.shape for state in states] == [[6, units] for units in stack.units]
        for ours, theirs in zip(log_probs, stack.log_prob(states, given), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_each_layer_is_given_its_neighbour(machine):
    x = all_vectors(4)[:3]
    p_0, p_1, p_2 = machine.p_layers
    q_1, q_2 = machine.q_layers
    h_1, h_2 = np.float32([[1, 0, 1]] * 3), np.float32([[0, 1]] * 3)
    by_hand = [
        p_0.distribution(h_1).log_prob(x),
        p_1.distribution(h_2).log_prob(h_1),
        p_2.distribution().log_prob(h_2),
    ]
    for ours, theirs in zip(machine.p.log_prob([x, h_1, h_2]), by_hand, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    by_hand = [q_1.distribution(x).log_prob(h_1), q_2.distribution(h_1).log_prob(h_2)]
    for ours, theirs in zip(machine.q.log_prob([h_1, h_2], given=x), by_hand, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_slice_is_the_upper_part(machine):
    noise = uniform_noise(machine.p.noise_shapes(5), 0)
    states, log_probs = machine.p.sample(noise)
    upper_states, upper_log_probs = machine.p[1:].sample(noise[1:])
    for ours, theirs in zip(
        upper_states + upper_log_probs, states[1:] + log_probs[1:], strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_layers_are_named_after_their_units():
    machine = HelmholtzMachine(
        [layers.SBN(6), layers.NADE(4), layers.SBN(3)], [layers.DSBN(4), layers.SBN(3)]
    )
    names = [layer.name for layer in (*machine.p_layers, *machine.q_layers)]
    assert names == ["p_0", "p_1", "p_2", "q_1", "q_2"]
    mine = layers.SBN(6, name="pixels")
    machine = HelmholtzMachine([mine, layers.SBN(4)], [layers.SBN(4)])
    assert [layer.name for layer in machine.p_layers] == ["pixels", "p_1"]
    loaded = HelmholtzMachine.from_config(machine.get_config())
    assert [layer.name for layer in loaded.p_layers] == ["pixels", "p_1"]


def test_latents_of_two_kinds_are_refused():
    with pytest.raises(UserError, match="latent layer 1 are real in P and binary in Q"):
        HelmholtzMachine([layers.SBN(4), layers.Gaussian(2)], [layers.SBN(2)])


class Wide(layers.StochasticLayer):
    """Gives one unit more than it says."""

    def _distribution(self, given):
        return layers.FactorizedBernoulli(tf.zeros([1, self.units + 1]))


class Plain(layers.StochasticLayer):
    """Gives a distribution that noise cannot drive."""

    def _distribution(self, given):
        import tensorflow_probability as tfp

        bernoulli = tfp.distributions.Bernoulli(logits=tf.zeros([1, self.units]))
        return tfp.distributions.Independent(bernoulli, 1)


def test_a_layer_that_breaks_the_contract_is_refused_when_the_machine_is_made():
    with pytest.raises(UserError, match=r"'p_0' \(Wide\) must have 4 units.*\[5\]|got \(5,\)"):
        HelmholtzMachine([Wide(4), layers.SBN(2)], [layers.SBN(2)])
    with pytest.raises(
        UserError, match=r"is a Independent, which cannot be sampled from uniform noise"
    ):
        HelmholtzMachine([Plain(4), layers.SBN(2)], [layers.SBN(2)])


def test_families_are_looked_up_in_one_registry():
    from rws_keras.layers import registry

    @layers.register_family("half", label="Half")
    class Half(layers.SBN):
        """An SBN under another name."""

    try:
        machine = HelmholtzMachine.from_sizes(4, [3], p="half", q=Half, prior=layers.SBN(3))
        assert [type(layer).__name__ for layer in machine.p_layers] == ["Half", "SBN"]
        assert type(machine.q_layers[0]) is Half
        assert layers.label("half") == "Half"
        randomize(machine, 0)
    finally:
        del registry.FAMILIES["half"]
    with pytest.raises(UserError, match="Unknown layer family 'half'"):
        layers.get("half", 3)
    with pytest.raises(UserError, match="Did you mean 'hidden_units'"):
        layers.get({"family": "nade", "hiden_units": 3}, 3)
    with pytest.raises(UserError, match="has 3 units, but 4 are needed"):
        layers.get(layers.SBN(3), 4)


@pytest.mark.parametrize("hidden_units", [-3, 0, 2.7, 2.0, True, "3"])
@pytest.mark.parametrize("family", ["dsbn", "nade", "made", "gaussian"])
def test_bad_hidden_units(family, hidden_units):
    with pytest.raises(UserError, match="`hidden_units` must be a positive integer"):
        layers.get({"family": family, "hidden_units": hidden_units}, 3)


@pytest.mark.parametrize("family", [layers.NADE, layers.MADE])
def test_bad_activation(family):
    with pytest.raises(UserError, match="Unknown activation 'softmax'; expected one of "):
        family(3, activation="softmax")


@pytest.mark.parametrize("family", ["arsbn", "nade", "made"])
def test_another_number_of_rows_needs_no_new_trace(family, binary):
    from rws_keras.layers import arsbn, made, nade

    traced = [arsbn._logits_in_order, nade._sample_in_order, nade._logits_by_blocks]
    traced += [made._logits_in_order]
    layer = layers.get(family, 21)
    layer.build((None, 3))

    def use(rows):
        distribution = layer.distribution(binary(rows, 3))
        distribution.log_prob(distribution.sample(seed=0))

    use(2)
    use(3)  # here the number of rows becomes unknown
    before = [function.experimental_get_tracing_count() for function in traced]
    for rows in (4, 5, 9, 1):
        use(rows)
    assert [function.experimental_get_tracing_count() for function in traced] == before
    # A layer of another size has a trace of its own, with static sizes.
    other = layers.get(family, 13)
    other.build((None, 3))
    assert other.distribution(binary(2, 3)).sample(seed=0).shape == [2, 13]
