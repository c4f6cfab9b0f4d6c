"""The exported functions: unbiased for each row, and independent of the batch."""

import numpy as np
import pytest
import tensorflow as tf
from exact import FAMILIES, all_vectors, exact_log_likelihood, tiny_machine
from marks import slow_except

from rws_keras import HelmholtzMachine
from rws_keras.models.scorer import Scorer

# Two-sided. An estimate from 100 seeds lies beyond by chance in 8e-6 (Student's t); the file has
# 136 of them, so that one does in one of 900 runs with other seeds. The seeds are fixed.
LARGEST_Z = 4.7
SEEDS = range(100)
# Of the random weights: so large that units depend on each other, so small that Q, which knows
# nothing of P, gives importance weights without the long tails for which z-scores do not hold.
SCALE = 0.5


def z_scores(estimates, exact):
    """Of the mean of estimates `[S, N]` against what it should be."""
    error = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    return (estimates.mean(axis=0) - exact) / np.maximum(error, 1e-12)


def by_seed(scorer, function, *arguments):
    """What a function of a scorer gives, seed by seed; it is traced once."""
    scorer.seed = tf.Variable(0)
    traced = tf.function(function, autograph=False)
    for seed in SEEDS:
        scorer.seed.assign(seed)
        yield traced(*map(tf.constant, arguments))


@pytest.mark.parametrize("family", slow_except(["sbn", "dsbn"], FAMILIES))
def test_scores_are_unbiased_for_each_row(family):
    machine = tiny_machine(family, family, seed=1, scale=SCALE)
    x = all_vectors(4)
    scorer = Scorer(machine, num_particles=20)
    found = [each["log_likelihood"] for each in by_seed(scorer, lambda x: scorer.score(x, 20), x)]
    z = z_scores(np.exp(found), np.exp(exact_log_likelihood(machine, x)))
    assert np.abs(z).max() < LARGEST_Z


@pytest.mark.parametrize("family", slow_except(["sbn"], FAMILIES))
def test_likelihood_of_what_was_observed_is_unbiased(family):
    machine = tiny_machine(family, "sbn", seed=2, scale=SCALE)
    x = all_vectors(4)
    mask = np.float32([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]])[np.arange(16) % 4]
    whole = exact_log_likelihood(machine, x)
    agree = ((x[:, None] == x) | (mask[:, None] == 0)).all(axis=-1)
    exact = np.where(agree, np.exp(whole), 0.0).sum(axis=1)
    scorer = Scorer(machine, num_particles=40)
    found = [each["log_likelihood"] for each in by_seed(scorer, scorer.impute, x, mask)]
    assert np.abs(z_scores(np.exp(found), exact)).max() < LARGEST_Z


@pytest.mark.parametrize("family", slow_except(["sbn"], ["sbn", "nade"]))
def test_completions_follow_the_conditional_distribution(family):
    machine = tiny_machine(family, "sbn", seed=3, scale=SCALE)
    x, mask = np.float32([[1, 0, 0, 1]]), np.float32([[1, 0, 0, 1]])
    candidates = all_vectors(4)
    candidates = candidates[(candidates[:, [0, 3]] == 1).all(axis=1)]
    joint = np.exp(exact_log_likelihood(machine, candidates))
    exact = joint @ candidates / joint.sum()
    # Of 1,000 particles: the bias of self-normalised weights, of the order of 1/K, is far
    # below the noise of these draws.
    scorer = Scorer(machine, num_particles=1000, num_completions=20)
    drawn, means = [], []
    for found in by_seed(scorer, scorer.impute, x, mask):
        completions = found["completions"].numpy()
        np.testing.assert_array_equal(completions[..., [0, 3]], 1.0)
        drawn.append(completions[0].mean(axis=0))
        means.append(found["mean"].numpy()[0])
    for estimates in (drawn, means):
        z = z_scores(np.array(estimates)[:, 1:3], exact[1:3])
        assert np.abs(z).max() < LARGEST_Z


@pytest.mark.slow
def test_posterior_and_reconstruction_are_those_of_the_machine():
    machine = tiny_machine("sbn", "sbn", seed=4, scale=SCALE)
    x = all_vectors(4)
    scorer = Scorer(machine, num_particles=5000)
    assert scorer.score(x, 5000)["effective_sample_size"].numpy().min() > 800
    posterior = scorer.posterior(x)
    for level, expected in enumerate(machine.posterior_mean(x, 50_000, seed=0), start=1):
        # At least 800 effective particles: standard errors of 0.018 at most.
        np.testing.assert_allclose(posterior[f"latent_{level}"], expected, atol=0.08)
    expected = machine.reconstruct(x, 50_000, seed=0)
    np.testing.assert_allclose(scorer.reconstruct(x)["mean"], expected, atol=0.08)


def test_scores_are_those_of_the_machine_driven_by_the_same_noise():
    machine = tiny_machine("arsbn", "sbn", seed=5)
    x = all_vectors(4)
    scorer = Scorer(machine, num_particles=30, seed=7)
    latents, log_q = machine.q.sample(scorer._noise(30)["particles"], given=tf.constant(x))
    log_weights = tf.add_n(machine.log_p(tf.constant(x), latents)) - tf.add_n(log_q)
    expected = tf.reduce_logsumexp(log_weights, axis=0) - np.log(30)
    np.testing.assert_allclose(scorer.score(x, 30)["log_likelihood"], expected, rtol=1e-5)


@pytest.mark.parametrize("family", slow_except(["sbn"], FAMILIES))
def test_a_row_scores_the_same_in_every_batch(family, binary):
    machine = tiny_machine(family, family, seed=6)
    functions = Scorer(machine, num_particles=50).signatures()
    x = binary(13, 4, seed=1)
    inputs = {
        "serving_default": {"x": x},
        "posterior": {"x": x},
        "reconstruct": {"x": x},
        "impute": {"x": x, "mask": binary(13, 4, seed=2)},
        "sample": {"seed": np.arange(13, dtype=np.int64)},
    }
    order = np.random.default_rng(0).permutation(13)
    for name, arrays in inputs.items():
        together = functions[name](**arrays)
        shuffled = functions[name](**{key: array[order] for key, array in arrays.items()})
        for row in range(13):
            alone = functions[name](**{key: a[row : row + 1] for key, a in arrays.items()})
            for key in together:
                np.testing.assert_array_equal(together[key][row], alone[key][0])
        for key in together:
            np.testing.assert_array_equal(together[key].numpy()[order], shuffled[key])


def test_a_row_that_is_not_binary_spoils_no_other(binary):
    machine = tiny_machine("sbn", "sbn")
    scorer = Scorer(machine, num_particles=10)
    x, mask = binary(6, 4), np.ones([6, 4], np.float32)
    right = scorer.impute(x, mask)
    wrong_x, wrong_mask = x.copy(), mask.copy()
    wrong_x[1, 2], wrong_x[4, 0], wrong_mask[3, 3] = 0.5, np.nan, 2.0
    found = scorer.impute(wrong_x, wrong_mask)
    for key, output in found.items():
        bad = np.isnan(output.numpy().reshape(6, -1)).all(axis=1)
        np.testing.assert_array_equal(bad, [False, True, False, True, True, False])
        np.testing.assert_array_equal(output.numpy()[~bad], right[key].numpy()[~bad])
    # What was not observed may be anything.
    mask[1, 2] = mask[4, 0] = 0.0
    assert not np.isnan(scorer.impute(wrong_x, mask)["log_likelihood"]).any()


@pytest.mark.parametrize("seed", [0, 5, 2**31 - 1])
def test_samples_of_a_seed_are_the_machines(seed):
    machine = tiny_machine("nade", "sbn")
    found = Scorer(machine).sample(tf.constant([seed], tf.int64))
    expected = machine.sample(1, seed=seed)
    np.testing.assert_array_equal(found["x"], expected.x)
    np.testing.assert_allclose(found["mean"], expected.mean, rtol=1e-6)


def test_samples_of_large_seeds_differ():
    # Two of these rows of 80 units would agree by chance once in 2^60 times or less.
    machine = HelmholtzMachine.from_sizes(80, [3], seed=0)
    seeds = np.array([1, 1 + 2**32, -1, 2**32 - 1, 2**62, 0], np.int64)
    x = Scorer(machine).sample(tf.constant(seeds))["x"].numpy()
    assert len(np.unique(x, axis=0)) == len(seeds)


@pytest.mark.parametrize("option", ["num_particles", "fast", "accurate"])
@pytest.mark.parametrize("value", [0, 1, 10_001, 2.5])
def test_particles_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=option):
        Scorer(tiny_machine("sbn", "sbn"), **{option: value})
