"""The Helmholtz machine as a Keras model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exact import FAMILIES, all_latents, exact_posterior, randomize, tiny_machine
from marks import slow_except

from rws_keras import HelmholtzMachine, layers
from rws_keras.models.particles import statistics_of
from rws_keras.objectives import ReweightedWakeSleep, WakeSleep


def make(**kwargs):
    machine = HelmholtzMachine.from_sizes(12, [8, 4], seed=0, **kwargs)
    return randomize(machine, 0, scale=0.5)


def compiled(machine, **kwargs):
    machine.compile(keras.optimizers.Adam(1e-2), ReweightedWakeSleep(3), **kwargs)
    return machine


def test_from_sizes_builds_the_stacks():
    machine = HelmholtzMachine.from_sizes(12, [8, 4], p="nade", q=["dsbn", "sbn"], prior="arsbn")
    assert [type(layer) for layer in machine.p_layers] == [layers.NADE, layers.NADE, layers.ARSBN]
    assert [type(layer) for layer in machine.q_layers] == [layers.DSBN, layers.SBN]
    assert [layer.units for layer in machine.p_layers] == [12, 8, 4]
    assert [layer.given_units for layer in machine.p_layers] == [8, 4, None]
    assert [layer.given_units for layer in machine.q_layers] == [12, 8]
    assert machine.built
    assert machine.visible_units == 12
    assert machine.latent_units == [8, 4]
    options = HelmholtzMachine.from_sizes(12, [8], p={"family": "nade", "hidden_units": 5})
    assert options.p_layers[0].hidden_units == 5


@pytest.mark.parametrize("family", slow_except(["sbn", "dsbn"], FAMILIES))
def test_shapes(family, binary):
    machine = make(p=family, q=family)
    x = binary(6, 12)
    particles = machine.sample_posterior(x, 5, seed=0)
    assert [latent.shape for latent in particles.latents] == [[5, 6, 8], [5, 6, 4]]
    assert [term.shape for term in particles.log_p] == [[5, 6]] * 3
    assert [term.shape for term in particles.log_q] == [[5, 6]] * 2
    assert particles.log_weights.shape == [5, 6]
    np.testing.assert_allclose(
        tf.reduce_sum(particles.normalized_weights, axis=0), np.ones(6), rtol=1e-5
    )
    samples = machine.sample(7, seed=0)
    assert samples.x.shape == samples.mean.shape == [7, 12]
    assert [latent.shape for latent in samples.latents] == [[7, 8], [7, 4]]
    *estimate, num_particles = machine.log_likelihood(x, 10, seed=0)
    for value in estimate:
        assert value.shape == [6]
        assert value.dtype == tf.float32
    np.testing.assert_array_equal(num_particles, np.full(6, 10))
    assert [mean.shape for mean in machine.posterior_mean(x, 10, seed=0)] == [[6, 8], [6, 4]]
    reconstruction = machine.reconstruct(x, 10, seed=0).numpy()
    assert reconstruction.shape == (6, 12)
    assert (reconstruction > 0).all()
    assert (reconstruction < 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_save_and_load(family, binary, tmp_path):
    machine = compiled(make(p=family, q=family), q_optimizer=keras.optimizers.SGD(1e-3))
    x = binary(20, 12)
    machine.fit(x, batch_size=10, epochs=1, verbose=0)
    machine.save(tmp_path / "machine.keras")
    loaded = keras.saving.load_model(tmp_path / "machine.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), machine.predict(x, verbose=0))
    assert loaded.objective.get_config() == machine.objective.get_config()
    # Training goes on as it would have: optimizers and noise are part of the file.
    for each in (machine, loaded):
        each.fit(x, batch_size=10, epochs=1, shuffle=False, verbose=0)
    for ours, theirs in zip(machine.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_config_round_trip():
    machine = make(p="nade", q="dsbn", prior="sbn")
    copy = HelmholtzMachine.from_config(machine.get_config())
    assert copy.get_config() == machine.get_config()
    assert [v.shape for v in copy.variables] == [v.shape for v in machine.variables]


def test_weights_round_trip(binary, tmp_path):
    machine, other = make(p="nade"), HelmholtzMachine.from_sizes(12, [8, 4], p="nade")
    machine.save_weights(tmp_path / "machine.weights.h5")
    other.load_weights(tmp_path / "machine.weights.h5")
    x = binary(5, 12)
    np.testing.assert_array_equal(
        machine.log_likelihood(x, 10, seed=1).log_likelihood,
        other.log_likelihood(x, 10, seed=1).log_likelihood,
    )


def test_summary_counts_the_parameters(capsys):
    machine = make()
    machine.summary()
    assert machine.count_params() == (8 * 12 + 12) + (4 * 8 + 8) + 4 + (12 * 8 + 8) + (8 * 4 + 4)
    assert f"{machine.count_params():,}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sbn", "nade"])
def test_same_seed_same_result_bit_for_bit(family, binary):
    x = binary(60, 12)

    def train():
        keras.utils.set_random_seed(7)
        machine = compiled(HelmholtzMachine.from_sizes(12, [8, 4], p=family, q=family))
        history = machine.fit(x, batch_size=20, epochs=2, validation_data=x, verbose=0)
        return machine.get_weights(), history.history, machine.predict(x, verbose=0)

    first, second = train(), train()
    assert first[1] == second[1]
    np.testing.assert_array_equal(first[2], second[2])
    for ours, theirs in zip(first[0], second[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_int_seeds_do_not_depend_on_earlier_draws(binary):
    machine, x = make(), binary(4, 12)
    first = machine.log_likelihood(x, 5, seed=3).log_likelihood
    machine.sample(3)
    np.testing.assert_array_equal(first, machine.log_likelihood(x, 5, seed=3).log_likelihood)
    other = machine.log_likelihood(x, 5, seed=4).log_likelihood
    assert not np.array_equal(first, other)


@pytest.mark.slow
def test_evaluating_does_not_change_how_training_goes_on(binary):
    x = binary(20, 12)
    weights = []
    for with_evaluation in (False, True):
        machine = compiled(make())
        for _ in range(2):
            machine.fit(x, batch_size=10, shuffle=False, verbose=0)
            if with_evaluation:
                machine.evaluate(x, num_particles=7, verbose=0)
                machine.predict(x, verbose=0)
        weights.append(machine.get_weights())
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_evaluate_reports_what_a_likelihood_needs(binary):
    machine, x = compiled(make()), binary(50, 12)
    result = machine.evaluate(x, batch_size=20, num_particles=40, return_dict=True, verbose=0)
    assert result["num_particles"] == 40
    assert result["num_data"] == 50
    assert result["loss"] == -result["log_likelihood"]
    assert result["elbo"] < result["log_likelihood"]
    assert 1 <= result["ess"] <= 40
    scores = machine.predict(x, batch_size=20, num_particles=40, verbose=0)
    np.testing.assert_allclose(result["log_likelihood"], scores.mean(), rtol=1e-6)
    np.testing.assert_allclose(
        result["log_likelihood_se"], scores.std(ddof=1) / np.sqrt(50), rtol=1e-4
    )
    # The compiled number of particles is back afterwards.
    assert machine.evaluate(x, return_dict=True, verbose=0)["num_particles"] == 100


def test_evaluate_needs_no_compile(binary):
    machine, x = make(), binary(10, 12)
    result = machine.evaluate(x, num_particles=5, return_dict=True, verbose=0)
    assert result["num_particles"] == 5


def test_elbo_is_reconstruction_less_kl(binary):
    particles = make().sample_posterior(binary(30, 12), 200, seed=0)
    statistics = statistics_of(particles)
    reconstruction = tf.reduce_mean(particles.log_p[0], axis=0)
    np.testing.assert_allclose(statistics.elbo, reconstruction - tf.add_n(statistics.kl), rtol=1e-4)


def test_standard_error_is_the_spread_of_repeated_estimates(binary):
    # 2,000 repetitions: their standard deviation is known to 1.6 %, the mean of the
    # estimated errors to less; 7 % is more than four standard errors of the ratio
    # (false-alarm rate 1e-5). The delta method needs an effective sample size well above
    # one, hence the small weights.
    machine = randomize(make(), 0, scale=0.2)
    x = np.repeat(binary(1, 12), 2000, axis=0)
    estimate = machine.log_likelihood(x, 400, seed=0)
    spread = np.std(estimate.log_likelihood)
    typical = np.sqrt(np.mean(estimate.standard_error.numpy() ** 2))
    assert abs(typical / spread - 1) < 0.07


def test_one_particle_has_no_standard_error(binary):
    estimate = make().log_likelihood(binary(3, 12), 1, seed=0)
    assert np.isnan(estimate.standard_error).all()
    assert np.isfinite(estimate.log_likelihood).all()
    np.testing.assert_allclose(estimate.effective_sample_size, 1.0, rtol=1e-5)


@pytest.mark.parametrize("family", slow_except(["sbn", "dsbn"], FAMILIES))
def test_posterior_means_equal_enumeration(family):
    # Self-normalised importance sampling with K = 40,000 in chunks: z-scores from the
    # spread over 50 repetitions; |z| > 5 for one of ten has a false-alarm rate of 6e-6
    # (Student's t of 49 degrees: 8e-5).
    machine = tiny_machine(family, family, seed=1)
    x = np.array([[1, 0, 1, 1]], np.float32)
    posterior = exact_posterior(machine, x)[:, 0]
    repeated = machine.posterior_mean(np.repeat(x, 50, axis=0), 40_000, seed=0)
    for states, mean in zip(all_latents(machine), repeated, strict=True):
        expected = posterior @ states.numpy()[:, 0]
        error = mean.numpy().std(axis=0, ddof=1) / np.sqrt(50)
        z = (mean.numpy().mean(axis=0) - expected) / error
        assert np.abs(z).max() < 5


def test_reconstruction_equals_enumeration():
    machine = tiny_machine("sbn", "sbn", seed=1)
    x = np.array([[1, 0, 1, 1]], np.float32)
    states = all_latents(machine)[0]
    probabilities = machine.p_layers[0].distribution(states).mean()[:, 0]
    expected = exact_posterior(machine, x)[:, 0] @ probabilities.numpy()
    repeated = machine.reconstruct(np.repeat(x, 50, axis=0), 40_000, seed=0).numpy()
    error = repeated.std(axis=0, ddof=1) / np.sqrt(50)
    assert np.abs((repeated.mean(axis=0) - expected) / error).max() < 5


def test_streaming_equals_one_chunk(binary, monkeypatch):
    from rws_keras.models import streaming

    machine, x = make(), binary(3, 12)
    monkeypatch.setattr(streaming, "ROWS_IN_FLIGHT", 30)
    chunks = machine.estimate(tf.constant(x), 95, tf.constant([0, 0]))
    # The chunks' particles, put together by hand: nine chunks of ten, one of five.
    weights = []
    for done in range(0, 95, 10):
        seed = tf.random.split(tf.random.fold_in(tf.constant([0, 0]), done))[0]
        weights.append(machine.sample_posterior(x, min(10, 95 - done), seed).log_weights)
    weights = np.concatenate(weights).astype(np.float64)
    assert weights.shape == (95, 3)
    expected = np.logaddexp.reduce(weights, axis=0) - np.log(95)
    np.testing.assert_allclose(chunks.log_likelihood, expected, atol=1e-5)
    np.testing.assert_allclose(chunks.elbo, weights.mean(axis=0), rtol=1e-5)
    relative = np.exp(weights - weights.max(axis=0))
    ess = relative.sum(axis=0) ** 2 / (relative**2).sum(axis=0)
    np.testing.assert_allclose(chunks.effective_sample_size, ess, rtol=1e-5)


def test_training_learns(binary):
    # Twelve units of which pairs agree: independent units would cost 12 log 2 = 8.3 nats,
    # the pairs have 6 log 2 = 4.16.
    x = np.repeat(binary(1000, 6, probability=0.5), 2, axis=1)
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(12, [8], seed=0)
    machine.compile(keras.optimizers.Adam(2e-2), ReweightedWakeSleep(5))
    machine.fit(x, batch_size=50, epochs=60, verbose=0)
    result = machine.evaluate(x, num_particles=200, return_dict=True, verbose=0)
    assert result["log_likelihood"] > -5.0


@pytest.mark.slow
def test_separate_optimizers_update_their_own_stack(binary):
    machine = make()
    before = [v.numpy() for layer in machine.q_layers for v in layer.variables]
    p_before = machine.p_layers[0].kernel.numpy()
    machine.compile(
        keras.optimizers.Adam(1e-2),
        ReweightedWakeSleep(2),
        q_optimizer=keras.optimizers.SGD(0.0),
    )
    machine.fit(binary(20, 12), verbose=0)
    after = [v.numpy() for layer in machine.q_layers for v in layer.variables]
    for ours, theirs in zip(before, after, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(p_before, machine.p_layers[0].kernel.numpy())


@pytest.mark.parametrize("jit_compile", [False, True])
def test_xla_compiles_the_step_if_asked_to_but_not_its_noise(jit_compile):
    machine = compiled(make(), jit_compile=jit_compile)
    step = tf.function(machine.train_step, autograph=False).get_concrete_function(
        (tf.TensorSpec([None, 12]),)
    )
    graph = step.graph.as_graph_def()
    functions = {function.signature.name: function for function in graph.library.function}
    by_xla = {name for name, function in functions.items() if function.attr["_XlaMustCompile"].b}

    def is_random(nodes):
        return any("Random" in node.op for node in nodes)

    assert bool(by_xla) == jit_compile
    assert is_random(graph.node)
    assert not any(is_random(functions[name].node_def) for name in by_xla)
    assert machine.jit_compile is False  # or Keras would compile all of it


BAD_DATA = {
    "wrong width": (np.zeros([3, 11]), r"expected data of shape \[N, 12\]"),
    "images of another size": (np.zeros([3, 3, 5]), r"expected data of shape \[N, 12\]"),
    "NaN": (np.full([3, 12], np.nan), "every value 0 or 1"),
    "grey levels": (np.full([3, 12], 0.5), "every value 0 or 1"),
    "negative": (np.full([3, 12], -1), "every value 0 or 1"),
    "empty": (np.zeros([0, 12]), "empty"),
    "strings": (np.full([3, 12], "a"), "cannot be read as numbers"),
}


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict", "log_likelihood"])
@pytest.mark.parametrize("data", BAD_DATA)
def test_bad_data(method, data):
    x, message = BAD_DATA[data]
    machine = compiled(make())
    with pytest.raises(ValueError, match=f"(?i){message}"):
        getattr(machine, method)(x)


def test_bad_validation_data(binary):
    with pytest.raises(ValueError, match="every value 0 or 1"):
        compiled(make()).fit(binary(5, 12), validation_data=np.full([3, 12], 0.5))


def test_bad_data_in_a_pipeline():
    pipeline = tf.data.Dataset.from_tensor_slices(np.full([6, 12], 0.5, np.float32)).batch(3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="every value 0 or 1"):
        compiled(make()).fit(pipeline, verbose=0)


def test_targets_are_refused(binary):
    with pytest.raises(ValueError, match="takes no targets"):
        compiled(make()).fit(binary(5, 12), np.zeros(5), verbose=0)


@pytest.mark.parametrize("num_particles", [0, -3, 2.5, True, None])
def test_bad_numbers_of_particles(num_particles, binary):
    with pytest.raises(ValueError, match="`num_particles` must be a positive integer"):
        ReweightedWakeSleep(num_particles)
    with pytest.raises(ValueError, match="`num_particles` must be a positive integer"):
        make().log_likelihood(binary(2, 12), num_particles)
    with pytest.raises(ValueError, match="`num_particles` must be a positive integer"):
        make().sample_posterior(binary(2, 12), num_particles)


@pytest.mark.parametrize("scale", [-1, float("nan"), float("inf"), "on"])
def test_bad_scales(scale):
    with pytest.raises(ValueError, match="`wake_q` must be a finite number of at least 0"):
        ReweightedWakeSleep(5, wake_q=scale)


def test_layers_whose_sizes_do_not_meet():
    with pytest.raises(ValueError, match=r"sizes do not match.*\[8, 4\] units in P and \[8, 5\]"):
        HelmholtzMachine(
            [layers.SBN(12), layers.SBN(8), layers.SBN(4)], [layers.SBN(8), layers.SBN(5)]
        )
    with pytest.raises(ValueError, match="2 P layers and 2 Q layers"):
        HelmholtzMachine([layers.SBN(12), layers.SBN(8)], [layers.SBN(8), layers.SBN(4)])
    with pytest.raises(ValueError, match="takes stochastic layers"):
        HelmholtzMachine([layers.SBN(12), keras.layers.Dense(8)], [layers.SBN(8)])


def test_a_prior_with_a_parent():
    prior = layers.SBN(8)
    prior.build((None, 3))
    with pytest.raises(ValueError, match=r"with 3 parents.*as a prior"):
        HelmholtzMachine([layers.SBN(12), prior], [layers.SBN(8)])


def test_bad_sizes():
    with pytest.raises(ValueError, match="at least one latent layer"):
        HelmholtzMachine.from_sizes(12, [])
    with pytest.raises(ValueError, match="`latents` must be a positive integer"):
        HelmholtzMachine.from_sizes(12, [8, 0])
    with pytest.raises(ValueError, match="names 3 families for 2 latent layers"):
        HelmholtzMachine.from_sizes(12, [8, 4], p=["sbn", "sbn", "nade"])


def test_fit_without_an_objective(binary):
    machine = make()
    with pytest.raises(ValueError, match="`fit` needs an objective"):
        machine.fit(binary(5, 12))
    with pytest.raises(ValueError, match=r"must be an rws_keras\.objectives\.Objective"):
        machine.compile("adam", "mse")


def test_wake_sleep_config():
    objective = WakeSleep(sleep_q=0.5, num_dreams=7)
    copy = WakeSleep.from_config(objective.get_config())
    assert copy.get_config() == objective.get_config()
    assert (copy.num_particles, copy.wake_q, copy.sleep_q) == (1, False, 0.5)


@pytest.mark.slow
def test_seeds_of_64_bits_are_taken(binary):
    machine = HelmholtzMachine.from_sizes(6, [3], seed=2**40 + 1)
    machine.compile("adam", ReweightedWakeSleep(2))
    machine.fit(binary(8, 6), verbose=0)
