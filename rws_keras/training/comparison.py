"""Comparisons: methods side by side under one protocol, as data."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from rws_keras import resources
from rws_keras.errors import UserError
from rws_keras.files import expanded
from rws_keras.suggestions import unknown
from rws_keras.training import recipe as recipes
from rws_keras.training.recipe import PositiveInteger, Recipe, Seed
from rws_keras.training.settings import Sections, problems, read_file

COMPARISONS = resources.folder("comparisons")


class Arm(NamedTuple):
    """One run of a comparison.

    Attributes:
        method: The name of the method.
        value: The value on the comparison's axis.
        rate: The learning rate.
        seed: The seed.
        recipe: What is run.
    """

    method: str
    value: Any
    rate: float
    seed: int
    recipe: Recipe

    @property
    def title(self) -> str:
        """As on the screen."""
        return f"{self.method}, {label(self.value)}, rate {self.rate:g}, seed {self.seed}"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Method(_Section):
    """A method: what it changes in the common recipe, and its values on the axis.

    Methods with the same name form one curve, with one learning rate. `rates` replaces the
    comparison's learning rates where the best rate of this method is outside their range.
    """

    name: str
    changes: dict[str, Any] = {}
    rates: list[PositiveFloat] | None = Field(None, min_length=1)
    values: list[Any] = Field(min_length=1)
    seeds: list[Seed] = Field([0], min_length=1)


class Point(_Section):
    """A method at a value of the axis."""

    method: str
    value: Any


class Comparison(_Section):
    """Methods under one protocol.

    The common recipe sets the number of updates of all methods. With a `reference`, a method that
    is faster than the reference is also trained until its updates have taken as long as the
    reference's; all methods are evaluated at equal updates and at equal time.

    Attributes:
        description: What is compared.
        axis: The dotted path into the recipe that the values are put at.
        axis_title: What the axis is called in plots.
        recipe: What the recipes have in common.
        rates: The learning rates; the one with the best validation likelihood at the end is
            chosen for each method, by the runs at `tune_at` (or at its first value, where it does
            not have that one): by the first seed, or the mean of all seeds if they were run with
            several rates.
        tune_at: The value of the axis by which the learning rate is chosen.
        reference: The method whose training time defines equal time.
        corrected_rows: Number of test rows that are evaluated with the recipe's full
            `num_particles`; the others with `validation_particles`, corrected by the mean
            difference.
        methods: The methods.
    """

    description: str
    axis: str
    axis_title: str
    recipe: dict[str, Any]
    rates: list[PositiveFloat] = Field(min_length=1)
    tune_at: Any = None
    reference: Point | None = None
    corrected_rows: Annotated[PositiveInteger, Field(ge=2)] = 500
    methods: list[Method] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Comparison:
        arms = [
            self.arm(method, value, self.rates[0], seed)
            for method in self.methods
            for value in method.values
            for seed in method.seeds
        ]
        for arm in arms:
            if self.reference and arm.recipe.optimizer.schedule != "constant":
                raise UserError(
                    "With a `reference` the learning rate must be constant: a machine in the "
                    "middle of a schedule differs from the end of a shorter run."
                )
        if self.reference and not any(
            (arm.method, arm.value) == (self.reference.method, self.reference.value) for arm in arms
        ):
            raise UserError("`reference` is not among the methods and their values.")
        for name in self.names:
            grids = [m.rates for m in self.methods if m.name == name and m.rates]
            if any(rates != grids[0] for rates in grids):
                raise UserError(f"The methods named '{name}' have different `rates`.")
        return self

    def arm(self, method: Method, value: Any, rate: float, seed: int) -> Arm:
        """The run of a method at a value, with a rate and a seed."""
        content = _merged(self.recipe, method.changes)
        _put(content, self.axis, value)
        _put(content, "optimizer.learning_rate", rate)
        content["seed"] = seed
        where = f"Method '{method.name}' at {value}"
        return Arm(method.name, value, rate, seed, recipes.validated(content, where))

    def tuning_arms(self, name: str) -> list[list[Arm]]:
        """The runs that choose the learning rate of a method: for each rate one per seed."""
        methods = [method for method in self.methods if method.name == name]
        method = next((m for m in methods if self.tune_at in m.values), methods[0])
        value = self.tune_at if self.tune_at in method.values else method.values[0]
        rates = next((m.rates for m in methods if m.rates), self.rates)
        return [[self.arm(method, value, rate, seed) for seed in method.seeds] for rate in rates]

    def arms_of(self, method: Method, rate: float) -> list[Arm]:
        """The runs of one of the `methods` with a learning rate."""
        return [
            self.arm(method, value, rate, seed) for seed in method.seeds for value in method.values
        ]

    def arms(self, name: str, rate: float) -> list[Arm]:
        """The runs of all methods with a name, with its learning rate."""
        methods = [method for method in self.methods if method.name == name]
        return [arm for method in methods for arm in self.arms_of(method, rate)]

    def value_title(self, value: Any) -> str:
        """A value with the name of the axis, for particles as `K = 5`."""
        return f"K = {value}" if self.axis == "objective.num_particles" else label(value)

    @property
    def names(self) -> list[str]:
        """The methods' names."""
        return list(dict.fromkeys(method.name for method in self.methods))


_SECTIONS: Sections = {(): Comparison, ("methods",): Method, ("reference",): Point}


def names() -> list[str]:
    """Names of the comparisons that come with the project."""
    return sorted(path.stem for path in COMPARISONS.glob("*.toml"))


def load(name_or_path: str | Path) -> tuple[str, Comparison]:
    """Loads a comparison by name, or from a TOML file.

    Returns:
        The comparison's name and the comparison.

    Raises:
        ValueError: If there is no such comparison, or its content is invalid.
    """
    path = expanded(name_or_path)
    if path.suffix != ".toml":
        path = COMPARISONS / f"{name_or_path}.toml"
        if not path.exists():
            raise UserError(unknown("comparison", str(name_or_path), names()))
    content = read_file(path, "Comparison")
    try:
        return path.stem, Comparison(**content)
    except ValidationError as error:
        raise UserError(problems(error, f"Comparison {path}", _SECTIONS)) from error


def label(value: Any) -> str:
    """A value of an axis in a table or a plot: sizes as `200-100`, a schedule as `2, 5 from 4`."""
    if isinstance(value, list):
        return "-".join(map(str, value))
    if isinstance(value, dict):
        starts = sorted(value, key=int)
        return ", ".join(f"{value[s]} from {s}" if int(s) else str(value[s]) for s in starts)
    return str(value)


def _merged(first: dict, second: dict) -> dict:
    merged = copy.deepcopy(first)
    for key, value in second.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merged(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _put(content: dict, path: str, value: Any) -> None:
    *sections, key = path.split(".")
    for section in sections:
        content = content.setdefault(section, {})
    content[key] = copy.deepcopy(value)
