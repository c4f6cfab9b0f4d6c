"""An export is what TF Serving loads: without Keras, TFP or this project, by three loaders."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from marks import slow_except
from rich.console import Console
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from rws_keras import HelmholtzMachine, resources
from rws_keras.models import pretrained
from rws_keras.models.scorer import Scorer
from rws_keras.serving.export import export
from rws_keras.training import fitting, recipe
from rws_keras.training.run import Run

PRESET = "digits-sbn-64-32"
SIGNATURES = {
    # Its K is that of the preset's calibration.
    "serving_default": [
        *("effective_sample_size", "log_likelihood", "standard_error", "tail_probability"),
    ],
    "score_fast": ["effective_sample_size", "log_likelihood", "standard_error"],
    "score_accurate": ["effective_sample_size", "log_likelihood", "standard_error"],
    "posterior": ["latent_1", "latent_2"],
    "reconstruct": ["mean"],
    "impute": ["completions", "effective_sample_size", "log_likelihood", "mean", "standard_error"],
    "sample": ["mean", "x"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return export(PRESET, tmp_path_factory.mktemp("models"), accurate=300)


@pytest.fixture(scope="module")
def x():
    return HelmholtzMachine.from_preset(PRESET).sample(5, seed=1).x.numpy()


@pytest.fixture(scope="module")
def expected(x):
    """What the Python model gives, of each signature."""
    functions = Scorer(HelmholtzMachine.from_preset(PRESET), accurate=300).signatures()
    return {name: run(functions[name], name, x) for name in SIGNATURES}


def inputs_of(name, x):
    mask = np.ones_like(x)
    mask[:, 32:] = 0.0
    if name == "sample":
        return {"seed": np.arange(len(x), dtype=np.int64)}
    return {"x": x, "mask": mask} if name == "impute" else {"x": x}


def run(function, name, x):
    tensors = {key: tf.constant(array) for key, array in inputs_of(name, x).items()}
    return {key: output.numpy() for key, output in function(**tensors).items()}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key in expected:
        np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


def in_a_fresh_process(code, *arguments):
    """Runs Python code that cannot import Keras, TFP or this project."""
    # `None` is how Python marks a module that is not to be found.
    guard = """
        import sys
        for name in ("keras", "tf_keras", "tensorflow_probability", "rws_keras", "serving"):
            sys.modules[name] = None
    """
    program = textwrap.dedent(guard) + textwrap.dedent(code)
    subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        check=True,
        env={**os.environ, "PYTHONPATH": ""},
        cwd="/",
        timeout=300,
    )


def test_signatures_are_batch_first(model):
    loaded = tf.saved_model.load(str(model))
    assert set(loaded.signatures) == set(SIGNATURES)
    for name, function in loaded.signatures.items():
        assert sorted(function.structured_outputs) == SIGNATURES[name]
        for output in function.structured_outputs.values():
            assert output.shape[0] is None


def test_loaded_again_it_gives_the_same_bits(model, x, expected):
    loaded = tf.saved_model.load(str(model))
    for name in SIGNATURES:
        assert_same(run(loaded.signatures[name], name, x), expected[name])


def test_only_standard_operations_are_used(model):
    """Those that TensorFlow's own library registers: nothing from Python, nothing from TFP."""
    saved = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    nodes = [
        *graph.node,
        *(node for function in graph.library.function for node in function.node_def),
    ]
    operations = {node.op for node in nodes} - {f.signature.name for f in graph.library.function}
    forbidden = {"PyFunc", "EagerPyFunc", "PyFuncStateless", "XlaCallModule", "Assert"}
    assert not operations & forbidden
    assert all(hasattr(tf.raw_ops, operation) for operation in operations)
    assert len(operations) > 20


@pytest.mark.processes
@pytest.mark.parametrize("name", ["serving_default", "impute"])
def test_saved_model_cli_runs_it(name, model, x, expected, tmp_path):
    np.savez(tmp_path / "inputs.npz", **inputs_of(name, x))
    given = ";".join(f"{key}={tmp_path / 'inputs.npz'}[{key}]" for key in inputs_of(name, x))
    command = [Path(sys.executable).with_name("saved_model_cli"), "run", "--dir", model]
    command += ["--tag_set", "serve", "--signature_def", name, "--inputs", given]
    subprocess.run([*command, "--outdir", tmp_path], check=True, capture_output=True, timeout=300)
    found = {key: np.load(tmp_path / f"{key}.npy") for key in SIGNATURES[name]}
    assert_same(found, expected[name])


@pytest.mark.processes
def test_a_session_of_version_1_loads_it(model, x, expected, tmp_path):
    for name in SIGNATURES:
        np.savez(tmp_path / f"{name}.in.npz", **inputs_of(name, x))
    in_a_fresh_process(
        """
        import json
        import numpy as np
        import tensorflow.compat.v1 as tf
        model, folder, names = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
        with tf.Session(graph=tf.Graph()) as session:
            loaded = tf.saved_model.loader.load(session, ["serve"], model)
            for name in names:
                signature = loaded.signature_def[name]
                given = np.load(f"{folder}/{name}.in.npz")
                feed = {signature.inputs[key].name: given[key] for key in given}
                outputs = {key: info.name for key, info in signature.outputs.items()}
                np.savez(f"{folder}/{name}.out.npz", **session.run(outputs, feed))
        """,
        model,
        tmp_path,
        json.dumps(list(SIGNATURES)),
    )
    for name in SIGNATURES:
        assert_same(dict(np.load(tmp_path / f"{name}.out.npz")), expected[name])


@pytest.mark.processes
def test_the_c_api_loads_it(model, x, expected, tmp_path):
    """`TF_LoadSessionFromSavedModel`, the loader of TF Serving, with no Python TensorFlow."""
    saved = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    jobs = {}
    for name in SIGNATURES:
        np.savez(tmp_path / f"{name}.in.npz", **inputs_of(name, x))
        shapes = {key: list(value.shape) for key, value in expected[name].items()}
        jobs[name] = {
            "inputs": {key: info.name for key, info in signatures[name].inputs.items()},
            "outputs": {key: info.name for key, info in signatures[name].outputs.items()},
            "shapes": shapes,
        }
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    subprocess.run(
        [sys.executable, Path(__file__).with_name("c_api.py"), model, tmp_path],
        check=True,
        env={**os.environ, "PYTHONPATH": ""},
        cwd="/",
        timeout=300,
    )
    for name in SIGNATURES:
        assert_same(dict(np.load(tmp_path / f"{name}.out.npz")), expected[name])


def test_it_brings_warm_up_requests_and_its_card(model):
    extra = model / "assets.extra"
    requests = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        for record in tf.data.TFRecordDataset(str(extra / "tf_serving_warmup_requests"))
    ]
    assert [request.model_spec.signature_name for request in requests] == list(SIGNATURES)
    loaded = tf.saved_model.load(str(model))
    for request in requests:
        assert request.model_spec.name == PRESET
        inputs = {key: tf.constant(tf.make_ndarray(p)) for key, p in request.inputs.items()}
        loaded.signatures[request.model_spec.signature_name](**inputs)
    assert (extra / "README.md").read_text().startswith(f"# {PRESET}")
    about = json.loads((extra / "model.json").read_text())
    assert about["num_particles"]["score_accurate"] == 300


def test_versions_count_up_and_leave_nothing_behind(tmp_path):
    (tmp_path / "mine" / "7").mkdir(parents=True)
    version = export(PRESET, tmp_path, name="mine", fast=2, num_particles=2, accurate=2)
    assert version == tmp_path / "mine" / "8"
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["7", "8"]


def test_an_export_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no space left on the device")

    monkeypatch.setattr("rws_keras.serving.export.write_warmup_requests", fail)
    with pytest.raises(OSError, match="no space"):
        export(PRESET, tmp_path, fast=2, num_particles=2, accurate=2)
    assert list((tmp_path / PRESET).iterdir()) == []


@pytest.mark.parametrize("name", ["../up", "a/b", "", "."])
def test_names_that_lead_elsewhere_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match="cannot be the name of a model"):
        export(PRESET, tmp_path, name=name)


# What can be exported, and under which name.

QUICK = {"fast": 2, "num_particles": 2, "accurate": 2}


@pytest.mark.parametrize(
    "source",
    slow_except(["~/presets/{}"], ["{}", "{}/", "~/presets/{}", "presets/{}", "./presets/{}/"]),
)
def test_a_preset_is_exported_by_its_path(source, tmp_path, monkeypatch):
    shutil.copytree(resources.folder("zoo") / PRESET, tmp_path / "presets" / PRESET)
    monkeypatch.chdir(tmp_path if "presets" in source else tmp_path / "presets")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RWS_KERAS_ZOO", str(tmp_path / "none"))
    version = export(source.format(PRESET), tmp_path / "models", **QUICK)
    assert version == tmp_path / "models" / PRESET / "1"


def test_a_preset_without_card_or_recipe_is_exported(tmp_path):
    machine = HelmholtzMachine.from_preset(PRESET)
    version = export(pretrained.save(machine, tmp_path / "mine"), tmp_path / "models", **QUICK)
    assert version == tmp_path / "models" / "mine" / "1"
    assert not (version / "assets.extra" / "README.md").exists()
    about = json.loads((version / "assets.extra" / "model.json").read_text())
    assert about["preset"]["latent_units"] == machine.latent_units


@pytest.mark.parametrize("source", ["{}", "{}/no/such/folder", "digits-sbn"])
def test_what_is_neither_preset_nor_run_is_told(source, tmp_path):
    with pytest.raises(ValueError, match=r"(?i)preset.*directory of a run"):
        export(source.format(tmp_path), tmp_path / "models")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run."""
    run = Run.create(
        tmp_path_factory.mktemp("runs") / "run", recipe.load("digits")[1].changed(epochs=1)
    )
    fitting.fit(run, "run", Console(quiet=True))
    return run.path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("directory", "name", "model"),
    [
        ("v1.2", None, "v1.2"),
        ("Best", None, "Best"),
        ("v1.2", "mine", "mine"),
        ("the best one (2)", "mine", "mine"),
    ],
)
def test_a_run_of_any_name_is_exported(finished, directory, name, model, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / directory)
    monkeypatch.setenv("HOME", str(tmp_path))
    version = export(f"~/{directory}/", tmp_path / "models", name, **QUICK)
    assert version == tmp_path / "models" / model / "1"
    card = (version / "assets.extra" / "README.md").read_text()
    assert card.startswith(f"# {model}\n")


@pytest.mark.slow
def test_a_run_whose_name_no_model_can_have_is_refused(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "the best one")
    with pytest.raises(ValueError, match=r"'the best one' cannot.*--name"):
        export(tmp_path / "the best one", tmp_path / "models", **QUICK)
    assert not (tmp_path / "models").exists()
