"""Comparisons: what is run, what is chosen, and what is not done again."""

import json
import math

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rws_keras import datasets
from rws_keras.cli.program import app
from rws_keras.errors import UserError
from rws_keras.training import comparing, comparison, comparison_plots, comparison_summary, fitting
from rws_keras.training.step_times import step_times

TINY = """
description = "Two methods on bars"
axis = "objective.num_particles"
axis_title = "particles K"
rates = [1e-4, 3e-2]
tune_at = 2
reference = { method = "RWS", value = 2 }
corrected_rows = 20

[recipe]
dataset = "bars"
epochs = 2
batch_size = 500

[recipe.model]
latents = [4]

[recipe.objective]
name = "reweighted_wake_sleep"

[recipe.evaluation]
validation_particles = 5
validation_rows = 50
num_particles = 50

[[methods]]
name = "RWS"
values = [2, 1]

[[methods]]
name = "VIMCO"
values = [2]
changes.objective = { name = "vimco" }
seeds = [0, 1]
"""


def write(tmp_path, text=TINY):
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return comparison.load(path)


def known_time(tiny, name, value):
    """What says of which recipe a time is."""
    method = next(m for m in tiny.methods if m.name == name)
    recipe = tiny.arm(method, value, tiny.rates[0], 0).recipe
    return {"method": name, "value": value, "recipe": recipe.digest}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A comparison that has been run; its times are given, so that its epochs are known."""
    tmp_path = tmp_path_factory.mktemp("comparison")
    name, tiny = write(tmp_path)
    results = comparing.Results(tmp_path / "results")
    milliseconds = {"ms": 1.0, "ms_25": 1.0, "ms_75": 1.0}
    times = [
        {**known_time(tiny, method, value), **milliseconds, "ratio": ratio}
        for method, value, ratio in (("RWS", 2, 1.0), ("RWS", 1, 0.66), ("VIMCO", 2, 2.1))
    ]
    results.times_path(name).write_text(json.dumps({"times": times}))
    runner = comparing.Runner(tiny, name, results, tmp_path / "runs", Console(quiet=True))
    runner.run()
    return runner


def arm(done, method, value, seed=0):
    rate = comparing.chosen_rate(done.comparison, method, done.results)
    arms = done.comparison.arms(method, rate)
    return next(a for a in arms if (a.value, a.seed) == (value, seed))


def test_the_rate_with_the_best_validation_is_chosen(done):
    for method in ("RWS", "VIMCO"):
        found = {
            first.rate: done.results.validation(first.recipe)
            for first, *_ in done.comparison.tuning_arms(method)
        }
        assert found.keys() == {1e-4, 3e-2}
        assert comparing.chosen_rate(done.comparison, method, done.results) == max(
            found, key=found.get
        )


def test_all_seeds_choose_if_several_rates_have_them(tmp_path):
    _, tiny = write(tmp_path)
    results = comparing.Results(tmp_path / "results")
    chosen = []
    (low, high) = tiny.tuning_arms("VIMCO")
    for arm, value in ((low[0], -9.0), (high[0], -8.0), (high[1], -12.0), (low[1], -10.0)):
        curve = [{"log_likelihood": value}] * arm.recipe.epochs
        results.update(arm.recipe, curve=curve)
        chosen.append(comparing.chosen_rate(tiny, "VIMCO", results))
    # Nothing is known; the first seed; the only rate with both seeds; the mean of both.
    assert chosen == [None, high[0].rate, high[0].rate, low[0].rate]


def test_each_run_is_evaluated_after_equal_updates_and_equal_time(done):
    expected = {("RWS", 2): [2], ("RWS", 1): [2, 3], ("VIMCO", 2): [1, 2]}
    for (method, value), epochs in expected.items():
        known = done.results.read(arm(done, method, value).recipe)
        assert sorted(entry["epoch"] for entry in known["evaluations"]) == epochs
        assert len(known["curve"]) == max(epochs)
    assert not any(done.runs.iterdir())


def test_what_is_done_is_not_done_again(done, monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("nothing is left to train")

    before = {path: path.read_bytes() for path in done.results.directory.iterdir()}
    monkeypatch.setattr(fitting, "train", fail)
    done.run()
    assert {path: path.read_bytes() for path in done.results.directory.iterdir()} == before


def test_a_missing_evaluation_is_made_up_to_the_same_figure(done):
    recipe = arm(done, "RWS", 1).recipe
    path = done.results.path(recipe)
    before = path.read_bytes()
    whole = json.loads(before)
    done.results.update(recipe, evaluations=whole["evaluations"][:1])
    done.run()
    again = json.loads(path.read_text())
    assert again["evaluations"] == whole["evaluations"]
    assert again["curve"] == whole["curve"]


def test_an_interruption_keeps_the_results_that_are_there(done, monkeypatch):
    """Here in a training that is done anew because its evaluations are lost."""
    recipe = arm(done, "RWS", 1).recipe
    path = done.results.path(recipe)
    before = path.read_bytes()
    done.results.update(recipe, evaluations=[])
    lacking = path.read_bytes()

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "train", interrupt)
        with pytest.raises(KeyboardInterrupt):
            done.run()
    assert path.read_bytes() == lacking
    path.write_bytes(before)


def test_the_evaluation_is_the_coarse_one_plus_the_mean_difference(done):
    recipe = arm(done, "RWS", 2).recipe
    data = datasets.load("bars")
    machine = recipe.make_machine(data)
    found = comparing.evaluate(machine, data, recipe, corrected_rows=20)
    options = {"batch_size": recipe.evaluation.batch_size, "seed": 0, "verbose": 0}
    fine = machine.predict(data.test[:20], num_particles=50, **options).mean()
    coarse = machine.predict(data.test[:20], num_particles=5, **options).mean()
    assert found["correction"] == pytest.approx(fine - coarse, abs=1e-5)
    x, counts = datasets.count_rows(data.test)
    everywhere = machine.evaluate(
        x, sample_weight=counts, num_particles=5, return_dict=True, **options
    )
    assert abs(found["correction"]) > 0.01
    assert found["log_likelihood"] == pytest.approx(
        everywhere["log_likelihood"] + found["correction"], abs=1e-5
    )
    assert found["num_data"] == len(data.test)


def test_the_summary_is_over_the_seeds(done):
    rows = comparison_summary.summarize(done.comparison, done.name, done.results)
    assert [(row.method, row.value, row.seeds) for row in rows] == [
        ("RWS", 1, 1),
        ("RWS", 2, 1),
        ("VIMCO", 2, 2),
    ]
    values = [
        next(
            entry["log_likelihood"]
            for entry in done.results.read(arm(done, "VIMCO", 2, seed).recipe)["evaluations"]
            if entry["epoch"] == 2
        )
        for seed in (0, 1)
    ]
    found = rows[-1].updates["log_likelihood"]
    assert found.mean == pytest.approx(sum(values) / 2)
    assert found.spread == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert rows[0].updates["log_likelihood"].spread is None


def test_plots_are_written_and_are_the_same_each_time(done, tmp_path):
    files = []
    for folder in ("a", "b"):
        paths = comparison_plots.plot(done.comparison, done.name, done.results, tmp_path / folder)
        assert [path.name for path in paths] == ["tiny-values", "tiny-curves"]
        files.append({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()})
    assert set(files[0]) == {f"tiny-{w}.{e}" for w in ("values", "curves") for e in ("svg", "png")}
    assert files[0] == files[1]


def test_the_command_shows_the_table_and_does_nothing_again(done, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["compare", str(tmp_path / "tiny.toml"), "--to", str(done.results.directory)]
    write(tmp_path)
    arguments += ["--run-dir", str(tmp_path / "runs"), "--plots", str(tmp_path / "plots")]
    output = CliRunner().invoke(app, arguments, catch_exceptions=False).output
    assert "epoch" not in output.replace("(epochs)", "")
    rows = [line.split() for line in output.splitlines()]
    for cells in comparison_summary.cells(done.comparison, done.name, done.results):
        assert " ".join(cells).split() in rows
    assert len(list((tmp_path / "plots").iterdir())) == 4


@pytest.mark.slow
def test_a_run_that_diverges_is_not_chosen(tmp_path):
    name, tiny = write(tmp_path, TINY.replace("rates = [1e-4, 3e-2]", "rates = [1e-4, 3e38]"))
    tiny = tiny.model_copy(update={"methods": tiny.methods[1:], "reference": None})
    results = comparing.Results(tmp_path / "results")
    runner = comparing.Runner(tiny, name, results, tmp_path / "runs", Console(quiet=True))
    runner.run()
    diverged = tiny.tuning_arms("VIMCO")[1][0].recipe
    assert results.validation(diverged) == -math.inf
    assert comparing.chosen_rate(tiny, "VIMCO", results) == 1e-4


def test_a_method_may_have_learning_rates_of_its_own(tmp_path):
    own = TINY.replace('name = "VIMCO"', 'name = "VIMCO"\nrates = [1e-5]')
    _, tiny = write(tmp_path, own)
    rates = {
        name: [first.rate for first, *_ in tiny.tuning_arms(name)] for name in ("RWS", "VIMCO")
    }
    assert rates == {"RWS": [1e-4, 3e-2], "VIMCO": [1e-5]}
    other = tiny.methods[-1].model_copy(update={"rates": [1e-6]}).model_dump()
    content = {**tiny.model_dump(), "methods": [*tiny.model_dump()["methods"], other]}
    with pytest.raises(ValueError, match="'VIMCO' have different `rates`"):
        comparison.Comparison(**content)


def test_times_are_relative_to_the_reference_and_are_kept(tmp_path):
    _, tiny = write(tmp_path)
    known = [known_time(tiny, "RWS", 1), known_time(tiny, "VIMCO", 2)]
    (row,) = step_times(tiny, known, lambda text: None)
    assert (row["method"], row["value"], row["ratio"]) == ("RWS", 2, 1.0)
    assert row["ms"] > 0.0
    assert step_times(tiny, [*known, row], lambda text: None) == []
    # Of another recipe the time is another.
    changed = [known[0] | {"recipe": "another"}, known[1], row]
    (again,) = step_times(tiny, changed, lambda text: None)
    assert (again["method"], again["value"]) == ("RWS", 1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tune_at", "tune_att", "Did you mean 'tune_at'"),
        ('name = "vimco"', 'name = "vimc"', "Did you mean 'vimco'"),
        ('method = "RWS", value = 2', 'method = "RWS", value = 3', "not among the methods"),
        ("[recipe.model]", '[recipe.optimizer]\nschedule = "cosine"\n[recipe.model]', "constant"),
        ("seeds = [0, 1]", "sedes = [0, 1]", "Did you mean 'seeds'"),
        ("latents = [4]", "latents = [0]", "Method 'RWS' at 2"),
        ("corrected_rows = 20", "corrected_rows = 1", "greater than or equal to 2"),
        ("seeds = [0, 1]", "seeds = [0, ", "tiny.toml"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, old, new, message):
    assert old in TINY
    with pytest.raises(UserError, match=message):
        write(tmp_path, TINY.replace(old, new))


def test_a_name_that_is_not_known():
    with pytest.raises(UserError, match="estimators"):
        comparison.load("estimator")


def test_comparisons_share_their_runs(tmp_path):
    """The three-layer machines of the comparison of depths are runs of that of the estimators."""
    results = comparing.Results(tmp_path)

    def paths(name, method, value):
        _, found = comparison.load(name)
        return {results.path(a.recipe) for a in found.arms(method, 1e-3) if a.value == value}

    three = [200, 200, 200]
    assert paths("depth", "RWS, K = 5", three) < paths("estimators", "RWS", 5)
    assert paths("depth", "wake-sleep", three) == paths("estimators", "wake-sleep", 1)
    assert paths("switches-mnist", "wake and sleep", 5) == paths("estimators", "RWS", 5)


def test_labels_of_values():
    assert comparison.label([200, 100]) == "200-100"
    assert comparison.label({"0": 2, "4": 5}) == "2, 5 from 4"
    assert comparison.label(5) == "5"
