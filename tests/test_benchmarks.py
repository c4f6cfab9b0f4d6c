"""What the benchmarks rest on: their count of the work, and their arithmetic."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from marks import slow_except

from benchmarks import machines, tables, time_to_likelihood
from benchmarks.__main__ import RESULTS, SECTIONS, earlier
from rws_keras.training import timing


@pytest.mark.parametrize("latents", slow_except([(20, 15)], [(20,), (20, 15), (20, 15, 10, 5)]))
def test_the_compiled_step_has_the_matrix_products_that_are_counted(latents):
    """None is missing from the count, and the step computes none twice."""
    case = machines.Case("sbn", latents, num_particles=3, batch_size=10)
    machine = machines.make(case)
    x = tf.constant(machines.data(case.batch_size), tf.float32)
    noise = machine.objective.noise(machine, case.batch_size, 0)
    compiled = tf.function(
        lambda x, noise: machine.objective.gradients(machine, x, noise)[0], jit_compile=True
    )
    program = compiled.experimental_get_compiler_ir(x, noise)(stage="optimized_hlo")
    shapes = re.findall(r"= f32\[(\d+),(\d+)\]\S* dot\(", program)
    found = sorted(int(rows) * int(columns) for rows, columns in shapes)
    expected = sorted(rows * columns for rows, _, columns, _ in machines.flops(case))
    assert found == expected


def test_ratios_are_those_of_the_medians():
    calls = []
    times = timing.alternate(
        {
            "slow": lambda steps: calls.append("slow") or [0.03] * steps,
            "fast": lambda steps: calls.append("fast") or [0.01] * steps,
        },
        rounds=3,
    )
    assert calls == ["slow", "fast"] * 4  # warm-up, then in turn
    assert timing.ratio(times["slow"], times["fast"]) == pytest.approx(
        {"ratio": 3.0, "ratio_25": 3.0, "ratio_75": 3.0}
    )
    found = timing.summary(np.array([0.001, 0.002, 0.003]))
    assert found == pytest.approx({"ms": 2.0, "ms_25": 1.5, "ms_75": 2.5})


def test_every_section_has_results_and_tables():
    results = json.loads(RESULTS.read_text())
    assert results.keys() == SECTIONS.keys()
    assert len(list(tables.tables(results))) >= len(SECTIONS)
    assert all(section["run"]["machine"]["cores"] for section in results.values())


def test_earlier_runs_stay_beside_the_newest():
    first = {"times": [1], "gradients": [], "run": {"seed": 0}}
    second = {"times": [2], "run": {"seed": 1}, "earlier": earlier(first, "times")}
    assert earlier(second, "times") == [
        {"times": [1], "run": {"seed": 0}},
        {"times": [2], "run": {"seed": 1}},
    ]


@pytest.mark.parametrize(
    ("nlls", "others", "limit", "epochs"),
    [
        ([120.0, 110.0, 99.0, 98.0], [], np.inf, 6),  # at the target
        ([120.0, 110.0, 105.0, 101.0, 99.0], [], 55.0, 6),  # over the limit
        ([120.0, 110.0, 105.0, 101.0, 99.0], [100.5], np.inf, 8),  # behind another rate
        ([120.0, 110.0, 105.0, 101.0, 99.0], [101.5], np.inf, 10),  # ahead of it
        ([120.0, np.nan, 99.0], [], np.inf, 4),  # diverged
    ],
)
def test_a_run_with_adam_ends(monkeypatch, nlls, others, limit, epochs):
    """A target of 100; every epoch takes ten seconds."""

    class Trainer:
        batch_size, steps = 100, 500

        def epochs(self, first, count):
            return 10.0 * count

    points = iter(nlls)
    monkeypatch.setattr(
        time_to_likelihood, "_evaluate", lambda *_: {"nll": next(points), "nll_se": 0.5}
    )
    runs = [{"curve": [{"epoch": 8, "nll": nll}]} for nll in others]
    found = time_to_likelihood._until(Trainer(), 100.0, limit, runs, None)
    assert (found["epochs"], found["updates"]) == (epochs, 500 * epochs)
    assert found["seconds"] == 10.0 * epochs
