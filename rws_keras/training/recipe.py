"""Recipes: everything that defines a run, as data."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import tensorflow as tf
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rws_keras import HelmholtzMachine, datasets, resources
from rws_keras.callbacks import ParticleSchedule
from rws_keras.checks import check_integer, check_positive_integer
from rws_keras.datasets import BinaryData
from rws_keras.errors import UserError
from rws_keras.files import expanded
from rws_keras.models.joint_model import MARGINALIZE
from rws_keras.models.preset_files import is_plain_name
from rws_keras.objectives import OBJECTIVES, Objective
from rws_keras.signatures import check_arguments
from rws_keras.suggestions import unknown
from rws_keras.training.initial_weights import copy_weights
from rws_keras.training.settings import Sections, problems, read_file

RECIPES = resources.folder("recipes")

Family = str | dict[str, Any]


def _positive(value: Any, info: ValidationInfo) -> int:
    return check_positive_integer(value, str(info.field_name))


def _not_negative(value: Any, info: ValidationInfo) -> int:
    return check_integer(value, str(info.field_name), minimum=0)


# Pydantic's own integers may be given as true, "1" or 1.0; the rest of the library refuses these.
PositiveInteger = Annotated[int, BeforeValidator(_positive)]
Seed = Annotated[int, BeforeValidator(_not_negative), Field(lt=2**31)]


def _absolute(path: str) -> str:
    """The path for the commands that come after this one, wherever they are run."""
    return str(expanded(path).absolute())


OwnPath = Annotated[str, AfterValidator(_absolute)]


def _is_path(preset: str) -> bool:
    """Whether a preset is given by its folder, not by its name or address."""
    return not is_plain_name(preset) and "://" not in preset


Preset = Annotated[str, AfterValidator(lambda text: _absolute(text) if _is_path(text) else text)]

# What Keras and TensorFlow raise for arguments that they do not take.
_WRONG_ARGUMENTS = (
    TypeError,
    ValueError,
    tf.errors.InvalidArgumentError,
    tf.errors.UnimplementedError,
)


def optimizers() -> dict[str, type]:
    """Keras's optimizers by the names that it accepts, without those that wrap others."""
    api = keras.optimizers
    wrappers = (api.Optimizer, api.LossScaleOptimizer, api.MultiOptimizer)
    found = {
        name.lower(): each
        for name, each in vars(api).items()
        if isinstance(each, type) and issubclass(each, api.Optimizer) and each not in wrappers
    }
    return dict(sorted(found.items()))


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ModelRecipe(_Section):
    """Arguments of `HelmholtzMachine.from_sizes`."""

    latents: list[PositiveInteger] = Field(min_length=1)
    p: Family | list[Family] = "sbn"
    q: Family | list[Family] = "sbn"
    prior: Family | None = None
    missing: Literal["marginalize"] | None = Field(
        None, description="Whether values may be missing; by default if some are."
    )


class OptimizerRecipe(_Section):
    """A Keras optimizer and the course of its learning rate.

    `cosine` falls to `final_rate` times the learning rate at the last epoch.
    """

    name: str = "adam"
    learning_rate: PositiveFloat = 2e-3
    schedule: Literal["constant", "cosine"] = "constant"
    final_rate: float = Field(0.0, ge=0.0, le=1.0)
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check_names(self) -> OptimizerRecipe:
        if self._class is None:
            raise UserError(unknown("optimizer", self.name, optimizers()))
        if "learning_rate" in self.options:
            raise UserError("`learning_rate` goes next to `options`, not into them.")
        check_arguments(f"Optimizer '{self.name}'", self._class, self.options)
        return self

    @property
    def _class(self) -> Any:
        # Keras's, or one of the user's own that is registered with Keras.
        return optimizers().get(self.name.lower()) or keras.saving.get_registered_object(self.name)

    def make(self, steps: int) -> keras.optimizers.Optimizer:
        """The optimizer for a run with this number of steps."""
        rate = self.learning_rate
        if self.schedule == "cosine":
            rate = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=self.final_rate)
        return self._class(learning_rate=rate, **self.options)

    def check(self) -> None:
        """Makes one update of one variable: only then does an optimizer look at its options.

        Raises:
            ValueError: If a value is not one that the optimizer takes.
        """
        variable = keras.Variable(tf.zeros([1, 1]))
        try:
            self.make(steps=1).apply([tf.zeros([1, 1])], [variable])
        except _WRONG_ARGUMENTS as error:
            raise UserError(
                f"The optimizer '{self.name}' does not work with the options {self.options}: "
                f"{_first_line(error)}"
            ) from error


class EvaluationRecipe(_Section):
    """How likelihoods are estimated: during the run, and at its end."""

    validation_particles: PositiveInteger = 100
    validation_rows: PositiveInteger | None = Field(
        None, description="Number of validation rows to use during the run; all by default."
    )
    num_particles: PositiveInteger = 1000
    batch_size: PositiveInteger = 100


class DataRecipe(_Section):
    """Arguments of `datasets.load_file`, for your own data as `dataset`."""

    validation: float | None = Field(None, gt=0.0, lt=1.0)
    test: float | None = Field(None, gt=0.0, lt=1.0)
    seed: Seed | None = None
    validation_data: OwnPath | None = None
    test_data: OwnPath | None = None
    choices: list[str] = []
    leave_out: list[str] = []
    header: bool | None = None
    threshold: float | None = None


# Those of them that are paths.
_FILES = ("validation_data", "test_data")


class Recipe(_Section):
    """A run: data set, model, objective, optimizer, length and evaluation."""

    description: str = ""
    dataset: str = Field(description="A data set's name, or the path of your own data.")
    data: DataRecipe | None = None
    model: ModelRecipe
    initial_weights: Preset | None = Field(
        None, description="A preset of a machine of the same sizes to begin with."
    )
    objective: dict[str, Any] = {"name": "reweighted_wake_sleep"}
    particle_schedule: dict[int, PositiveInteger] | None = Field(
        None, description="Epochs, counted from 0, with the K that is used from then on."
    )
    optimizer: OptimizerRecipe = OptimizerRecipe()
    q_optimizer: OptimizerRecipe | None = None
    epochs: PositiveInteger
    batch_size: PositiveInteger = 100
    seed: Seed = 0
    patience: PositiveInteger | None = Field(
        None, description="Stop after this many epochs without a better validation likelihood."
    )
    evaluation: EvaluationRecipe = EvaluationRecipe()

    @field_validator("dataset")
    @classmethod
    def _check_dataset(cls, name: str) -> str:
        if datasets.is_path(name):
            return _absolute(name)
        if name not in datasets.NAMES:
            raise UserError(unknown("data set", name, datasets.NAMES))
        return name

    @field_validator("objective")
    @classmethod
    def _check_objective(cls, objective: dict[str, Any]) -> dict[str, Any]:
        _make_objective(objective)
        return objective

    @model_validator(mode="after")
    def _check_data(self) -> Recipe:
        if self.data is not None and not datasets.is_path(self.dataset):
            raise UserError(f"[data] has no effect on the data set '{self.dataset}'.")
        return self

    @model_validator(mode="after")
    def _check_particle_schedule(self) -> Recipe:
        if self.particle_schedule is not None:
            if "num_particles" in self.objective:
                raise UserError(
                    "`num_particles` of [objective] has no effect together with "
                    "[particle_schedule]; leave one out."
                )
            ParticleSchedule(self.particle_schedule)
        return self

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that identify the recipe."""
        content = json.dumps(self.model_dump(exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def paths(self) -> list[str]:
        """The paths of the user's own data."""
        own = [self.dataset] if datasets.is_path(self.dataset) else []
        return own + [path for path in (getattr(self.data, key, None) for key in _FILES) if path]

    def without_paths(self) -> dict[str, Any]:
        """The content for others, without the location of the user's own data."""
        content = self.model_dump()
        content["dataset"] = Path(self.dataset).name
        if self.initial_weights is not None and _is_path(self.initial_weights):
            content["initial_weights"] = Path(self.initial_weights).name
        if self.data is not None:
            files = {key: getattr(self.data, key) for key in _FILES}
            content["data"] |= {key: path and Path(path).name for key, path in files.items()}
        return content

    def load_data(self) -> BinaryData:
        """Loads the data set."""
        if datasets.is_path(self.dataset):
            options = self.data or DataRecipe()
            return datasets.load_file(self.dataset, **options.model_dump())
        return datasets.load(self.dataset)

    def changed(self, **changes: int | None) -> Recipe:
        """A copy with other values for the fields that are not `None`.

        Raises:
            ValueError: If a value is out of its range.
        """
        changes = {name: value for name, value in changes.items() if value is not None}
        return validated({**self.model_dump(), **changes}, "The changed recipe")

    def check(self) -> None:
        """Checks all that a run needs: the data set, the optimizers and the machine.

        Raises:
            ValueError: If something is not available or cannot be made; the message says what.
        """
        data = self.load_data()
        rows = self.evaluation.validation_rows
        if rows is not None and rows > len(data.validation):
            raise UserError(
                f"evaluation.validation_rows is {rows}, but {self.dataset} has "
                f"{len(data.validation)} validation rows; leave it out to use all."
            )
        for optimizer in (self.optimizer, self.q_optimizer):
            if optimizer is not None:
                optimizer.check()
        try:
            self.make_machine(data)
        except UserError:
            raise
        except _WRONG_ARGUMENTS as error:
            raise UserError(
                f"The recipe's machine cannot be made. [model] is {self.model.model_dump()}: "
                f"{_first_line(error)}"
            ) from error

    def make_objective(self) -> Objective:
        """The objective that the recipe names."""
        first = {"num_particles": self.particle_schedule[0]} if self.particle_schedule else {}
        return _make_objective({**self.objective, **first})

    def make_machine(self, data: BinaryData) -> HelmholtzMachine:
        """A fresh machine for these data, compiled; its weights are drawn from the recipe's seed.

        With `initial_weights`, those that the preset also has are copied from it.
        The columns of a table that are choices of several values are choices of the machine, which
        keeps the schema. Where values are missing it marginalizes over them.
        """
        keras.utils.set_random_seed(self.seed)
        groups = data.schema.groups if data.schema else []
        machine = HelmholtzMachine.from_sizes(
            data.train.shape[1],
            **(self.model.model_dump() | ({"missing": MARGINALIZE} if data.has_gaps else {})),
            seed=self.seed,
            choices=groups if max(groups, default=1) > 1 else None,
            schema=data.schema.get_config() if data.schema else None,
        )
        if self.initial_weights is not None:
            copy_weights(HelmholtzMachine.from_preset(self.initial_weights), machine)
        steps = self.epochs * self.steps_per_epoch(len(data.train))
        machine.compile(
            self.optimizer.make(steps),
            self.make_objective(),
            q_optimizer=self.q_optimizer and self.q_optimizer.make(steps),
            num_particles=self.evaluation.validation_particles,
        )
        return machine

    def steps_per_epoch(self, num_data: int) -> int:
        """Minibatches per epoch."""
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
    path = expanded(name_or_path)
    if path.suffix not in (".toml", ".json"):
        path = RECIPES / f"{name_or_path}.toml"
        if not path.exists():
            raise UserError(
                f"{unknown('recipe', str(name_or_path), names())} A recipe of your own is given "
                "as the path of a .toml or .json file."
            )
    if not path.exists():
        raise UserError(f"There is no recipe file {path}.")
    return path.stem, validated(read_file(path, "Recipe"), f"Recipe {path}")


# With fewer rows the weights between the units of an autoregressive layer overfit: an SBN layer
# gives other rows a better likelihood (`python -m benchmarks families`).
_ROWS_PER_UNIT = 2


def for_data(path: str | Path, **options: Any) -> tuple[str, Recipe]:
    """A recipe for the user's own data, of a size that depends on them.

    It has a visible layer whose units depend on those before them (unless there are too few rows
    for that) and half as many latents as visible units, and stops training once the validation
    likelihood has not risen for some time.

    Args:
        path: A table, an array or a folder of images; see `datasets.load_file`. Or the name of a
            data set.
        **options: Of [data], for instance `leave_out`.

    Returns:
        The name of the file without its endings, and the recipe.

    Raises:
        UserError: If the data cannot be loaded.
    """
    content = {"dataset": str(path), "model": {"latents": [1]}, "epochs": 1}
    content |= {"data": options} if options else {}
    where = f"The recipe for {path}"
    data = validated(content, where).load_data()
    rows, units = data.train.shape
    content["model"] = {
        "latents": [min(max(units // 2, 5), 200)],
        "p": "arsbn" if rows >= _ROWS_PER_UNIT * units else "sbn",
        "q": "sbn",
        "prior": "arsbn",
    }
    content |= {
        "description": f"By the size of the data: {rows:,} rows, {units} units",
        "objective": {"name": "reweighted_wake_sleep", "num_particles": 10},
        "optimizer": {"name": "adam", "learning_rate": 3e-3},
        "batch_size": min(100, max(rows // 20, 10)),
        "epochs": 1000,
        "patience": 20,
        "evaluation": {"validation_particles": 100, "num_particles": 1000},
    }
    return expanded(path).name.partition(".")[0], validated(content, where)


def validated(content: object, where: str) -> Recipe:
    """The recipe of what was read from a file; all that is wrong with it in one message."""
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected an object with named fields, got {content!r:.40}.")
    try:
        return Recipe(**content)
    except ValidationError as error:
        raise UserError(problems(error, where, _SECTIONS)) from error


_SECTIONS: Sections = {
    (): Recipe,
    ("data",): DataRecipe,
    ("model",): ModelRecipe,
    ("optimizer",): OptimizerRecipe,
    ("q_optimizer",): OptimizerRecipe,
    ("evaluation",): EvaluationRecipe,
}


def _make_objective(objective: dict[str, Any]) -> Objective:
    arguments = dict(objective)
    name = arguments.pop("name", None)
    if name not in OBJECTIVES:
        raise UserError(unknown("objective", name, OBJECTIVES))
    check_arguments(f"Objective '{name}'", OBJECTIVES[name], arguments)
    return OBJECTIVES[name](**arguments)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or repr(error)
