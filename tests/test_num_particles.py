"""K is data: it changes from step to step, call to call and thread to thread."""

import threading

import keras
import numpy as np
import pytest
from exact import tiny_machine
from marks import slow_except

from rws_keras import HelmholtzMachine
from rws_keras.callbacks import ParticleSchedule
from rws_keras.errors import UserError
from rws_keras.objectives import ReweightedWakeSleep


def make(num_particles=3, **arguments):
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(8, [5, 3], seed=0)
    objective = ReweightedWakeSleep(num_particles)
    machine.compile(keras.optimizers.SGD(0.1), objective, **arguments)
    return machine


WAYS = {
    "compiled": {},
    "without XLA": {"jit_compile": False},
    "eager": {"run_eagerly": True},
    "two steps per execution": {"steps_per_execution": 2, "jit_compile": False},
}


@pytest.mark.parametrize("way", slow_except(["eager"], WAYS))
def test_a_changed_k_takes_effect_with_the_next_step(way, binary):
    x = binary(40, 8)
    machine = make(3, **WAYS[way])
    seen = []
    for num_particles in (3, 7, 3):
        machine.objective.num_particles = num_particles
        history = machine.fit(x, batch_size=10, shuffle=False, verbose=0).history
        seen += history["num_particles"]
        assert 1 <= history["ess"][0] <= num_particles
    assert seen == [3, 7, 3]
    # The steps are those of a machine that always had that K, with the same noise.
    other = make(3, **WAYS[way])
    other.fit(x, batch_size=10, shuffle=False, verbose=0)
    fresh = make(7, **WAYS[way])
    fresh.set_weights(other.get_weights())
    fresh.noise_seed.assign(other.noise_seed)
    fresh.fit(x, batch_size=10, shuffle=False, verbose=0)
    changed = make(3, **WAYS[way])
    for num_particles in (3, 7):
        changed.objective.num_particles = num_particles
        changed.fit(x, batch_size=10, shuffle=False, verbose=0)
    for ours, theirs in zip(changed.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_each_k_is_traced_once(binary):
    machine, x, traced = make(jit_compile=False), binary(40, 8), []
    train_step = machine.train_step

    def counting(data):
        traced.append(machine.objective.num_particles)
        return train_step(data)

    machine.train_step = counting
    machine.make_train_function(force=True)
    for num_particles in (2, 4, 2, 4, 2):
        machine.objective.num_particles = num_particles
        machine.fit(x, batch_size=10, verbose=0)
    assert traced == [2, 4]


def test_particle_schedule(binary):
    machine, x = make(jit_compile=False), binary(20, 8)
    schedule = ParticleSchedule({0: 2, 2: 4})
    history = machine.fit(x, epochs=4, callbacks=[schedule], verbose=0).history
    assert history["num_particles"] == [2, 2, 4, 4]
    schedule = ParticleSchedule(lambda epoch: epoch + 1)
    history = machine.fit(x, epochs=3, callbacks=[schedule], verbose=0).history
    assert history["num_particles"] == [1, 2, 3]
    # A run that goes on has the K of its epoch.
    history = machine.fit(
        x, initial_epoch=3, epochs=4, callbacks=[ParticleSchedule({0: 2, 2: 4})], verbose=0
    ).history
    assert history["num_particles"] == [4]
    with pytest.raises(UserError, match="epoch 0"):
        ParticleSchedule({1: 5})
    with pytest.raises(UserError, match="`K` must be a positive integer"):
        ParticleSchedule({0: 0})


@pytest.mark.slow
def test_evaluating_with_another_k_traces_nothing_anew(binary):
    machine, x = make(), binary(30, 8)

    def use(num_particles, rows):
        machine.evaluate(x[:rows], batch_size=7, num_particles=num_particles, verbose=0)
        machine.predict(x[:rows], batch_size=7, num_particles=num_particles, verbose=0)
        machine.log_likelihood(x[:rows], num_particles, seed=0)
        machine.posterior_mean(x[:rows], num_particles, seed=0)
        machine.reconstruct(x[:rows], num_particles, seed=0)

    use(5, 30)
    kept = machine._functions
    functions = (kept.sums, kept.latent_means, kept.visible_means)
    assert [function.experimental_get_tracing_count() for function in functions] == [1, 1, 1]
    for num_particles, rows in [(6, 30), (1, 4), (200, 13)]:
        use(num_particles, rows)
    assert [function.experimental_get_tracing_count() for function in functions] == [1, 1, 1]


def test_an_uncompiled_machine_stays_uncompiled(binary):
    machine, x = tiny_machine("sbn", "sbn"), binary(5, 4)
    machine.evaluate(x, num_particles=5, verbose=0)
    machine.predict(x, num_particles=5, verbose=0)
    assert not machine.compiled
    assert machine.objective is None
    assert machine.num_particles == 100
    with pytest.raises(UserError, match="`fit` needs an objective"):
        machine.fit(x)
    with pytest.raises(UserError, match="`train_on_batch` needs an objective"):
        machine.train_on_batch(x)


def test_evaluation_leaves_k_as_it_was(binary):
    machine, x = make(), binary(5, 8)
    results = [
        machine.evaluate(x, return_dict=True, verbose=0, **arguments)["num_particles"]
        for arguments in ({}, {"num_particles": 7}, {})
    ]
    assert results == [100, 7, 100]


@pytest.mark.slow
def test_threads_with_different_k(binary):
    machine, x = make(), binary(60, 8)
    expected = {
        k: (
            machine.evaluate(x, batch_size=10, num_particles=k, return_dict=True, verbose=0),
            machine.predict(x, batch_size=10, num_particles=k, verbose=0),
        )
        for k in (1, 4, 16, 64)
    }
    wrong = []

    def work(k):
        for _ in range(8):
            result = machine.evaluate(
                x, batch_size=10, num_particles=k, return_dict=True, verbose=0
            )
            scores = machine.predict(x, batch_size=10, num_particles=k, verbose=0)
            if result != expected[k][0] or not np.array_equal(scores, expected[k][1]):
                wrong.append((k, result))

    threads = [threading.Thread(target=work, args=(k,)) for k in expected for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_callback_may_evaluate_within_an_evaluation(binary):
    machine, x = make(), binary(20, 8)
    expected = machine.evaluate(x, num_particles=9, batch_size=10, return_dict=True, verbose=0)
    inner = []

    class Evaluate(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            result = machine.evaluate(x[:3], num_particles=2, return_dict=True, verbose=0)
            inner.append(result["num_particles"])

    result = machine.evaluate(
        x, num_particles=9, batch_size=10, return_dict=True, verbose=0, callbacks=[Evaluate()]
    )
    assert result == expected
    assert inner == [2, 2]


def test_the_progress_bar_shows_four_metrics(binary, capsys):
    machine, x = make(jit_compile=False), binary(20, 8)
    history = machine.fit(x, epochs=1, validation_data=x, verbose=2).history
    line = capsys.readouterr().out.strip().splitlines()[-1]
    shown = [part.split(":")[0] for part in line.split(" - ") if ":" in part]
    assert shown == ["log_likelihood", "elbo", "ess", "val_log_likelihood"]
    assert len(history) == 22
    machine.evaluate(x, verbose=2)
    line = capsys.readouterr().out.strip().splitlines()[-1]
    shown = [part.split(":")[0] for part in line.split(" - ") if ":" in part]
    assert shown == ["log_likelihood", "elbo", "ess"]
