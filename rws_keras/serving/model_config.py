"""Which models a server serves: TF Serving's `ModelServerConfig`, of a file or of a directory."""

from __future__ import annotations

import os
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from rws_keras.files import expanded
from rws_keras.serving import model_files
from rws_keras.serving.errors import Code, ServingError, invalid


def parse_config(text: str) -> ModelServerConfig:
    """Reads a `models.config`.

    Raises:
        ServingError: If it is not the text form of a `ModelServerConfig`, or TF Serving would
            refuse what it says.
    """
    try:
        config = text_format.Parse(text, ModelServerConfig())
    except text_format.ParseError as error:
        raise invalid(f"The model configuration cannot be read: {error}.") from error
    check_config(config)
    return config


def directory_config(models: Path) -> ModelServerConfig:
    """The configuration of all models under a directory, each with its latest version.

    Raises:
        OSError: If the directory cannot be read; that is no order to unload its models.
    """
    config = ModelServerConfig()
    for path in sorted(models.iterdir()):
        if model_files.has_versions(path):
            config.model_config_list.config.add(
                name=path.name, base_path=str(path), model_platform="tensorflow"
            )
    return config


def check_config(config: ModelServerConfig) -> None:
    """Checks what is wrong whatever lies on the disk.

    Raises:
        ServingError: If models have no name, the name of another, a relative path or a platform
            other than TensorFlow.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise invalid("Expected a `model_config_list` in the model configuration.")
    names = set()
    for model in config.model_config_list.config:
        if not model.name:
            raise invalid(f"Each model needs a name; this one has none: {model}")
        if model.name in names:
            raise invalid(f"Model '{model.name}' is listed more than once; give each its own name.")
        names.add(model.name)
        if not expanded(model.base_path).is_absolute():
            raise invalid(
                f"Model '{model.name}' needs an absolute base_path, got '{model.base_path}'."
            )
        platform = model.model_platform or {1: "tensorflow"}.get(model.model_type, "")
        if platform != "tensorflow":
            raise invalid(
                f"Model '{model.name}' needs `model_platform: \"tensorflow\"`, got '{platform}'."
            )


def check_reload(config: ModelServerConfig) -> None:
    """Checks a configuration that is to replace the one of a running server, as a whole.

    Raises:
        ServingError: As `check_config`, and if a base path has no versions, or a label names a
            version that would not be served.
    """
    check_config(config)
    for model in config.model_config_list.config:
        if not os.path.isdir(expanded(model.base_path)):
            raise invalid(f"There is no base path {model.base_path} for model '{model.name}'.")
        found = model_files.wanted_versions(model)
        if not found:
            raise invalid(f"No versions of model '{model.name}' are under {model.base_path}.")
        for label, version in sorted(model.version_labels.items()):
            if version not in found:
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"The label '{label}' of model '{model.name}' is for version {version}, which "
                    f"would not be served; served would be {', '.join(map(str, sorted(found)))}.",
                )
