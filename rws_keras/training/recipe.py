"""Recipes: everything that defines a run, as data."""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from pathlib import Path
from typing import Any, Literal

import keras
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from rws_keras import HelmholtzMachine, resources
from rws_keras.errors import UserError
from rws_keras.objectives import OBJECTIVES, Objective

RECIPES = resources.folder("recipes")

Family = str | dict[str, Any]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ModelRecipe(_Section):
    """Arguments of `HelmholtzMachine.from_sizes`."""

    latents: list[PositiveInt] = Field(min_length=1)
    p: Family | list[Family] = "sbn"
    q: Family | list[Family] = "sbn"
    prior: Family | None = None


class OptimizerRecipe(_Section):
    """A Keras optimizer and the course of its learning rate.

    `cosine` falls to `final_rate` times the learning rate at the last epoch.
    """

    name: str = "adam"
    learning_rate: PositiveFloat = 2e-3
    schedule: Literal["constant", "cosine"] = "constant"
    final_rate: float = Field(0.0, ge=0.0, le=1.0)
    options: dict[str, Any] = {}

    def make(self, steps: int) -> keras.optimizers.Optimizer:
        """The optimizer for a run of so many steps."""
        rate = self.learning_rate
        if self.schedule == "cosine":
            rate = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=self.final_rate)
        config = {"learning_rate": rate, **self.options}
        return keras.optimizers.get({"class_name": self.name, "config": config})


class EvaluationRecipe(_Section):
    """How likelihoods are estimated: during the run, and at its end."""

    validation_particles: PositiveInt = 100
    num_particles: PositiveInt = 1000
    batch_size: PositiveInt = 100


class Recipe(_Section):
    """A run: data set, model, objective, optimizer, length and evaluation."""

    description: str = ""
    dataset: str
    model: ModelRecipe
    objective: dict[str, Any] = {"name": "reweighted_wake_sleep"}
    optimizer: OptimizerRecipe = OptimizerRecipe()
    q_optimizer: OptimizerRecipe | None = None
    epochs: PositiveInt
    batch_size: PositiveInt = 100
    seed: int = Field(0, ge=0, lt=2**31)
    patience: PositiveInt | None = Field(
        None, description="Stop after so many epochs without a better validation likelihood."
    )
    evaluation: EvaluationRecipe = EvaluationRecipe()

    def changed(self, **changes: int | None) -> Recipe:
        """A copy with other values for the fields that are not `None`."""
        changes = {name: value for name, value in changes.items() if value is not None}
        return Recipe(**{**self.model_dump(), **changes})

    def make_objective(self) -> Objective:
        """The objective that the recipe names.

        Raises:
            ValueError: If there is no such objective, or it does not take the arguments.
        """
        arguments = dict(self.objective)
        name = arguments.pop("name", None)
        if name not in OBJECTIVES:
            raise UserError(_unknown("objective", name, OBJECTIVES))
        try:
            return OBJECTIVES[name](**arguments)
        except TypeError as error:
            raise UserError(f"Objective '{name}': {error}") from error

    def make_machine(self, visible: int, num_data: int) -> HelmholtzMachine:
        """A fresh machine, compiled; its weights are drawn from the recipe's seed."""
        keras.utils.set_random_seed(self.seed)
        machine = HelmholtzMachine.from_sizes(visible, **self.model.model_dump(), seed=self.seed)
        steps = self.epochs * self.steps_per_epoch(num_data)
        machine.compile(
            self.optimizer.make(steps),
            self.make_objective(),
            q_optimizer=self.q_optimizer and self.q_optimizer.make(steps),
            num_particles=self.evaluation.validation_particles,
        )
        return machine

    def steps_per_epoch(self, num_data: int) -> int:
        """Minibatches an epoch."""
        return math.ceil(num_data / self.batch_size)


def names() -> list[str]:
    """Names of the recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load(name_or_path: str | Path) -> tuple[str, Recipe]:
    """Loads a recipe by name, or from a TOML or JSON file.

    Returns:
        The recipe's name and the recipe.

    Raises:
        ValueError: If there is no such recipe, or it does not hold what it should.
    """
    path = Path(name_or_path)
    if path.suffix not in (".toml", ".json"):
        path = RECIPES / f"{name_or_path}.toml"
        if not path.exists():
            raise UserError(_unknown("recipe", str(name_or_path), names()))
    if not path.exists():
        raise UserError(f"There is no recipe file {path}.")
    try:
        text = path.read_text()
        recipe = Recipe(**(json.loads(text) if path.suffix == ".json" else tomllib.loads(text)))
        recipe.make_objective()
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise UserError(f"Recipe {path}: {problems}.") from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, ValueError) as error:
        raise UserError(f"Recipe {path}: {error}") from error
    return path.stem, recipe


def _unknown(kind, name, known) -> str:
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"Unknown {kind} {name!r}; expected one of {', '.join(known)}.{hint}"
