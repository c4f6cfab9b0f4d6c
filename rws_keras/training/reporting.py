"""What is kept of a finished run: its figures and its samples."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from rws_keras.baselines import ChowLiuTree, IndependentUnits
from rws_keras.datasets import BinaryData
from rws_keras.errors import UserError
from rws_keras.files import expanded, make_directory, replace_file, write_json
from rws_keras.training.run import Run

RESULTS = Path("training") / "results"


def report(run: Run, to: Path) -> Path:
    """Writes `NAME.json` and the samples as `NAME.png` or `NAME.csv`; NAME is the directory's.

    Args:
        run: A finished run.
        to: Directory for the files.

    Returns:
        Path of the JSON file.

    Raises:
        ValueError: If the run has not been evaluated, as it is at its end.
    """
    name = run.path.resolve().name
    content = summary(run)
    to = make_directory(expanded(to))
    for samples in (run.samples, run.samples.with_suffix(".csv")):
        if samples.exists():
            with replace_file(to / f"{name}{samples.suffix}") as copy:
                shutil.copyfile(samples, copy)
    write_json(to / f"{name}.json", content)
    return to / f"{name}.json"


def summary(run: Run) -> dict:
    """What is known about a finished run: recipe, provenance, evaluations, baseline.

    Raises:
        ValueError: If the run has not been evaluated, as it is at its end.
    """
    metrics = run.metrics
    if "diverged" in metrics:
        raise UserError(f"{run.path} has diverged. {metrics['diverged']['message']}")
    if run.status != "finished":
        raise UserError(f"{run.path} is not finished. Continue it with `rws-keras fit … --resume`.")
    recipe = run.recipe
    data = recipe.load_data()
    about = run.about
    # The locations of the directory and the data on that computer do not matter to others.
    command = about["command"].replace(str(run.path), f"runs/{run.path.resolve().name}")
    for path in recipe.paths():
        command = command.replace(path, Path(path).name)
    about["command"] = command
    return {
        "recipe": recipe.without_paths(),
        "run": about,
        "num_parameters": run.best_machine().count_params(),
        "epochs": metrics["epoch"],
        "updates": metrics["epoch"] * recipe.steps_per_epoch(len(data.train)),
        "best_epoch": metrics["best_epoch"],
        "seconds": round(metrics["seconds"], 1),
        "evaluations": run.evaluations,
        "validation_curve": [round(entry["val_log_likelihood"], 3) for entry in metrics["history"]],
        "independent_units": baseline_likelihood(IndependentUnits(data.train), data),
    }


def baseline_likelihood(
    baseline: IndependentUnits | ChowLiuTree, data: BinaryData
) -> dict[str, float]:
    """Test log-likelihood of a classical model.

    Args:
        baseline: The model.
        data: The data set.

    Returns:
        `log_likelihood` in nats per datum, and its standard error over the data.
    """
    log_likelihoods = baseline.log_likelihood(data.test)
    return {
        "log_likelihood": float(log_likelihoods.mean()),
        "log_likelihood_se": float(log_likelihoods.std(ddof=1) / math.sqrt(len(data.test))),
    }
