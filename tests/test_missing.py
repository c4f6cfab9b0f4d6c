"""Missing values: likelihoods, gradients and imputations against enumeration."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from exact import EVERY_FAMILY, all_latents, all_vectors, exact_log_likelihood, randomize

from rws_keras import HelmholtzMachine, layers, objectives
from rws_keras.errors import UserError
from rws_keras.layers.noise import uniform_noise
from rws_keras.models import Scorer

# A unit, a choice of three, and a unit.
CHOICES = [1, 3, 1]
STATES = all_vectors(5)
STATES = STATES[STATES[:, 1:4].sum(axis=1) == 1]
GAP = np.nan
X = np.array(
    [[1, 0, 1, 0, GAP], [GAP, GAP, GAP, GAP, 1], [GAP] * 5, [0, 0, 0, 1, 1]],
    np.float32,
)


def machine(family="sbn", missing="marginalize", seed=1, scale=0.5, q="sbn", latents=2):
    made = HelmholtzMachine.from_sizes(
        5, latents, p=family, q=q, prior="sbn", choices=CHOICES, missing=missing, seed=0
    )
    return randomize(made, seed, scale)


def completions(row):
    """The states that agree with what is observed of a row."""
    return (np.isnan(row) | (row == STATES)).all(axis=1)


def exact(made, rows=X):
    """`log p(x_observed)`, `[N]`."""
    of_states = exact_log_likelihood(made, STATES)
    return np.array([np.logaddexp.reduce(of_states[completions(row)]) for row in rows])


def exact_mean(made, row):
    """`E[x | x_observed]`, `[D]`."""
    agree = completions(row)
    log_p = exact_log_likelihood(made, STATES)[agree]
    weights = np.exp(log_p - np.logaddexp.reduce(log_p))
    return weights @ STATES[agree]


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_likelihood(family):
    """|z| of four rows below 4 in each of four families, seed 0: false alarm 1e-3."""
    made = machine(family)
    estimate = made.log_likelihood(X, num_particles=50_000, seed=0)
    error = np.maximum(estimate.standard_error, 1e-6)
    assert np.abs((estimate.log_likelihood - exact(made)) / error).max() < 4.0


@pytest.mark.parametrize("family", ["sbn", "dsbn"])
def test_independent_units_leave_gaps_out_exactly(family):
    """Summed over all latents, without a random number."""
    made = machine(family)
    log_joint = sum(term + tf.zeros([1, len(X)]) for term in made.log_p(X, all_latents(made)))
    np.testing.assert_allclose(tf.reduce_logsumexp(log_joint, 0), exact(made), atol=1e-5)


@pytest.mark.parametrize("family", ["arsbn", "nade"])
def test_gaps_that_p_draws(family):
    """The mean weight of what is drawn is p(x_observed | h): |z| below 4, seed 0 (3e-4)."""
    made, count = machine(family), 20_000
    h = tf.constant([[[1.0, 0.0]]])
    filled = made.fill(X, [h], uniform_noise((count, len(X), 5), seed=0)).numpy()
    np.testing.assert_array_equal(filled[:, ~np.isnan(X)], np.tile(X[~np.isnan(X)], (count, 1)))
    weights = np.exp(made.log_p(X, [h], filled)[0].numpy().astype(np.float64))
    of_states = made.p_layers[0].distribution(h[0]).prob(STATES).numpy()
    expected = np.array([of_states[completions(row)].sum() for row in X])
    error = weights.std(axis=0) / np.sqrt(count)
    assert (np.abs(weights.mean(axis=0) - expected) < 4.0 * error + 1e-6).all()


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_gradient_of_p(family):
    """That of log p(x_observed): z of 12 steps with K = 2,000, |z| below 5.5 in every weight.

    Student's t with 11 degrees of freedom, about 25 weights: false alarm 5e-3 a family, seed 0.
    """
    made = machine(family)
    objective = objectives.ReweightedWakeSleep(2000, wake_q=False, sleep_q=False)
    step = tf.function(lambda noise: objective.gradients(made, tf.constant(X), noise)[0])
    steps = [step(objective.noise(made, len(X), seed)) for seed in range(12)]
    found = np.stack([np.concatenate([np.ravel(g) for g in each]) for each in steps])
    variables = [variable.value for variable in made.trainable_variables]
    agree = tf.constant([completions(row) for row in X])
    with tf.GradientTape() as tape:
        joint = sum(t + tf.zeros([1, len(STATES)]) for t in made.log_p(STATES, all_latents(made)))
        of_states = tf.reduce_logsumexp(joint, axis=0)
        loss = -tf.reduce_mean(tf.reduce_logsumexp(tf.where(agree, of_states, -np.inf), axis=1))
    gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
    expected = np.concatenate([np.ravel(each) for each in gradients])
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - expected) < 5.5 * error + 1e-4).all()


def test_resampled_gradient_is_the_same_on_average():
    """Of an autoregressive layer, whose drawn gaps are resampled with the latents; |z| < 5.5."""
    made, gradients = machine("arsbn"), []
    for options in ({}, {"num_resampled": 20}):
        objective = objectives.ReweightedWakeSleep(200, wake_q=False, sleep_q=False, **options)
        step = tf.function(lambda noise, o=objective: o.gradients(made, tf.constant(X), noise)[0])
        steps = [step(objective.noise(made, len(X), seed)) for seed in range(40)]
        gradients.append([np.concatenate([np.ravel(g) for g in each]) for each in steps])
    all_of_them, few = map(np.array, gradients)
    error = np.sqrt((all_of_them.var(axis=0) + few.var(axis=0)) / 40)
    assert (np.abs(all_of_them.mean(axis=0) - few.mean(axis=0)) < 5.5 * error + 1e-5).all()


def test_q_is_given_what_was_observed_and_what_was_not():
    made = machine()
    np.testing.assert_array_equal(
        made.q_input(X)[0], [1, 0, 1, 0, 0, 0, 0, 0, 0, 1], "values, then gaps"
    )
    assert made.q_layers[0].given_units == 10
    assert machine(missing=None).q_layers[0].given_units == 5


def test_dreams_have_the_gaps_of_the_data():
    made = machine()
    objective = objectives.ReweightedWakeSleep(2, num_dreams=6)
    noise = objective.split(made, len(X), objective.noise(made, len(X), seed=0))
    dreamt, _ = objective.draw(made, tf.constant(X), noise).dream
    rows = [0, 1, 2, 3, 0, 1]
    np.testing.assert_array_equal(np.isnan(dreamt), np.isnan(X)[rows])


def test_a_machine_without_gaps_is_as_before():
    """Of whole rows Q is given the same and zeros: the same likelihood from the same noise."""
    plain, made = machine(missing=None), machine()
    for layer, other in zip(plain.p_layers, made.p_layers, strict=True):
        other.set_weights(layer.get_weights())
    kernel, bias = plain.q_layers[0].get_weights()
    made.q_layers[0].set_weights([np.concatenate([kernel, 0.0 * kernel]), bias])
    ours, theirs = (m.log_likelihood(STATES, 50, seed=0).log_likelihood for m in (made, plain))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("objective", ["ReweightedWakeSleep", "VIMCO", "NVIL"])
def test_training_learns_from_what_was_observed(objective):
    """Two units that are always equal, each missing in a third of the rows.

    Independent units would have log p = 2 log 1/2 of a whole row.
    """
    random = np.random.default_rng(0)
    x = np.repeat(random.integers(0, 2, (600, 1)), 2, axis=1).astype(np.float32)
    which = random.integers(0, 3, 600)
    x[which == 0, 0] = x[which == 1, 1] = np.nan
    keras.utils.set_random_seed(1)
    made = HelmholtzMachine.from_sizes(2, 4, missing="marginalize", seed=0)
    made.compile(keras.optimizers.Adam(0.05), getattr(objectives, objective)())
    made.fit(x, epochs=20, batch_size=50, verbose=0)
    whole = np.array([[0, 0], [1, 1], [0, 1]], np.float32)
    both_off, both_on, different = made.predict(whole, num_particles=500, verbose=0)
    assert min(both_off, both_on) > np.log(0.3)
    assert different < np.log(0.15)
    assert made.evaluate(x, num_particles=500, verbose=0)[0] > -0.95  # log 2 is 0.69


@pytest.mark.parametrize("objective", ["VIMCO", "NVIL", "REINFORCE"])
def test_objectives_that_do_not_follow_drawn_gaps_say_so(objective):
    with pytest.raises(UserError, match=r"cannot train with missing values.*Use Reweighted"):
        machine("arsbn").compile("adam", getattr(objectives, objective)())


@pytest.mark.parametrize("missing", [None, "marginalize"])
@pytest.mark.parametrize("family", ["sbn", "arsbn"])
def test_imputation(family, missing):
    """Means and completions against p(x_missing | x_observed): |z| below 4.5, seed 0 (1e-3)."""
    made = machine(family, missing)
    imputed = made.impute(X, num_completions=1, num_particles=20_000, seed=0)
    expected = np.array([exact_mean(made, row) for row in X])
    gaps = np.isnan(X)
    error = np.maximum(imputed.standard_error, 1e-6)
    assert np.abs((imputed.mean - expected) / error)[gaps].max() < 4.5
    np.testing.assert_array_equal(imputed.mean.numpy()[~gaps], X[~gaps])
    assert (imputed.standard_error.numpy()[~gaps] == 0.0).all()
    likelihood = imputed.likelihood
    error = np.maximum(likelihood.standard_error, 1e-6)
    assert np.abs((likelihood.log_likelihood - exact(made)) / error).max() < 4.5


def test_completions_are_drawn_together():
    """Frequencies of the states of 3,000 rows without a value: |z| below 4, seed 0 (4e-4)."""
    made, count = machine("nade"), 3000
    empty = np.full((count, 5), np.nan, np.float32)
    drawn = made.impute(empty, num_completions=1, num_particles=100, seed=0).completions[0]
    expected = np.exp(exact_log_likelihood(made, STATES))
    frequency = (drawn.numpy()[:, None] == STATES).all(axis=2).mean(axis=0)
    error = np.sqrt(expected * (1.0 - expected) / count)
    assert np.abs((frequency - expected) / error).max() < 4.0


def test_conditional():
    """Of two units given the others, whatever stands at them: |z| below 4, seed 0 (5e-4)."""
    made = machine(missing=None)
    x = np.array([[1, 0, 1, 0, 0], [0, 1, 0, 0, GAP], [1, 0, 0, 1, 1]], np.float32)
    found = made.conditional(x, targets=[4, 0], num_particles=20_000, seed=0)
    hidden = x.copy()
    hidden[:, [0, 4]] = np.nan
    expected = np.array([exact_mean(made, row)[[4, 0]] for row in hidden])
    assert np.abs((found.mean - expected) / found.standard_error).max() < 4.0
    assert found.effective_sample_size.shape == [3]


def test_conditional_refuses_what_is_no_unit():
    for targets in ([], [5], [-1]):
        with pytest.raises(UserError, match="targets"):
            machine().conditional(STATES, targets=targets)
    with pytest.raises(UserError, match=r"has only \[1\] of the choice with units 1 to 3"):
        machine().conditional(STATES, targets=[1, 4])


def test_nan_is_refused_unless_it_is_asked_for():
    with pytest.raises(UserError, match="missing='marginalize'"):
        machine(missing=None).predict(X, verbose=0)
    with pytest.raises(UserError, match="`missing` must be None or 'marginalize', got 'drop'"):
        machine(missing="drop")


def test_a_choice_is_missing_as_a_whole():
    part = X.copy()
    part[3, 1] = np.nan
    with pytest.raises(UserError, match="in row 3 units 1 to 3 are"):
        machine().predict(part, verbose=0)
    several = np.array([[0, 1, 1, 0, 0]], np.float32)
    with pytest.raises(UserError, match="exactly one unit of each choice"):
        machine().predict(several, verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="exactly one unit of each choice"):
        tf.function(machine().check_data)(tf.constant(several))


def test_exported_scores_of_a_choice_that_is_none_are_nan():
    """Several units on, none, or a part missing: the other rows are as they would be alone."""
    rows = np.array([[0, 1, 1, 0, 0], [0] * 5, [0, GAP, 0, 0, 1], X[0]], np.float32)
    for missing in ("marginalize", None):
        scores = Scorer(machine(missing=missing), num_particles=20).score(tf.constant(rows), 20)
        assert np.isnan(scores["log_likelihood"][:3]).all()
        assert np.isfinite(scores["log_likelihood"][3]) == (missing is not None)


def test_one_particle_says_nothing_of_its_error():
    imputed = machine().impute(X, num_completions=1, num_particles=1, seed=0)
    assert np.isnan(imputed.standard_error.numpy()[np.isnan(X)]).all()


def test_missing_values_of_other_kinds():
    """A masked array and a data frame with `NA` are as NaN; integers have no gaps."""
    made = machine()
    expected = made.predict(X, verbose=0)
    gaps = np.isnan(X)
    masked = np.ma.masked_array(np.where(gaps, 9, X).astype(np.int32), gaps)
    frame = pd.DataFrame(np.where(gaps, 0, X).astype(int)).astype("Int8").mask(gaps)
    for x in (masked, frame, tf.data.Dataset.from_tensor_slices(X).batch(4)):
        np.testing.assert_array_equal(made.predict(x, verbose=0), expected)
    whole = made.predict(STATES, verbose=0)
    np.testing.assert_array_equal(made.predict(STATES.astype(np.uint8), verbose=0), whole)


def test_gaussian_units():
    """A visible layer of real units: those that are missing are left out."""
    made = HelmholtzMachine(
        [layers.Gaussian(3), layers.SBN(2)], [layers.SBN(2)], missing="marginalize"
    )
    made.compile("adam", objectives.ReweightedWakeSleep(3))
    x = np.array([[0.3, np.nan, -2.0], [np.nan] * 3], np.float32)
    made.fit(x, verbose=0)
    assert np.isfinite(made.predict(x, verbose=0)).all()
    imputed = made.impute(x, seed=0)
    assert np.isfinite(imputed.completions).all()


@pytest.mark.parametrize("objective", ["ELBO", "IWAE", "DReG"])
def test_gaussian_latents(objective):
    """Path gradients of what was observed: those of a gap's own weights are zero."""
    made = HelmholtzMachine.from_sizes(
        5, [2], q="gaussian", prior="gaussian", missing="marginalize", seed=0
    )
    step = getattr(objectives, objective)(num_particles=3)
    x = tf.constant([[1.0, np.nan, 0.0, 1.0, 1.0], [0.0, np.nan, np.nan, 1.0, 0.0]])
    gradients, particles = step.gradients(made, x, step.noise(made, 2, seed=0))
    by_name = dict(zip([v.path for v in made.trainable_variables], gradients, strict=True))
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert np.isfinite(particles.log_weights).all()
    kernel, bias = by_name["p_0/kernel"].numpy(), by_name["p_0/bias"].numpy()
    np.testing.assert_array_equal(kernel[:, 1], 0.0)
    assert bias[1] == 0.0
    assert (bias[[0, 2, 3, 4]] != 0.0).all()


def test_saved_and_loaded(tmp_path):
    made = machine("arsbn")
    made.save(tmp_path / "machine.keras")
    made.save_to_preset(tmp_path / "preset")
    expected = made.predict(X, verbose=0)
    for loaded in (
        keras.saving.load_model(tmp_path / "machine.keras"),
        HelmholtzMachine.from_preset(tmp_path / "preset"),
        HelmholtzMachine.from_config(made.get_config()),
    ):
        assert loaded.missing == "marginalize"
        if loaded.built and loaded.weights[0].shape == made.weights[0].shape:
            loaded.set_weights(made.get_weights())
        np.testing.assert_array_equal(loaded.predict(X, verbose=0), expected)


def test_exported(tmp_path):
    """The served scores and completions of rows with gaps; a wrong value still gives NaN."""
    made = machine("arsbn")
    made.export(tmp_path / "exported", num_particles=5000, verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    wrong = np.array([[2, 1, 0, 0, np.nan]], np.float32)
    scores = exported.signatures["serving_default"](x=tf.constant(np.concatenate([X, wrong])))
    z = (scores["log_likelihood"][:4] - exact(made)) / (scores["standard_error"][:4] + 1e-6)
    assert np.abs(z).max() < 4.5
    assert np.isnan(scores["log_likelihood"][4])
    imputed = exported.signatures["impute"](
        x=tf.constant(np.nan_to_num(X, nan=7.0)), mask=tf.constant(np.float32(~np.isnan(X)))
    )
    expected = np.array([exact_mean(made, row) for row in X])
    np.testing.assert_allclose(imputed["mean"], expected, atol=0.05)
