"""The models of a server: which versions there are, which are loaded, and when they change."""

from __future__ import annotations

import dataclasses
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from rws_keras.errors import UserError, reason
from rws_keras.serving import model_files
from rws_keras.serving.errors import Code, ServingError, invalid, not_found
from rws_keras.serving.servable import Servable

_log = logging.getLogger(__name__)

State = ModelVersionStatus.State


@dataclasses.dataclass(frozen=True)
class Target:
    """Which version of which model a request means."""

    model: str
    version: int | None = None
    label: str | None = None


@dataclasses.dataclass
class Version:
    """One version of a model, and what became of it."""

    number: int
    found: model_files.Fingerprint | None = None
    since: float = 0.0
    state: int = State.START
    error: str = ""
    servable: Servable | None = None

    @property
    def serves(self) -> bool:
        """Whether it can be asked."""
        return self.state == State.AVAILABLE

    def status(self) -> ModelVersionStatus:
        """The version's status as TF Serving's API gives it."""
        status = ModelVersionStatus(version=self.number, state=self.state)
        status.status.error_code = Code.INTERNAL.value[0] if self.error else 0
        status.status.error_message = self.error
        return status


class Repository:
    """The models of a configuration, kept up to date by a thread.

    A new version is loaded and warmed up beside the one that serves, and takes its place. Requests
    that have the old one keep it until they are answered. What cannot be loaded, or not even be
    looked at, leaves everything else as it is.

    Args:
        config: Says what to serve, at each look at the disk.
        load: Makes a `Servable` of a directory.
        settle_seconds: A version is loaded when nothing in its directory has changed for this long:
            before, it may still be being copied.
    """

    def __init__(
        self,
        config: Callable[[], ModelServerConfig],
        load: Callable[[Path], Servable] = Servable,
        settle_seconds: float = 0.0,
    ):
        self.config = config
        self.loaded = False
        self._load = load
        self._settle_seconds = settle_seconds
        self._models: dict[str, dict[int, Version]] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()
        self._one_update = threading.Lock()
        self._faults: dict[str, str] = {}
        self._stop = threading.Event()

    def start(self, poll_seconds: float, loaded: Callable[[], Any]) -> None:
        """Begins to load what there is, and to look for changes.

        Args:
            poll_seconds: Time between looks.
            loaded: Called by the thread once what was there at first is loaded.
        """
        threading.Thread(
            target=self._poll, args=(poll_seconds, loaded), name="models", daemon=True
        ).start()

    def stop(self) -> None:
        """Ends the looks at the disk. It does not wait for a version that is being loaded."""
        self._stop.set()

    def _poll(self, poll_seconds, loaded):
        while not self._stop.is_set():
            try:
                if self.update() and not self.loaded:
                    self._stop.wait(self._settle_seconds)
                    self.update()
                self._note("all")
            except Exception as error:
                self._note("all", f"Looking for versions failed: {reason(error)}")
            if not self.loaded and not self._stop.is_set():
                self.loaded = True
                loaded()
            self._stop.wait(poll_seconds)

    def _note(self, what: str, fault: str = "") -> None:
        """Logs a fault once, until it is another one or gone."""
        if not fault:
            self._faults.pop(what, None)
        elif fault != self._faults.get(what):
            self._faults[what] = fault
            _log.warning(fault)

    def ready(self) -> bool:
        """Whether requests can be answered: at least one version of one model serves.

        Not every model has to. Another server would find the same directory, and one model that
        cannot be loaded would take all others out of service everywhere.
        """
        return self.loaded and any(self.serving().values())

    def serving(self) -> dict[str, list[int]]:
        """The models, and the versions of each that are loaded."""
        with self._lock:
            return {
                name: sorted(v.number for v in versions.values() if v.serves)
                for name, versions in sorted(self._models.items())
            }

    def has(self, name: str) -> bool:
        """Whether there is a model of this name."""
        return name in self._models

    def versions(self, target: Target, serving: bool = False) -> list[Version]:
        """The versions that a request means, the newest first, and at least one.

        Args:
            target: What the request says.
            serving: Whether only those are meant that are loaded.

        Raises:
            ServingError: If there is no such model or version.
        """
        with self._lock:
            number, name = target.version, target.model
            if target.label is not None:
                labels = self._labels.get(name, {})
                if target.label not in labels:
                    raise invalid(
                        f"Unrecognized servable version label '{target.label}' of '{name}'; it "
                        f"has: {_listed(labels)}."
                    )
                number = labels[target.label]
            if name not in self._models:
                raise self._missing(f"unknown model '{name}'; served: {_listed(self._models)}.")
            versions = self._models[name]
            known = [n for n in sorted(versions, reverse=True) if versions[n].serves or not serving]
            if number is None and not known:
                raise self._missing(f"model '{name}' has no version that serves.")
            if number not in (None, *known):
                raise self._missing(
                    f"model '{name}' has no version {number}; it has: {_listed(known)}."
                )
            return [versions[n] for n in known if number in (None, n)]

    def servable(self, target: Target) -> tuple[int, Servable]:
        """The version that is to answer a request, and its number: by default the newest.

        Raises:
            ServingError: If it is not served.
        """
        version = self.versions(target, serving=True)[0]
        assert version.servable is not None
        return version.number, version.servable

    def _missing(self, what: str) -> ServingError:
        message = f"Servable not found: {what}"
        if self.loaded:
            return not_found(message)
        return ServingError(Code.UNAVAILABLE, f"{message} Models are being loaded; try again.")

    def reload(self, config: ModelServerConfig, wait_seconds: float = 30.0) -> None:
        """Serves the models of another configuration from now on.

        Raises:
            ServingError: If it is refused, or a model of it serves no version in time.
        """
        self.config = lambda: config
        end = time.monotonic() + wait_seconds
        names = {model.name for model in config.model_config_list.config}
        while self.update() and time.monotonic() < end and not self._stop.is_set():
            self._stop.wait(max(self._settle_seconds, 0.1))
        if missing := sorted(name for name in names if not self.serving().get(name)):
            raise ServingError(
                Code.UNKNOWN, f"Some models did not become available: {', '.join(missing)}."
            )

    def update(self) -> bool:
        """Loads what is new, unloads what is no longer wanted.

        Returns:
            Whether there are versions that may still be incomplete.
        """
        with self._one_update:
            models = list(self.config().model_config_list.config)
            with self._lock:
                self._labels = {model.name: dict(model.version_labels) for model in models}
                for model in models:
                    self._models.setdefault(model.name, {})
            unsettled = [self._update_model(model) for model in models]
            for name in set(self._models) - {model.name for model in models}:
                self._unload(name, {})
                with self._lock:
                    del self._models[name]
            return any(unsettled)

    def _update_model(self, model: ModelConfig) -> bool:
        try:
            wanted = model_files.wanted_versions(model)
        except OSError as error:
            self._note(f"Model {model.name}", f"Model {model.name} stays as it is: {error}")
            return False
        self._note(f"Model {model.name}")
        unsettled = [self._look_at(model.name, *each) for each in sorted(wanted.items())]
        serving = self._models[model.name]
        # A version that cannot serve does not replace one that does.
        if not wanted or any(number in wanted and v.serves for number, v in serving.items()):
            self._unload(model.name, wanted)
        return any(unsettled)

    def _look_at(self, name: str, number: int, path: Path) -> bool:
        """Loads a version if it is complete and new. Returns whether it may be incomplete."""
        version = self._models[name].get(number) or Version(number)
        if version.serves:
            return False
        with self._lock:
            self._models[name][number] = version
        try:
            found = model_files.fingerprint(path)
        except Exception as error:
            version.found = None  # so that the next look, which may succeed, counts as a change
            self._fail(version, name, error)
            return False
        try:
            if version.found != found:
                version.found, version.since, version.error = found, time.monotonic(), ""
                version.state = State.START
            if version.error:
                return False  # tried in vain, and nothing has changed since
            unchanged = max(time.time() - found.changed, time.monotonic() - version.since)
            if unchanged < self._settle_seconds:
                return True
            version.state = State.LOADING
            servable = self._load(path)
        except Exception as error:
            self._fail(version, name, error)
            if not isinstance(error, OSError | UserError):
                _log.debug("From %s:", path, exc_info=True)
            return False
        self._note(f"Version {number} of {name}")
        with self._lock:
            version.servable, version.state = servable, State.AVAILABLE
        _log.info("Serving version %d of %s.", number, name)
        return False

    def _fail(self, version: Version, name: str, error: Exception) -> None:
        version.state, version.error = State.END, reason(error)
        what = f"Version {version.number} of {name}"
        self._note(what, f"{what}: {version.error}")

    def _unload(self, name: str, wanted: dict[int, Path]) -> None:
        old = [number for number in self._models[name] if number not in wanted]
        with self._lock:
            for number in old:
                del self._models[name][number]
        for number in old:
            _log.info("Unloaded version %d of %s.", number, name)
        if old:
            gc.collect()  # TensorFlow's functions refer to themselves


def _listed(names: Iterable) -> str:
    return ", ".join(map(str, sorted(names))) or "none"
