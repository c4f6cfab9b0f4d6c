"""The files of the project agree with each other, and are what their readers expect."""

import json
import re
import sys
import tomllib

import check_jsonschema
import pytest
from click.testing import CliRunner
from dependencies import ROOT, closure, requirements
from packaging.utils import canonicalize_name

import rws_keras
from rws_keras import resources
from rws_keras.errors import UserError

RESULTS = ROOT / "training" / "README.md"


@pytest.fixture(scope="module")
def lock():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if line and line[0] != "#"]
    assert all(pins), "Every line of requirements.txt pins a version."
    return {canonicalize_name(pin[1]): pin[2] for pin in pins}


def test_the_lock_is_within_the_ranges_of_the_project(lock):
    for requirement in requirements("test"):
        assert lock[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_lock_pins_what_the_dependencies_need_and_nothing_else(lock):
    assert closure(requirements("test")) == lock.keys()


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        (".github/workflows/ci.yml", "vendor.github-workflows"),
        (".github/workflows/ci.yml", "custom.github-workflows-require-timeout"),
        ("CITATION.cff", "vendor.citation-file-format"),
    ],
)
def test_schemas(path, schema):
    arguments = ["--builtin-schema", schema, str(ROOT / path)]
    result = CliRunner().invoke(check_jsonschema.main, arguments)
    assert result.exit_code == 0, result.output


def test_the_workflow_runs_the_script_of_ci():
    assert "run: bash .ci/run\n" in (ROOT / ".github/workflows/ci.yml").read_text()
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")


def test_the_changelog_knows_the_version():
    assert f"## [{rws_keras.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def table(heading):
    """Rows of the table below a heading of training/README.md, by the name in the first cell."""
    section = RESULTS.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| [")]
    return {row[0].split("`")[1]: [cell.strip() for cell in row[1:]] for row in rows}


def test_every_recipe_is_listed():
    presets = {}
    for path in resources.folder("zoo").glob("*/recipe.json"):
        link = f"[`{path.parent.name}`](../zoo/{path.parent.name}/README.md)"
        presets[json.loads(path.read_text())["description"]] = link
    expected = {}
    for path in resources.folder("recipes").glob("*.toml"):
        description = tomllib.loads(path.read_text())["description"]
        expected[path.stem] = [description, presets.get(description, "")]
    assert table("What was trained") == expected


def test_figures_of_the_results():
    expected = {}
    for path in (ROOT / "training" / "results").glob("*.json"):
        result = json.loads(path.read_text())
        (test,) = (
            entry
            for entry in result["evaluations"]
            if entry["split"] == "test" and "first_rows" not in entry
        )
        assert test["num_particles"] == 1000
        expected[path.stem] = [
            f"{test['log_likelihood']:.2f} ({test['log_likelihood_se']:.2f})",
            str(result["epochs"]),
            str(result["best_epoch"]),
            f"{result['seconds'] / 60:.1f}",
        ]
    assert table("Results") == expected


@pytest.mark.parametrize("name", ["binarized_mnist", "dna"])
def test_a_data_set_whose_extra_is_not_installed_says_so(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=re.escape(f"'{name}' needs TensorFlow Datasets")) as caught:
        rws_keras.datasets.load(name)
    assert "pip install 'rws-keras[train]'" in str(caught.value)
