"""The models of a server: which versions there are, which are loaded, and when they change."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config import model_server_config_pb2

from rws_keras.files import expanded
from rws_keras.serving.errors import invalid, not_found
from rws_keras.serving.servable import Servable

_log = logging.getLogger(__name__)

State = ModelVersionStatus.State
_INTERNAL = 13  # the canonical code for "the server's own fault"


@dataclasses.dataclass
class Version:
    """One version of a model, and what became of it."""

    number: int
    state: int = State.LOADING
    error: str = ""
    error_stamp: float = 0.0
    servable: Servable | None = None
    in_flight: int = 0

    def status(self) -> ModelVersionStatus:
        """The version's status as TF Serving's API gives it."""
        status = ModelVersionStatus(version=self.number, state=self.state)
        status.status.error_code = _INTERNAL if self.error else 0
        status.status.error_message = self.error
        return status


class Repository:
    """The models under a directory, or of a `models.config`, kept up to date.

    A new version is loaded and warmed up beside the one that serves, takes its place, and the
    old one is let go when its last request is answered: nothing is dropped. A version that
    cannot be loaded leaves the old one where it is, and a model whose directory is empty,
    unfinished, damaged or unreadable leaves the other models as they are.

    Args:
        config: Says what to serve, anew at each look at the disk.
        load: Makes a `Servable` of a directory.
    """

    def __init__(
        self,
        config: Callable[[], model_server_config_pb2.ModelServerConfig],
        load: Callable[[Path], Servable] = Servable,
    ):
        self.config = config
        self._load = load
        self._models: dict[str, dict[int, Version]] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._condition = threading.Condition()
        self._unreadable: set[str] = set()
        self._one_update = threading.Lock()
        self._stop = threading.Event()
        self._poller: threading.Thread | None = None

    def start(self, poll_seconds: float) -> None:
        """Loads what there is, then looks for changes every so many seconds."""
        self.update()
        self._poller = threading.Thread(target=self._poll, args=(poll_seconds,), daemon=True)
        self._poller.start()

    def stop(self) -> None:
        """Ends the looking for changes."""
        self._stop.set()
        if self._poller:
            self._poller.join()

    def _poll(self, seconds):
        while not self._stop.wait(seconds):
            try:
                self.update()
            except Exception:
                _log.exception("Looking for new versions failed; trying again.")

    def ready(self) -> bool:
        """Whether requests can be answered: at least one version of one model serves.

        It is not asked of every model. Another server would find the same directory, so that one
        model which cannot be loaded, or is not written yet, would take all others out of service
        everywhere. `statuses` says what became of each.
        """
        with self._condition:
            return any(
                version.state == State.AVAILABLE
                for versions in self._models.values()
                for version in versions.values()
            )

    def names(self) -> list[str]:
        """The models."""
        with self._condition:
            return sorted(self._models)

    def serving(self) -> dict[str, list[int]]:
        """The models, and the versions of each that are loaded."""
        with self._condition:
            return {
                name: sorted(v.number for v in versions.values() if v.state == State.AVAILABLE)
                for name, versions in sorted(self._models.items())
            }

    def statuses(self, name: str, number: int | None, label: str | None) -> list:
        """Statuses of a model's versions, the newest first.

        Raises:
            ServingError: If there is no such model or version.
        """
        with self._condition:
            versions = self._versions(name)
            if label is not None:
                number = self._labelled(name, label)
            chosen = [v for v in versions.values() if number in (None, v.number)]
            if not chosen:
                raise not_found(_no_version(name, number, versions))
            return [v.status() for v in sorted(chosen, key=lambda v: -v.number)]

    @contextlib.contextmanager
    def use(
        self, name: str, number: int | None = None, label: str | None = None
    ) -> Iterator[tuple[int, Servable]]:
        """A version that stays loaded for the length of the `with` block.

        Args:
            name: The model.
            number: The version; the newest that serves by default.
            label: Instead of the number.

        Raises:
            ServingError: If it is not served.
        """
        with self._condition:
            versions = self._versions(name)
            if label is not None:
                number = self._labelled(name, label)
            serving = {v.number: v for v in versions.values() if v.state == State.AVAILABLE}
            version = serving.get(max(serving, default=0) if number is None else number)
            if version is None:
                raise not_found(_no_version(name, number, serving))
            version.in_flight += 1
        try:
            yield version.number, version.servable
        finally:
            with self._condition:
                version.in_flight -= 1
                self._condition.notify_all()

    def _versions(self, name):
        if name not in self._models:
            served = ", ".join(sorted(self._models)) or "none"
            raise not_found(f"Unknown model '{name}'; served are: {served}.")
        return self._models[name]

    def _labelled(self, name, label):
        labels = self._labels.get(name, {})
        if label not in labels:
            known = ", ".join(sorted(labels)) or "none"
            raise not_found(f"Model '{name}' has no version label '{label}'; it has: {known}.")
        return labels[label]

    def update(self) -> None:
        """Loads what is new, lets go what is no longer wanted."""
        with self._one_update:
            wanted = {}
            for model in self.config().model_config_list.config:
                wanted[model.name] = self._look(model)
                with self._condition:
                    self._models.setdefault(model.name, {})
                    self._labels[model.name] = dict(model.version_labels)
            for name, paths in wanted.items():
                for number, path in (paths or {}).items():
                    self._load_version(name, number, path)
            for name in list(self._models):
                paths = wanted.get(name, {})
                if paths is not None:
                    self._retire(name, paths)
            with self._condition:
                for name in set(self._models) - set(wanted):
                    del self._models[name]
                    self._labels.pop(name, None)

    def _look(self, model) -> dict[int, Path] | None:
        """The versions that are wanted of a model, or `None` where they cannot be looked up."""
        try:
            found = _wanted_versions(model)
        except OSError as error:
            if model.name not in self._unreadable:
                _log.warning("Model %s stays as it is: %s.", model.name, error)
                self._unreadable.add(model.name)
            return None
        self._unreadable.discard(model.name)
        return found

    def _load_version(self, name, number, path):
        with self._condition:
            known = self._models[name].get(number)
            if known and known.state == State.AVAILABLE:
                return
            # One that failed is tried again only if something of it has changed on the disk.
            stamp = _stamp(path)
            if known and known.error_stamp == stamp:
                return
            version = self._models[name][number] = Version(number)
        try:
            servable = self._load(path)
        except Exception as error:
            _log.exception("Version %d of %s cannot be loaded from %s.", number, name, path)
            with self._condition:
                version.state = State.END
                version.error = str(error).splitlines()[0] if str(error) else repr(error)
                version.error_stamp = stamp
            return
        with self._condition:
            version.servable = servable
            version.state = State.AVAILABLE
        _log.info("Serving version %d of %s.", number, name)

    def _retire(self, name, wanted):
        """Lets versions go that are not wanted, unless that would leave none that serves."""
        with self._condition:
            versions = self._models[name]
            serving = [v for v in versions.values() if v.state == State.AVAILABLE]
            if wanted and not any(v.number in wanted for v in serving):
                return
            old = [v for v in versions.values() if v.number not in wanted]
            for version in old:
                if version.state == State.AVAILABLE:
                    version.state = State.UNLOADING
            for version in old:
                while version.in_flight:
                    self._condition.wait()
                if version.servable:
                    version.servable.close()
                version.servable = None
                version.state = State.END
                del versions[version.number]
                _log.info("Let version %d of %s go.", version.number, name)


def _no_version(name: str, number: int | None, versions) -> str:
    if number is None:
        return f"Model '{name}' has no version that serves."
    known = ", ".join(map(str, sorted(versions))) or "none"
    return f"Model '{name}' has no version {number}; it has: {known}."


def _stamp(path: Path) -> float:
    """When anything in a directory changed: one that was incomplete may be whole by now."""
    stamps = [0.0]
    for folder, _, names in os.walk(path):
        for name in (".", *names):
            with contextlib.suppress(OSError):  # it may be gone again
                stamps.append(os.stat(os.path.join(folder, name)).st_mtime)
    return max(stamps)


def _wanted_versions(model: model_server_config_pb2.ModelConfig) -> dict[int, Path]:
    """Versions on the disk that the model's policy asks for."""
    try:
        paths = list(expanded(model.base_path).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        paths = []
    there = {
        int(path.name): path
        for path in paths
        if path.name.isdecimal() and os.path.exists(path / "saved_model.pb")
    }
    policy = model.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return there
    if kind == "specific":
        return {number: there[number] for number in policy.specific.versions if number in there}
    count = policy.latest.num_versions or 1
    return {number: there[number] for number in sorted(there)[-count:]}


def directory_config(models: Path) -> model_server_config_pb2.ModelServerConfig:
    """The configuration of all models under a directory, each with its latest version."""
    config = model_server_config_pb2.ModelServerConfig()
    # A directory that is gone is an error, not an order to let all models go.
    for path in sorted(models.iterdir()):
        if path.is_dir() and _holds_versions(path):
            config.model_config_list.config.add(
                name=path.name, base_path=str(path), model_platform="tensorflow"
            )
    return config


def _holds_versions(path: Path) -> bool:
    try:
        return any(child.name.isdecimal() for child in path.iterdir())
    except FileNotFoundError:  # gone meanwhile
        return False
    except PermissionError:  # it may have served until now
        return True


def parse_config(text: str) -> model_server_config_pb2.ModelServerConfig:
    """Reads a `models.config`.

    Raises:
        ServingError: If it is not the text form of a `ModelServerConfig`.
    """
    try:
        return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise invalid(f"The model configuration cannot be read: {error}.") from error
