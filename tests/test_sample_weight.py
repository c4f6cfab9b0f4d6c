"""A row of weight w counts as w rows: in the gradient, in the metrics, in the standard error."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exact import tiny_machine
from marks import slow_except

from rws_keras import HelmholtzMachine, Particles
from rws_keras.errors import UserError
from rws_keras.objectives import Objective, ReweightedWakeSleep, WakeSleep, mean_over_data

COUNTS = np.array([3, 0, 1, 2, 0, 5, 1, 1, 2, 4])


def make(objective=None, **arguments):
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(12, [8, 4], seed=0)
    arguments = {"jit_compile": False, "num_particles": 5, **arguments}
    machine.compile(keras.optimizers.SGD(1.0), objective or ReweightedWakeSleep(3), **arguments)
    return machine


def gradients(machine, objective, x, noise, sample_weight=None):
    found, _ = objective.gradients(machine, tf.constant(x), noise, sample_weight)
    return np.concatenate([np.ravel(gradient) for gradient in found])


OBJECTIVES = {
    "wake": ReweightedWakeSleep(4, sleep_q=False),
    "resampled": ReweightedWakeSleep(6, sleep_q=False, num_resampled=3),
    "wake of P": WakeSleep(sleep_q=False),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_gradient_is_the_weighted_mean_of_each_rows(objective, binary):
    machine, objective = tiny_machine("sbn", "sbn"), OBJECTIVES[objective]
    x = binary(10, 4)
    noise = objective.noise(machine, 10, seed=0)
    alone = [gradients(machine, objective, x, noise, row) for row in np.eye(10, dtype=np.float32)]
    weighted = gradients(machine, objective, x, noise, tf.constant(COUNTS, tf.float32))
    np.testing.assert_allclose(weighted, np.average(alone, axis=0, weights=COUNTS), atol=1e-5)
    equal = gradients(machine, objective, x, noise, tf.fill([10], 7.0))
    np.testing.assert_allclose(equal, gradients(machine, objective, x, noise), atol=1e-5)


def test_dreams_have_no_weights(binary):
    machine, objective = tiny_machine("sbn", "sbn"), WakeSleep(wake_p=False)
    x, noise = binary(10, 4), objective.noise(machine, 10, seed=0)
    np.testing.assert_array_equal(
        gradients(machine, objective, x, noise, tf.constant(COUNTS, tf.float32)),
        gradients(machine, objective, x, noise),
    )


WAYS = {
    "compiled": {"jit_compile": True},
    "without XLA": {},
    "eager": {"run_eagerly": True},
    "two steps per execution": {"steps_per_execution": 2},
}


def sources(x, weight):
    """The same weighted data in all forms that Keras takes."""
    dataset = tf.data.Dataset.from_tensor_slices((x, weight)).batch(5)
    dataset = dataset.map(lambda x, weight: (x, None, weight))

    def generate():
        for start in (0, 5):
            yield x[start : start + 5], None, weight[start : start + 5]

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            part = slice(5 * index, 5 * index + 5)
            return ({"x": x[part], "sample_weight": weight[part]},)

    return {
        "dicts": {"x": dataset.map(lambda x, _, weight: {"x": x, "sample_weight": weight})},
        "a PyDataset": {"x": Batches(), "shuffle": False},
        "arrays": {"x": x, "sample_weight": weight, "shuffle": False, "batch_size": 5},
        "a column": {"x": x, "sample_weight": weight[:, None], "shuffle": False, "batch_size": 5},
        "a list": {"x": x, "sample_weight": list(weight), "shuffle": False, "batch_size": 5},
        "a dataset": {"x": dataset},
        "a generator": {"x": generate()},
    }


@pytest.mark.parametrize("way", slow_except(["without XLA", "eager"], WAYS))
def test_fit_takes_weights_in_every_form(way, binary):
    x, weight = binary(10, 12), COUNTS.astype(np.float32)
    after = {}
    for name, arguments in sources(x, weight).items():
        machine = make(ReweightedWakeSleep(3, sleep_q=False), **WAYS[way])
        history = machine.fit(**arguments, verbose=0).history
        assert history["num_data"] == [COUNTS.sum()]
        after[name] = machine.get_weights()
    by_hand = make(ReweightedWakeSleep(3, sleep_q=False))
    for part in (slice(0, 5), slice(5, 10)):
        noise = by_hand.objective.noise(by_hand, 5, tf.identity(by_hand.noise_seed))
        found, _ = by_hand.objective.gradients(
            by_hand, tf.constant(x[part]), noise, tf.constant(weight[part])
        )
        by_hand.noise_seed.assign_add([0, 1])
        for variable, gradient in zip(by_hand.trainable_variables, found, strict=True):
            variable.assign_sub(gradient)
    for weights in after.values():
        for ours, theirs in zip(weights, by_hand.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_evaluate_is_that_of_the_repeated_rows(binary):
    machine, x = make(), binary(10, 12)
    scores = np.repeat(machine.predict(x, verbose=0), COUNTS)
    found = machine.evaluate(x, sample_weight=COUNTS, return_dict=True, verbose=0)
    assert found["num_data"] == len(scores)
    np.testing.assert_allclose(found["log_likelihood"], scores.mean(), rtol=1e-6)
    error = scores.std(ddof=1) / np.sqrt(len(scores))
    np.testing.assert_allclose(found["log_likelihood_se"], error, rtol=1e-4)
    assert found["num_particles"] == 5
    # Batches with other sums of weights; validation in all its forms.
    small = machine.evaluate(x, sample_weight=COUNTS, batch_size=3, return_dict=True, verbose=0)
    assert small["num_data"] == len(scores)
    for validation in ((x, None, COUNTS), [x, None, COUNTS]):
        history = machine.fit(x, validation_data=validation, verbose=0).history
        assert history["val_num_data"] == [len(scores)]
    history = machine.fit(x, sample_weight=COUNTS, validation_split=0.4, verbose=0).history
    assert [history["num_data"], history["val_num_data"]] == [[11], [8]]
    assert machine.train_on_batch(x, sample_weight=COUNTS, return_dict=True)["num_data"] == 19
    assert machine.test_on_batch(x, sample_weight=COUNTS, return_dict=True)["num_data"] == 19


def test_sums_have_the_digits_of_float64(binary):
    # Half a million likelihoods near -8: float32 would keep two digits of their variance.
    machine, x = make(), binary(10, 12)
    counts = COUNTS * 25_000 + 1
    found = machine.evaluate(x, sample_weight=counts, return_dict=True, verbose=0)
    assert found["num_data"] == counts.sum()
    scores = np.asarray(machine.predict(x, verbose=0), np.float64)
    mean = np.average(scores, weights=counts)
    variance = np.average((scores - mean) ** 2, weights=counts)
    error = np.sqrt(variance / (counts.sum() - 1))
    np.testing.assert_allclose(found["log_likelihood"], mean, rtol=1e-12)
    np.testing.assert_allclose(found["log_likelihood_se"], error, rtol=1e-9)


def test_weights_need_not_be_counts(binary):
    machine, x = make(), binary(10, 12)
    whole = machine.evaluate(x, sample_weight=COUNTS, return_dict=True, verbose=0)
    part = machine.evaluate(x, sample_weight=COUNTS / 100, return_dict=True, verbose=0)
    assert part["num_data"] == pytest.approx(0.19)
    np.testing.assert_allclose(part["log_likelihood"], whole["log_likelihood"], rtol=1e-6)


BAD = {
    "too few": (np.ones(9), r"shape \[10\], got \(9,\)"),
    "two columns": (np.ones([10, 2]), "finite number of at least 0 for each row"),
    "negative": (-np.ones(10), r"among others: \[-1"),
    "NaN": (np.full(10, np.nan), "among others"),
    "text": (["a"] * 10, "cannot be read as numbers"),
    "masked": (np.ma.masked_array(np.ones(10), mask=np.eye(10)[0]), "some are masked"),
    "complex": (np.ones(10) + 1j, "they are complex"),
    "zero": (np.zeros(10), "at least one row needs a positive weight"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_bad_weights_are_refused(bad, method, binary):
    weight, message = BAD[bad]
    with pytest.raises(UserError, match=message):
        getattr(make(), method)(binary(10, 12), sample_weight=weight)


def test_weights_that_are_all_zero_are_found_behind_a_dataset_too(binary):
    machine, x = make(), binary(10, 12)
    zero = tf.data.Dataset.from_tensor_slices({"x": x, "sample_weight": np.zeros(10)}).batch(5)
    with pytest.raises(UserError, match="at least one row needs a positive weight"):
        machine.evaluate(zero, verbose=0)
    with pytest.raises(UserError, match="at least one row needs a positive weight"):
        machine.fit(x, validation_data=zero, verbose=0)


def test_huge_weights_do_not_overflow(binary):
    x, after = binary(10, 12), []
    for scale in (1.0, 2.0**124):
        machine = make(ReweightedWakeSleep(3, sleep_q=False))
        machine.fit(x, sample_weight=COUNTS * scale, batch_size=10, shuffle=False, verbose=0)
        found = machine.evaluate(x, sample_weight=COUNTS * scale, verbose=0)[0]
        after.append([*machine.get_weights(), found])
    for ours, theirs in zip(*after, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_targets_and_class_weights_are_refused_in_one_sentence(binary):
    machine, x = make(), binary(10, 12)
    pairs = tf.data.Dataset.from_tensor_slices((x, x)).batch(5)
    for refused in (
        lambda: machine.fit(x, x),
        lambda: machine.fit(pairs),
        lambda: machine.fit(x, validation_data=(x, x)),
        lambda: machine.evaluate(x, x),
        lambda: machine.evaluate(pairs),
        lambda: machine.predict(pairs),
        lambda: machine.train_on_batch(x, x),
        lambda: machine.test_on_batch(x, x),
    ):
        with pytest.raises(UserError, match=r"takes no targets: [^.]*\. Pass [^.]*\.$"):
            refused()
    for refused in (machine.fit, machine.train_on_batch):
        with pytest.raises(UserError, match=r"takes no `class_weight`\.$"):
            refused(x, class_weight={0: 1.0})
    with pytest.raises(UserError, match="Let a dataset yield dicts"):
        machine.fit(pairs.map(lambda x, y: x), sample_weight=np.ones(10))


class Plain(Objective):
    """An objective that knows nothing of weights."""

    def loss(self, machine, x, draws):
        particles = Particles(draws.latents, machine.log_p(x, draws.latents), draws.log_q)
        return -tf.reduce_mean(tf.add_n(particles.log_p)), particles


class Counting(Plain):
    """Weighs its loss, but not what it counts."""

    def build(self, state_shapes):
        self.seen = self.add_weight(name="seen", shape=(), initializer="zeros", trainable=False)

    def loss(self, machine, x, draws, sample_weight=None):
        _, particles = super().loss(machine, x, draws)
        log_p = tf.reduce_mean(tf.add_n(particles.log_p), axis=0)
        return -mean_over_data(log_p, sample_weight), particles

    def update(self, machine, x, particles):
        self.seen.assign_add(tf.cast(tf.shape(x)[0], tf.float32))


class Weighing(Counting):
    """Weighs both."""

    def update(self, machine, x, particles, sample_weight=None):
        self.seen.assign_add(tf.reduce_sum(sample_weight))


def test_objectives_that_take_no_weights_refuse_them(binary):
    x = binary(10, 12)
    for objective, method in ((Plain(2), "loss"), (Counting(2), "update")):
        machine = make(objective)
        machine.fit(x, verbose=0)
        with pytest.raises(UserError, match=f"its `{method}` has no such argument"):
            machine.fit(x, sample_weight=COUNTS, verbose=0)
    machine = make(Weighing(2))
    machine.fit(x, sample_weight=COUNTS, verbose=0)
    assert float(machine.objective.seen) == COUNTS.sum()
