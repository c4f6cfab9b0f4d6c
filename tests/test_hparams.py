"""The HParams tab of several runs, as TensorBoard's own server makes it."""

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from rws_keras import HelmholtzMachine
from rws_keras.callbacks import TensorBoard, log_results
from rws_keras.objectives import ReweightedWakeSleep
from rws_keras.training import fitting
from rws_keras.training.recipe import Recipe
from rws_keras.training.run import Run


def train(machine, directory, name, **hyperparameters):
    x = np.tile(np.eye(4, dtype=np.uint8), (3, 1))
    board = TensorBoard(directory, hyperparameters=hyperparameters, run_name=name)
    machine.fit(x, validation_data=x, callbacks=[board], verbose=0)
    results = {
        split: machine.evaluate(x, num_particles=20, seed=seed, return_dict=True, verbose=0)
        for seed, split in enumerate(("validation", "test"))
    }
    log_results(directory, results, step=1)
    return results


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """Columns and rows of the tab: two pairs of equal runs, and what was measured of them."""
    directory = tmp_path_factory.mktemp("runs")
    # One machine, which is trained on and on: what it is makes no difference here.
    machine = HelmholtzMachine.from_sizes(4, [2], seed=0)
    machine.compile("adam", ReweightedWakeSleep(2), jit_compile=False, num_particles=5)
    results = {
        "first": train(machine, directory / "a" / "logs", "first", K=2, optimizer="adam"),
        "second": train(machine, directory / "b" / "logs", "second", K=2, optimizer="adam"),
        "c/logs/summary": train(machine, directory / "c" / "logs", None, K=3, rate=0.5),
        "d/logs/summary": train(machine, directory / "d" / "logs", None, K=3, rate=0.5),
    }
    return *ask(directory), results


def ask(directory):
    """Columns, and rows by name."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(directory)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(directory))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request = RequestContext()
    experiment = context.experiment_from_metadata(
        request,
        "",
        include_metrics=True,
        hparams_run_to_tag_to_content=context.hparams_metadata(request, ""),
        data_provider_hparams=[],
    )
    asked = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=[api_pb2.STATUS_UNKNOWN], slice_size=100
    )
    groups = list_session_groups.Handler(request, context, "", asked).run().session_groups
    return experiment, {group.name: group for group in groups}


def test_equal_runs_have_rows_of_their_own_with_readable_names(tab):
    _, rows, results = tab
    assert set(rows) == set(results)
    assert all(len(row.sessions) == 1 for row in rows.values())


def test_columns_are_those_of_all_runs(tab):
    experiment, rows, _ = tab
    assert {info.name for info in experiment.hparam_infos} == {"K", "optimizer", "rate"}
    assert rows["second"].hparams["optimizer"].string_value == "adam"
    assert rows["d/logs/summary"].hparams["rate"].number_value == 0.5


def test_metrics_are_the_likelihoods_of_validation_and_test(tab):
    experiment, rows, results = tab
    tags = ["log_likelihood/test", "log_likelihood/validation"]
    assert sorted(info.name.tag for info in experiment.metric_infos) == [
        *tags,
        "log_likelihood/validation_in_training",
    ]
    for name, row in rows.items():
        metrics = {metric.name.tag: metric.value for metric in row.metric_values}
        for tag in tags:
            expected = results[name][tag.partition("/")[2]]["log_likelihood"]
            np.testing.assert_allclose(metrics[tag], expected, rtol=1e-6)
    first = results["first"]
    assert first["validation"]["log_likelihood"] != first["test"]["log_likelihood"]


def test_a_run_by_recipe_has_its_name_its_recipe_and_its_test_result(tmp_path):
    recipe = Recipe(
        dataset="digits",
        epochs=1,
        model={"latents": [5]},
        evaluation={"validation_particles": 2, "num_particles": 10},
    )
    run = Run.create(tmp_path / "mine", recipe)
    fitting.fit(run, "mine", Console(quiet=True))
    _, rows = ask(run.logs)
    (name,) = rows
    # With its start: a run of the same name in another directory is another row.
    date, time = run.about["started"].removesuffix("+00:00").split("T")
    assert name == f"mine ({date} {time})"
    assert rows[name].hparams["optimizer.name"].string_value == "adam"
    found = {metric.name.tag: metric for metric in rows[name].metric_values}
    for entry in run.evaluations:
        metric = found[f"log_likelihood/{entry['split']}"]
        np.testing.assert_allclose(metric.value, entry["log_likelihood"], rtol=1e-6)
        assert metric.training_step == 1
    assert {entry["split"] for entry in run.evaluations} == {"validation", "test"}
