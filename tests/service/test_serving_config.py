"""The files for TensorFlow Serving are what it, Docker and Kubernetes read."""

import configparser
import json
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import typer
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

import rws_keras
from rws_keras.cli.program import app
from rws_keras.serving.model_config import parse_config
from rws_keras.serving.predictor import Limits
from rws_keras.serving.server import GRACE_SECONDS

CONFIG = Path(__file__).parents[2] / "serving"
# Of tensorflow_model_server, as its documentation has them.
FLAGS = {
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
    "allow_version_labels_for_unavailable_models",
}


def message(name, fields):
    """A message of TF Serving whose protobuf is not in `tensorflow-serving-api`, by its fields."""
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{name}.proto",
        package="tensorflow.serving.test",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    made = file.message_type.add(name=name)
    for number, (field, kind) in enumerate(fields.items(), start=1):
        repeated = kind.startswith("repeated ")
        kind = kind.removeprefix("repeated ")
        entry = made.field.add(
            name=field,
            number=number,
            label=types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL,
        )
        if kind in ("int64", "bool", "string"):
            entry.type = types.Type.Value(f"TYPE_{kind.upper()}")
        else:
            entry.type, entry.type_name = types.TYPE_MESSAGE, kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    if name == "MonitoringConfig":
        inner = file.message_type.add(name="PrometheusConfig")
        inner.field.add(name="enable", number=1, label=1, type=types.TYPE_BOOL)
        inner.field.add(name="path", number=2, label=1, type=types.TYPE_STRING)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))()


def batching():
    """The protobuf of `--batching_parameters_file`: session_bundle_config.proto."""
    number = ".google.protobuf.Int64Value"
    return message(
        "BatchingParameters",
        {
            "max_batch_size": number,
            "batch_timeout_micros": number,
            "max_enqueued_batches": number,
            "num_batch_threads": number,
            "thread_pool_name": ".google.protobuf.StringValue",
            "allowed_batch_sizes": "repeated int64",
            "pad_variable_length_inputs": "bool",
            "enable_large_batch_splitting": ".google.protobuf.BoolValue",
            "max_execution_batch_size": number,
        },
    )


def test_models():
    config = parse_config((CONFIG / "models.config").read_text())
    assert isinstance(config, model_server_config_pb2.ModelServerConfig)
    for model in config.model_config_list.config:
        assert model.name in rws_keras.presets()
        assert model.base_path == f"/models/{model.name}"
        assert model.model_platform == "tensorflow"


def test_batching():
    found = text_format.Parse((CONFIG / "batching.config").read_text(), batching())
    # As many rows as the server of this project accepts, in the batches that it makes.
    assert found.max_batch_size.value == Limits().rows
    assert found.enable_large_batch_splitting.value
    assert found.max_execution_batch_size.value == 64
    assert found.num_batch_threads.value >= 1
    with pytest.raises(text_format.ParseError):
        text_format.Parse("max_batch: 3", batching())


def test_monitoring():
    kind = ".tensorflow.serving.test.PrometheusConfig"
    found = message("MonitoringConfig", {"prometheus_config": kind})
    text_format.Parse((CONFIG / "monitoring.config").read_text(), found)
    assert found.prometheus_config.enable
    assert found.prometheus_config.path == "/monitoring/prometheus/metrics"


def check_arguments(arguments):
    given = dict(argument.removeprefix("--").split("=") for argument in arguments)
    assert set(given) <= FLAGS
    for value in given.values():
        if value.startswith("/config/"):
            assert (CONFIG / Path(value).name).is_file()
    # TF Serving refuses at start a label of a version that is not loaded yet: any label.
    config = parse_config((CONFIG / Path(given["model_config_file"]).name).read_text())
    assert any(model.version_labels for model in config.model_config_list.config)
    assert given["allow_version_labels_for_unavailable_models"] == "true"


@pytest.mark.processes
def test_docker_compose():
    path = CONFIG / "docker-compose.yml"
    command = [sys.executable, "-m", "check_jsonschema"]
    result = subprocess.run(
        [*command, "--builtin-schema", "vendor.compose-spec", path], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
    service = yaml.safe_load(path.read_text())["services"]["tensorflow-serving"]
    check_arguments(service["command"])
    sources = [volume.split(":")[0] for volume in service["volumes"]]
    assert (CONFIG / sources[0]).resolve() == CONFIG.parent / "models"
    assert (CONFIG / sources[1]).resolve() == CONFIG


def test_kubernetes():
    documents = list(yaml.safe_load_all((CONFIG / "kubernetes.yml").read_text()))
    assert {document["kind"] for document in documents} >= {"Deployment", "Service"}
    for document in documents:
        kubernetes_validate.validate(document, "1.37", strict=True)
    by_kind = {document["kind"]: document for document in documents}
    template = by_kind["Deployment"]["spec"]["template"]
    assert by_kind["Service"]["spec"]["selector"] == template["metadata"]["labels"]
    (container,) = template["spec"]["containers"]
    check_arguments(container["args"])
    compose = yaml.safe_load((CONFIG / "docker-compose.yml").read_text())
    assert container["args"] == compose["services"]["tensorflow-serving"]["command"]
    assert container["image"] == compose["services"]["tensorflow-serving"]["image"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in template["spec"]["volumes"]}
    broken = json.loads(json.dumps(by_kind["Service"]))
    broken["spec"]["ports"][0]["port"] = "many"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.37", strict=True)


def embedded_options(arguments):
    """What `rws-keras serve` reads of its arguments; unknown ones raise."""
    serve = typer.main.get_command(app).commands["serve"]
    return serve.make_context("serve", list(arguments)).params


def dockerfile():
    """The instructions of the Dockerfile, with continued lines joined."""
    text = (CONFIG / "Dockerfile").read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_dockerfile():
    """It copies what the package is built from, and starts the command with options it has."""
    known = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    instructions = dockerfile()
    assert {name for name, _ in instructions} == known
    copied = [path for name, value in instructions if name == "COPY" for path in value.split()[:-1]]
    assert all((CONFIG.parent / path).exists() for path in copied)
    project = tomllib.loads((CONFIG.parent / "pyproject.toml").read_text())
    built = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert {*built, "pyproject.toml", project["project"]["readme"]} <= set(copied)
    found = dict(instructions)
    assert json.loads(found["ENTRYPOINT"]) == ["rws-keras", "serve"]
    options = embedded_options(json.loads(found["CMD"]))
    assert str(options["models"]) == "/models"
    assert found["EXPOSE"].split() == [str(options["grpc_port"]), str(options["rest_port"])]
    assert found["USER"] != "root"
    probe = json.loads(found["HEALTHCHECK"].split("CMD ")[1])
    assert f":{options['rest_port']}/readyz" in probe[-1]
    compile(probe[-1], "HEALTHCHECK", "exec")


def test_kubernetes_for_the_embedded_server():
    documents = list(yaml.safe_load_all((CONFIG / "kubernetes-embedded.yml").read_text()))
    for document in documents:
        kubernetes_validate.validate(document, "1.37", strict=True)
    by_kind = {document["kind"]: document for document in documents}
    assert set(by_kind) == {"PersistentVolumeClaim", "Deployment", "Service"}
    template = by_kind["Deployment"]["spec"]["template"]
    assert by_kind["Service"]["spec"]["selector"] == template["metadata"]["labels"]
    assert template["spec"]["terminationGracePeriodSeconds"] > GRACE_SECONDS
    (container,) = template["spec"]["containers"]
    options = embedded_options(container["args"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": options["grpc_port"], "rest": options["rest_port"]}
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert [variable["name"] for variable in container["env"]] == ["RWS_KERAS_API_KEY"]
    assert f"USER {template['spec']['securityContext']['runAsUser']}" in map(" ".join, dockerfile())
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in template["spec"]["volumes"]}


def test_systemd_unit(tmp_path):
    path = CONFIG / "rws-keras-serving.service"
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str
    unit.read_string(path.read_text())
    program, command, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert (Path(program).name, command) == ("rws-keras", "serve")
    embedded_options(arguments)
    assert int(unit["Service"]["TimeoutStopSec"]) > GRACE_SECONDS
    assert not unit["Service"]["EnvironmentFile"].startswith("-")  # it must be there, with a key
    assert unit["Install"]["WantedBy"] == "multi-user.target"
    if shutil.which("systemd-analyze") is None:
        return  # without systemd, what is above is what can be checked
    # It looks for the program, which this machine has elsewhere; a misspelt name is reported.
    here = path.read_text().replace(program, sys.executable)
    for text, complaint in [(here, ""), (here.replace("MemoryMax", "MemoryMxa"), "MemoryMxa")]:
        (tmp_path / path.name).write_text(text)
        verify = ["systemd-analyze", "verify", tmp_path / path.name]
        result = subprocess.run(verify, capture_output=True, text=True)
        assert complaint in result.stderr
        assert (path.name in result.stderr) == bool(complaint), result.stderr
