"""Running a comparison: times, learning rates, runs and their evaluations."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from rws_keras import HelmholtzMachine, datasets
from rws_keras.callbacks import DivergenceError
from rws_keras.datasets import BinaryData
from rws_keras.files import make_directory, read_json, replace_file, write_json
from rws_keras.models.unit_activity import ACTIVE, unit_activity
from rws_keras.training import fitting
from rws_keras.training.comparison import Arm, Comparison
from rws_keras.training.recipe import Recipe
from rws_keras.training.run import Run, load_machine, provenance
from rws_keras.training.step_times import step_times

# Test data that unit activities are computed from.
_ACTIVITY_ROWS = 1000


class Results:
    """The results of comparisons on disk.

    A run has a file named after its recipe, so that comparisons share the runs that they have in
    common. What is there is not computed again.

    Args:
        directory: Where they are; created if needed.
    """

    def __init__(self, directory: Path):
        self.directory = make_directory(directory)

    def path(self, recipe: Recipe) -> Path:
        """The file of a recipe's run."""
        data = Path(recipe.dataset).name
        return self.directory / f"{data}-{recipe.objective['name']}-{recipe.digest}.json"

    def read(self, recipe: Recipe) -> dict:
        """What is known of a recipe's run: empty, if nothing is."""
        path = self.path(recipe)
        return read_json(path) if path.exists() else {}

    def update(self, recipe: Recipe, **entries) -> None:
        """Replaces entries of a run's results."""
        known = self.read(recipe) or {"recipe": recipe.model_dump(exclude_defaults=True)}
        write_json(self.path(recipe), {**known, **entries})

    def validation(self, recipe: Recipe) -> float | None:
        """The validation log-likelihood at the end of the recipe's updates, -inf if it diverged.

        `None` if it was not run.
        """
        known = self.read(recipe)
        if "diverged" in known:
            return -math.inf
        curve = known.get("curve", [])
        return curve[recipe.epochs - 1]["log_likelihood"] if len(curve) >= recipe.epochs else None

    def times_path(self, name: str) -> Path:
        """The file of a comparison's times."""
        return self.directory / f"{name}.times.json"

    def times(self, name: str) -> list[dict]:
        """The times of a comparison's steps, as `step_times` returns them; none at first."""
        path = self.times_path(name)
        return read_json(path)["times"] if path.exists() else []


def chosen_rate(comparison: Comparison, method: str, results: Results) -> float | None:
    """The learning rate of a method, or `None` before the runs that choose it are done.

    The first seed chooses; if all seeds were run with several rates, these do.
    """
    arms = {seeds[0].rate: seeds for seeds in comparison.tuning_arms(method)}
    if len(arms) == 1:
        return next(iter(arms))
    first, means = {}, {}
    for rate, seeds in arms.items():
        found = [results.validation(arm.recipe) for arm in seeds]
        if found[0] is None:
            return None
        first[rate] = found[0]
        known = [value for value in found if value is not None]
        if len(known) == len(seeds):
            means[rate] = float(np.mean(known))
    best = max(first, key=first.__getitem__)
    return max(means, key=means.__getitem__) if best in means else best


class Runner:
    """Runs the parts of a comparison that are not done yet.

    Args:
        comparison: The comparison.
        name: Its name.
        results: Where the results are, and go.
        runs: Directory of the run directories. Those of finished runs are removed.
        console: Rich console.
    """

    def __init__(
        self, comparison: Comparison, name: str, results: Results, runs: Path, console: Console
    ):
        self.comparison, self.name = comparison, name
        self.results, self.runs, self.console = results, runs, console

    def run(self) -> None:
        """Times the steps, chooses the learning rates, trains and evaluates."""
        comparison = self.comparison
        if comparison.reference:
            known = self.results.times(self.name)
            measured = step_times(comparison, known, self._say)
            if measured:
                about = provenance(seed=0)
                again = {(row["method"], repr(row["value"])) for row in measured}
                kept = [r for r in known if (r["method"], repr(r["value"])) not in again]
                times = [*kept, *({**row, "run": about} for row in measured)]
                write_json(self.results.times_path(self.name), {"times": times})
        for method in comparison.methods:
            tuning = comparison.tuning_arms(method.name)
            for arm, *_ in tuning if len(tuning) > 1 else []:
                if self.results.validation(arm.recipe) is None:
                    self._train(arm, self._epochs(arm))
            finished: set[float | None] = set()
            while (rate := chosen_rate(comparison, method.name, self.results)) not in finished:
                assert rate is not None
                for arm in comparison.arms_of(method, rate):
                    self._finish(arm)
                finished.add(rate)  # with all seeds done, another one may be better
        for name in comparison.names:
            for arm, *_ in comparison.tuning_arms(name):
                shutil.rmtree(self._path(arm), ignore_errors=True)

    def _say(self, text):
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _path(self, arm):
        return self.runs / self.results.path(arm.recipe).stem

    def _epochs(self, arm: Arm) -> list[int]:
        """The epochs after which an arm is evaluated: at equal updates and at equal time."""
        at_equal_time = equal_time_epochs(self.comparison, self.name, arm, self.results)
        return sorted({arm.recipe.epochs, at_equal_time or arm.recipe.epochs})

    def _train(self, arm: Arm, epochs: list[int]) -> Run:
        """Trains an arm's recipe up to the last of the epochs, from where its run is."""
        run = self._open(arm, epochs)
        try:
            fitting.train(run, arm.title, self.console, callbacks=[Snapshots(run, epochs)])
        except DivergenceError as error:
            self._say(f"{arm.title}: {error}")
            self.results.update(arm.recipe, run=run.about, diverged=str(error))
            shutil.rmtree(run.path)
            return run
        metrics = run.metrics
        self.results.update(
            arm.recipe,
            run=run.about,
            seconds=round(metrics["seconds"], 1),
            curve=[_curve_point(entry) for entry in metrics["history"]],
        )
        keras.backend.clear_session()
        return run

    def _open(self, arm: Arm, epochs: list[int]) -> Run:
        """The run of an arm: one that can go on to all of the epochs, or a new one."""
        run = Run(self._path(arm))
        wanted = arm.recipe.changed(epochs=max(epochs))
        if run.exists():
            done = run.metrics.get("epoch", 0)
            same = run.recipe.changed(epochs=wanted.epochs) == wanted
            passed = [epoch for epoch in epochs if epoch <= done]
            if same and all(snapshot_path(run, epoch).exists() for epoch in passed):
                write_json(run.path / "recipe.json", wanted.model_dump())
                return run
            shutil.rmtree(run.path)
        return Run.create(run.path, wanted)

    def _finish(self, arm: Arm) -> None:
        """Trains an arm's recipe, and evaluates at equal updates and at equal time."""
        recipe = arm.recipe
        known = self.results.read(recipe)
        evaluations = known.get("evaluations", [])
        evaluated = {entry["epoch"] for entry in evaluations}
        missing = [epoch for epoch in self._epochs(arm) if epoch not in evaluated]
        if not missing or "diverged" in known:
            return
        # To the end of the curve that is known already, which must not get shorter.
        run = self._train(arm, sorted({*missing, len(known.get("curve", [])) or missing[0]}))
        if "diverged" in self.results.read(recipe):
            return
        data = recipe.load_data()
        for epoch in missing:
            self._say(f"{arm.title}: evaluating after epoch {epoch}")
            path = snapshot_path(run, epoch)
            machine = load_machine(path, f"Delete {run.path} and start again.")
            result = evaluate(machine, data, recipe, self.comparison.corrected_rows)
            evaluations = [*evaluations, {"epoch": epoch, **result}]
            self.results.update(recipe, evaluations=evaluations)
            test = result["log_likelihood"]
            self._say(f"{arm.title}: test log-likelihood {test:.2f} nats after epoch {epoch}")
        shutil.rmtree(run.path)
        keras.backend.clear_session()


def equal_time_epochs(comparison: Comparison, name: str, arm: Arm, results: Results) -> int | None:
    """Epochs of a run that take as long as all of the reference's, at least one.

    `None` where the comparison has no reference.
    """
    for row in results.times(name):
        if (row["method"], row["value"]) == (arm.method, arm.value):
            return max(round(arm.recipe.epochs / row["ratio"]), 1)
    return None


def evaluate(
    machine: HelmholtzMachine, data: BinaryData, recipe: Recipe, corrected_rows: int
) -> dict[str, Any]:
    """The test log-likelihood of a machine and measures of its latents.

    All test data are evaluated with the recipe's `validation_particles`. The result is corrected by
    the mean difference that its `num_particles` make, measured on some of the data.

    Args:
        machine: The machine.
        data: Its data.
        recipe: How it was trained.
        corrected_rows: On how many of the test data.
    """
    settings = recipe.evaluation
    coarse, fine, seed = settings.validation_particles, settings.num_particles, recipe.seed
    options: dict[str, Any] = {"batch_size": settings.batch_size, "verbose": 0}
    x, counts = datasets.count_rows(data.test)
    result: Any = machine.evaluate(
        x, sample_weight=counts, num_particles=coarse, seed=seed, return_dict=True, **options
    )
    some = data.test[:corrected_rows]
    scores = [machine.predict(some, num_particles=k, seed=seed, **options) for k in (coarse, fine)]
    differences = np.subtract(*scores[::-1], dtype=np.float64)
    activity = unit_activity(machine, data.test[:_ACTIVITY_ROWS], seed=seed)
    return {
        "log_likelihood": result["log_likelihood"] + float(differences.mean()),
        "log_likelihood_se": result["log_likelihood_se"],
        "correction": float(differences.mean()),
        "correction_se": float(differences.std(ddof=1) / math.sqrt(len(differences))),
        "num_particles": fine,
        "coarse_particles": coarse,
        "num_data": int(result["num_data"]),
        "corrected_rows": len(some),
        "elbo": result["elbo"],
        "ess": result["ess"],
        "active_units": [int(np.sum(layer > ACTIVE)) for layer in activity],
    }


class Snapshots(keras.callbacks.Callback):
    """Keeps the machines of some epochs in a run's directory.

    Args:
        run: The run.
        epochs: The epochs, counted from 1.
    """

    def __init__(self, run: Run, epochs: list[int]):
        super().__init__()
        self.run, self.epochs = run, epochs

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if epoch + 1 in self.epochs:
            path = snapshot_path(self.run, epoch + 1)
            make_directory(path.parent)
            with replace_file(path) as temporary:
                self.model.save(temporary)


def snapshot_path(run: Run, epoch: int) -> Path:
    """Where `Snapshots` keeps the machine of an epoch."""
    return run.path / "snapshots" / f"epoch-{epoch:05d}.keras"


def _curve_point(entry: dict) -> dict[str, float]:
    """What is kept of an epoch: validation figures, and the likelihood while training."""
    kept = {name: entry[f"val_{name}"] for name in ("log_likelihood", "elbo", "ess")}
    kept["train_log_likelihood"] = entry["log_likelihood"]
    return {name: round(value, 4) for name, value in kept.items()}
