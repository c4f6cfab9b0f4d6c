"""The files for TensorFlow Serving are what it, Docker and Kubernetes read."""

import json
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
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
from rws_keras.serving.model_config import parse_config

CONFIG = Path(__file__).parents[2] / "serving"
# Of tensorflow_model_server, as its documentation has them.
FLAGS = {
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
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
    assert found.max_batch_size.value == 256
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
