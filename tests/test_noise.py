"""Seeds of every kind, and noise by name."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from exact import tiny_machine

from rws_keras.errors import UserError
from rws_keras.layers.noise import draw_noise, split_noise, stateless_seed, uniform_noise
from rws_keras.objectives import ReweightedWakeSleep

X = np.array([[1, 0, 1, 1], [0, 0, 1, 0]], np.float32)
SHAPES = {"particles": [(5, 2, 3), (5, 2, 2)], "dream": [(2, 4)], "choice": (7,)}


def test_noise_keeps_its_names_and_shapes():
    noise = split_noise(draw_noise(SHAPES, 0), SHAPES)
    assert list(noise) == list(SHAPES)
    assert [part.shape for part in noise["particles"]] == [[5, 2, 3], [5, 2, 2]]
    assert [part.shape for part in noise["dream"]] == [[2, 4]]
    assert noise["choice"].shape == [7]
    # No number is used twice.
    flat = np.concatenate([np.ravel(part) for part in tf.nest.flatten(noise)])
    assert len(np.unique(flat)) == len(flat) == 30 + 20 + 8 + 7
    assert flat.min() > 0
    assert flat.max() < 1


def test_what_comes_first_does_not_depend_on_what_comes_later():
    alone = uniform_noise({"particles": SHAPES["particles"]}, 3)["particles"]
    with_others = uniform_noise(SHAPES, 3)["particles"]
    for ours, theirs in zip(alone, with_others, strict=True):
        # The generator draws by counters: a longer stream begins as a shorter one.
        np.testing.assert_array_equal(ours, theirs)


def test_a_step_names_what_it_draws():
    machine = tiny_machine("sbn", "sbn")
    objective = ReweightedWakeSleep(3, num_dreams=4, num_resampled=2)
    shapes = objective.noise_shapes(machine, 2)
    assert shapes == {
        "particles": [(3, 2, 3), (3, 2, 2)],
        "dream": [(4, 4), (4, 3), (4, 2)],
        "resampling": (2,),
    }
    awake = ReweightedWakeSleep(3, sleep_q=False)
    assert list(awake.noise_shapes(machine, 2)) == ["particles"]


SAME_SEED = [
    (7, np.int64(7)),
    (7, np.int32(7)),
    (7, np.array(7)),
    (7, np.array([0, 7])),
    (7, tf.constant([0, 7])),
    (7, tf.constant([0, 7], tf.int64)),
    (2**40 + 7, np.int64(2**40 + 7)),
    (2**40 + 7, [2**8, 7]),
]


@pytest.mark.parametrize(("seed", "same"), SAME_SEED)
def test_seeds_of_every_kind(seed, same):
    np.testing.assert_array_equal(stateless_seed(seed), stateless_seed(same))


def test_seeds_from_a_stream():
    first, again = (tfp.util.SeedStream(1, salt="test") for _ in range(2))
    np.testing.assert_array_equal(stateless_seed(first), stateless_seed(again))
    assert not np.array_equal(stateless_seed(first), stateless_seed(tfp.util.SeedStream(2, "test")))
    # In a graph, where integers stand for the same noise, a stream goes on from run to run.
    draw = tf.function(lambda: uniform_noise((4,), again))
    assert not np.array_equal(draw(), draw())
    constant = tf.function(lambda: uniform_noise((4,), 7))
    np.testing.assert_array_equal(constant(), constant())


def test_different_integers_are_different_seeds():
    seeds = [*range(-3, 4), *(2**31 + i for i in range(-2, 3)), *(2**32 + i for i in range(-3, 4))]
    seeds += [2**63 - 1, -(2**63)]
    assert len({tuple(stateless_seed(seed).numpy()) for seed in seeds}) == len(set(seeds))


@pytest.mark.parametrize("seed", [True, 1.5, "1", 2**63, -(2**63) - 1, [1, 2, 3], [0.5, 1.0]])
def test_bad_seeds(seed):
    with pytest.raises(UserError, match="`seed` must be an integer of up to 64 bits"):
        stateless_seed(seed)


METHODS = {
    "sample": lambda machine, seed: machine.sample(4, seed=seed).mean,
    "sample_posterior": lambda machine, seed: machine.sample_posterior(X, 4, seed=seed).log_weights,
    "log_likelihood": lambda machine, seed: machine.log_likelihood(X, 4, seed=seed).log_likelihood,
    "posterior_mean": lambda machine, seed: machine.posterior_mean(X, 4, seed=seed)[0],
    "reconstruct": lambda machine, seed: machine.reconstruct(X, 4, seed=seed),
    "evaluate": lambda machine, seed: machine.evaluate(X, num_particles=4, seed=seed, verbose=0),
    "predict": lambda machine, seed: machine.predict(X, num_particles=4, seed=seed, verbose=0),
    "distribution": lambda machine, seed: machine.q_layers[0].distribution(X).sample(seed=seed),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_every_seed(method):
    machine = tiny_machine("sbn", "sbn")

    def call(seed):
        return np.asarray(METHODS[method](machine, seed))

    np.testing.assert_array_equal(call(3), call(np.int64(3)))
    tensor = tf.constant([5, 6])
    np.testing.assert_array_equal(call(tensor), call([5, 6]))
    # 16 numbers or more a call in most; each call differs with probability far above 1 - 1e-3.
    if method != "distribution":
        assert not np.array_equal(call(3), call(3 + 2**32))
        assert not np.array_equal(call(None), call(None))


def test_machines_take_numpy_seeds_and_tell_large_ones_apart(binary):
    from rws_keras import HelmholtzMachine

    states = {
        tuple(HelmholtzMachine.from_sizes(4, [3], seed=seed).noise_seed.numpy())
        for seed in (np.int64(1), 1, 1 + 2**32, 1 + 2**33, 2**31)
    }
    assert len(states) == 4
    config = HelmholtzMachine.from_sizes(4, [3], seed=np.int64(1)).get_config()
    assert type(config["seed"]) is int
