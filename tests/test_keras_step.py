"""Between the loss and the weights `fit` does what Keras's own step does."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exact import FAMILIES
from marks import slow_except

from rws_keras import HelmholtzMachine, Particles, layers
from rws_keras.errors import UserError
from rws_keras.objectives import Objective, ReweightedWakeSleep

jit = pytest.mark.parametrize("jit_compile", slow_except([False], [False, True]))


@pytest.fixture
def x(binary):
    return binary(40, 16)


def make(optimizer, jit_compile=False, q_optimizer=None, **arguments):
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(16, [6, 4], seed=0, **arguments)
    machine.compile(
        optimizer, ReweightedWakeSleep(2), q_optimizer=q_optimizer, jit_compile=jit_compile
    )
    return machine


def step(machine, x, steps=1):
    """The weights after steps on all data, each with noise of its own."""
    machine.fit(np.tile(x, [steps, 1]), batch_size=len(x), shuffle=False, verbose=0)
    return machine.get_weights()


def first_gradients(machine, x):
    """The gradients of the step that `fit` would make next."""
    noise = machine.objective.noise(machine, len(x), tf.identity(machine.noise_seed))
    return machine.objective.gradients(machine, tf.constant(x), noise)[0]


def assert_close(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)


def expected(x, update):
    """Weights after one update of the machine that `make` makes: `update(weights, gradients)`."""
    machine = make("sgd")
    weights = [variable.numpy() for variable in machine.trainable_variables]
    return update(weights, [gradient.numpy() for gradient in first_gradients(machine, x)])


def descend(weights, gradients, rate=1.0):
    return [w - rate * g for w, g in zip(weights, gradients, strict=True)]


def clip_norm(weights, gradients):
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
    assert norm > 0.1
    return descend(weights, [g * 0.1 / norm for g in gradients])


SGD = keras.optimizers.SGD
OPTIMIZERS = {
    "plain": (lambda: SGD(1.0), descend),
    "scaled by a wrapper": (lambda: keras.optimizers.LossScaleOptimizer(SGD(1.0)), descend),
    "scaled by a factor": (lambda: SGD(1.0, loss_scale_factor=1024.0), descend),
    "clipped by the norm": (lambda: SGD(1.0, global_clipnorm=0.1), clip_norm),
    "clipped by value": (
        lambda: SGD(1.0, clipvalue=0.01),
        lambda w, g: descend(w, [np.clip(each, -0.01, 0.01) for each in g]),
    ),
    "decayed": (
        lambda: SGD(1.0, weight_decay=0.1),
        lambda w, g: descend([each * 0.9 for each in w], g),
    ),
    "accumulated": (lambda: SGD(1.0, gradient_accumulation_steps=2), lambda w, g: w),
}


@jit
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizers_options_act_as_in_keras(optimizer, jit_compile, x):
    optimizer, update = OPTIMIZERS[optimizer]
    assert_close(step(make(optimizer(), jit_compile), x), expected(x, update))


def test_accumulated_gradients_are_their_mean(x):
    machine = make("sgd")
    before, first = machine.get_weights(), first_gradients(machine, x)
    machine.noise_seed.assign_add([0, 1])
    both = [(a + b).numpy() / 2 for a, b in zip(first, first_gradients(machine, x), strict=True)]
    ours = step(make(SGD(1.0, gradient_accumulation_steps=2)), x, steps=2)
    assert_close(ours, descend(before, both))


def test_averaged_weights_are_there_after_fit(x):
    plain = make(SGD(1.0))
    first, second = step(plain, x), step(plain, x)
    ours = step(make(SGD(1.0, use_ema=True, ema_momentum=0.75)), x, steps=2)
    pairs = zip(first, second, strict=True)
    assert_close(ours, [0.75 * one + 0.25 * two for one, two in pairs])


def test_a_scale_of_the_loss_goes_with_two_optimizers(x):
    rates = [1.0] * 5 + [0.5] * 4  # p_0's and p_1's kernels and biases, the prior's; then Q's

    def update(weights, gradients):
        triples = zip(weights, gradients, rates, strict=True)
        return [w - rate * g for w, g, rate in triples]

    scaled = [SGD(rate, loss_scale_factor=64.0) for rate in (1.0, 0.5)]
    assert_close(step(make(scaled[0], q_optimizer=scaled[1]), x), expected(x, update))
    for wrong in (SGD(0.5), keras.optimizers.LossScaleOptimizer(SGD(0.5))):
        with pytest.raises(UserError, match="scale"):
            make(SGD(1.0, loss_scale_factor=64.0), q_optimizer=wrong)


@jit
def test_regularizers_are_in_the_gradient(jit_compile, x):
    machine = make(SGD(0.1), jit_compile)
    machine.p_layers[0].kernel.regularizer = keras.regularizers.L2(3.0)
    before = [variable.numpy() for variable in machine.trainable_variables]
    plain = expected(x, lambda w, g: descend(w, g, rate=0.1))
    plain[0] = plain[0] - 0.1 * 2 * 3.0 * before[0]  # the gradient of 3 Σ w²
    assert_close(step(machine, x), plain)
    # From the next `fit` on another one holds, without a new call of `compile`.
    machine.p_layers[0].kernel.regularizer = keras.regularizers.L2(100.0)
    assert np.abs(step(machine, x)[0]).max() > 2


@jit
def test_constraints_hold_after_a_step(jit_compile, x):
    machine = make(SGD(1.0), jit_compile)
    machine.q_layers[1].kernel.constraint = keras.constraints.NonNeg()
    step(machine, x)
    assert machine.q_layers[1].kernel.numpy().min() == 0
    assert machine.q_layers[0].kernel.numpy().min() < 0


def test_regularizers_and_constraints_are_arguments_of_every_family(tmp_path):
    arguments = {
        "kernel_regularizer": "l2",
        "bias_regularizer": keras.regularizers.L1(0.5),
        "kernel_constraint": "non_neg",
        "bias_constraint": keras.constraints.MaxNorm(2.0),
    }
    for name in (*FAMILIES, "gaussian"):
        family = {"family": name, **arguments}
        q = family if name != "gaussian" else {**family, "hidden_units": 5}
        machine = HelmholtzMachine.from_sizes(6, [4], p=family, q=q)
        machine.save(tmp_path / f"{name}.keras")
        for each in (machine, keras.saving.load_model(tmp_path / f"{name}.keras")):
            for variable in each.variables:
                is_bias = variable.name.endswith("bias")
                kinds = (type(variable.regularizer), type(variable.constraint))
                assert kinds == (
                    (keras.regularizers.L1, keras.constraints.MaxNorm)
                    if is_bias
                    else (keras.regularizers.L2, keras.constraints.NonNeg)
                )
            assert len(each.losses) == len(each.variables)


@jit
@pytest.mark.parametrize("frozen", ["p_0", "q_1"])
def test_frozen_layers_stay_as_they_are(frozen, jit_compile, x):
    machine = make(SGD(1.0), jit_compile)
    step(machine, x)
    layer = machine.get_layer(frozen)
    layer.trainable = False  # after `fit`: it takes effect with the next one
    before, others = [v.numpy() for v in layer.variables], machine.get_weights()
    after = step(machine, x)
    for old, variable in zip(before, layer.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    changed = sum(not np.array_equal(a, b) for a, b in zip(others, after, strict=True))
    assert changed == 9 - len(layer.variables)
    machine.trainable = False
    with pytest.warns(UserWarning, match="no trainable weights"):
        step(machine, x)
    for ours, theirs in zip(after, machine.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_loop_of_ones_own_follows_what_has_changed(x):
    machine, data = make(SGD(1.0)), tf.constant(x)
    machine.train_step(data)
    machine.p_layers[0].trainable = False
    before = machine.p_layers[0].kernel.numpy()
    machine.train_step(data)
    np.testing.assert_array_equal(machine.p_layers[0].kernel.numpy(), before)


class Masked(keras.constraints.Constraint):
    """Holds an array."""

    def __init__(self, mask):
        self.mask = mask

    def __call__(self, w):
        return w * self.mask


def test_another_function_or_another_array_takes_effect(x):
    machine = make(SGD(0.1))
    kernel = machine.q_layers[0].kernel
    kernel.constraint = lambda w: w
    step(machine, x)
    kernel.constraint = lambda w: w * 0.0
    step(machine, x)
    assert np.abs(kernel.numpy()).max() == 0
    for corner in (1.0, 0.0):
        mask = np.ones([16, 6], np.float32)
        mask[8, 3] = corner
        kernel.constraint = Masked(mask)
        step(machine, x)
        assert (kernel.numpy() != 0).sum() == mask.sum()


@pytest.mark.parametrize("changed", ["frozen", "thawed"])
def test_an_optimizer_that_cannot_follow_says_so(changed, x):
    for optimizer, q_optimizer in (
        (SGD(0.1, use_ema=True), None),
        (keras.optimizers.LossScaleOptimizer(SGD(0.1, use_ema=True)), None),
        (SGD(0.1), SGD(0.1)),
    ):
        machine = make(optimizer, q_optimizer=q_optimizer)
        layer = machine.q_layers[1]
        if changed == "thawed":
            layer.trainable = False
            machine.compile("sgd", ReweightedWakeSleep(2), jit_compile=False)
        step(machine, x)
        layer.trainable = changed == "thawed"
        with pytest.raises(UserError, match="call `compile` again"):
            step(machine, x)
        machine.compile(SGD(0.1), ReweightedWakeSleep(2), jit_compile=False)
        step(machine, x)


class Adding(layers.SBN):
    """Adds a loss of its own each time that it is used."""

    def _distribution(self, given):
        distribution = super()._distribution(given)
        self.add_loss(tf.reduce_mean(distribution.logits))
        return distribution


class Inside(layers.StochasticLayer):
    """Holds a Keras layer whose activity costs."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.dense = keras.layers.Dense(units, activity_regularizer=keras.regularizers.L1(1.0))

    def _distribution(self, given):
        return layers.FactorizedBernoulli(self.dense(given))


class Nothing(Objective):
    """No loss of its own, but two uses of Q, at different data."""

    def loss(self, machine, x, draws):
        latents = draws.latents
        machine.log_q(1.0 - x, latents)
        particles = Particles(latents, machine.log_p(x, latents), machine.log_q(x, latents))
        return tf.zeros([]), particles


@jit
@pytest.mark.parametrize("family", [Adding, Inside])
def test_what_layers_add_counts_each_time_they_are_used(family, jit_compile, x):
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(16, [4], q=family, seed=0)
    machine.compile(SGD(1.0), Nothing(2), jit_compile=jit_compile)
    kernel, bias = (variable.numpy() for variable in machine.q_layers[0].variables)
    logits = [data @ kernel + bias for data in (x, 1 - x)]
    # Adding: the mean of all logits; Inside: Σ |logit| over the size of the batch.
    each = [np.full_like(a, 1 / a.size) if family is Adding else np.sign(a) / 40 for a in logits]
    gradient = x.T @ each[0] + (1 - x).T @ each[1]
    step(machine, x)
    assert_close([machine.q_layers[0].variables[0].numpy()], [kernel - gradient])
    assert machine.losses == []  # nothing is left behind
    machine.sample_posterior(x, 2)
    machine.predict(x, verbose=0)
    assert machine.losses == []


def test_losses_that_would_train_nothing_are_refused(x):
    machine = make("sgd")
    with pytest.raises(UserError, match="added to the machine itself would have no effect"):
        machine.add_loss(tf.reduce_sum(machine.p_layers[0].kernel.value))
    with pytest.raises(UserError, match=r"outside of `_distribution` has no effect"):
        machine.p_layers[0].add_loss(tf.constant(1.0))
    for refused in (machine, machine.p_layers[0]):
        with pytest.raises(UserError, match="takes no `activity_regularizer`"):
            refused.activity_regularizer = keras.regularizers.L1(1.0)
    with pytest.raises(UserError, match="takes no `activity_regularizer`"):
        layers.SBN(4, activity_regularizer="l2")


class Penalized(HelmholtzMachine):
    """Overrides what Keras adds to the loss."""

    @property
    def losses(self):
        return [tf.reduce_sum(self.p_layers[-1].bias.value)]


def test_an_overridden_list_of_losses_counts(x):
    keras.utils.set_random_seed(0)
    machine = Penalized.from_sizes(16, [6, 4], seed=0)
    machine.compile(SGD(1.0), ReweightedWakeSleep(2), jit_compile=False)
    plain = expected(x, descend)
    plain[4] = plain[4] - 1.0
    assert_close(step(machine, x), plain)


def test_scales_of_the_updates_change_without_a_new_trace(x):
    machine, traced = make(SGD(1.0)), []
    objective, train_step = machine.objective, machine.train_step

    def counting(data):
        traced.append(objective.current_settings)
        return train_step(data)

    machine.train_step = counting
    machine.make_train_function(force=True)
    start = machine.get_weights()
    moved = []
    for scale in (1.0, 0.5, 0.25, 2.0):
        machine.set_weights(start)
        machine.noise_seed.assign([0, 0])
        objective.wake_p, objective.wake_q, objective.sleep_q = scale, 0, False
        moved.append(np.concatenate([np.ravel(a) for a in step(machine, x)]))
    base = np.concatenate([np.ravel(a) for a in start])
    for scale, now in zip((0.5, 0.25, 2.0), moved[1:], strict=True):
        np.testing.assert_allclose(now - base, scale * (moved[0] - base), atol=1e-5)
    assert len(traced) == 1
    objective.sleep_q = 0.3  # from off to on
    step(machine, x)
    assert len(traced) == 2
