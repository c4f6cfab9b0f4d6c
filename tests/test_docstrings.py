"""Every example in a docstring of the library runs."""

import ast
import re
from pathlib import Path
from textwrap import dedent

import keras
import numpy as np
import pytest
import tensorflow as tf

import rws_keras

PACKAGE = Path(rws_keras.__file__).parent

# Needs a server: the tests of the client do what it shows.
ELSEWHERE = {"serving/client.py:Client"}
# Those that train.
SLOW = {
    "callbacks/divergence.py:StopOnDivergence",
    "callbacks/schedule.py:ObjectiveSchedule",
    "callbacks/schedule.py:ParticleSchedule",
    "callbacks/tensorboard.py:TensorBoard",
    "models/helmholtz_machine.py:HelmholtzMachine",
}


def examples():
    """The blocks of Python in docstrings, by file and the name of what they are about."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Module):
                text = ast.get_docstring(node) or ""
                for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
                    name = f"{path.relative_to(PACKAGE)}:{getattr(node, 'name', '')}"
                    if name in ELSEWHERE:
                        continue
                    marks = [pytest.mark.slow] if name in SLOW else []
                    name = f"{name}:{number}" if number else name
                    yield pytest.param(dedent(block), id=name, marks=marks)


EXAMPLES = list(examples())


def test_there_are_examples():
    assert len(EXAMPLES) > 15


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example, tmp_path, monkeypatch):
    """With the names that an example may use without introducing them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "survey.csv").write_text("smokes,blood\nyes,A\nno,0\nno,AB\n")
    random = np.random.default_rng(0)
    digits = rws_keras.datasets.load("digits")
    machine = rws_keras.HelmholtzMachine.from_sizes(64, [6, 4], seed=0)
    machine.compile("adam", rws_keras.objectives.ReweightedWakeSleep(2), jit_compile=False)
    names = {
        "rws_keras": rws_keras,
        "keras": keras,
        "np": np,
        "tf": tf,
        "machine": machine,
        "data": digits,
        "x": digits.test[:5].astype(np.float32),
        "x_train": digits.train[:60],
        "x_validation": digits.validation[:20],
        "x_test": digits.test[:20],
        "images": random.integers(0, 256, (40, 64)),
        **{name: getattr(rws_keras, name) for name in ("HelmholtzMachine", "Particles")},
        **{name: getattr(rws_keras.layers, name) for name in rws_keras.layers.__all__},
        **{name: getattr(rws_keras.objectives, name) for name in rws_keras.objectives.__all__},
        "Scorer": rws_keras.models.Scorer,
        "stochastic_binarization": rws_keras.datasets.stochastic_binarization,
        "uniform_noise": rws_keras.layers.noise.uniform_noise,
    }
    exec(compile(example, "docstring", "exec"), names)
