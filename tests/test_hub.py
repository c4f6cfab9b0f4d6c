"""Presets of the Hugging Face Hub: its real client, against a small server of its protocol."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import huggingface_hub  # noqa: F401  a missing package is a failure, not a reason to skip
import pytest
from permissions import NOBODY, permit, reachable_directory

from rws_keras import HelmholtzMachine, PresetError
from rws_keras.models import preset_files, pretrained

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
PRESET = ROOT / "zoo" / "digits-sbn-64-32"
TOKEN = "hf_of_the_owner"

# What the Hub says of a file that it does not give: status and headers.
REFUSALS = {
    "missing": (404, {"X-Error-Code": "RepoNotFound"}),
    "private": (401, {"X-Error-Code": "RepoNotFound"}),
    "gated": (403, {"X-Error-Code": "GatedRepo"}),
    "token": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
    "revision": (404, {"X-Error-Code": "RevisionNotFound"}),
    "file": (404, {"X-Error-Code": "EntryNotFound"}),
}


class Hub(http.server.ThreadingHTTPServer):
    """`repositories` has of each its commits, newest last: `{revision: folder}`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = {}
        self.refusals = {}
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD of `/USER/NAME/resolve/REVISION/FILE`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        user, name, _, revision, file = self.path.lstrip("/").split("/")
        repository = f"{user}/{name}"
        self.server.requests.append((self.command, repository, revision, file))
        commits = self.server.repositories.get(repository)
        refusal = "missing" if commits is None else self.server.refusals.get(repository)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if refusal == "private" and token:
            refusal = None if token == TOKEN else "token"
        if refusal is None and revision == "main":
            revision = list(commits)[-1]
        if refusal is None and revision not in commits:
            refusal = "revision"
        if refusal is None and not (commits[revision] / file).is_file():
            refusal = "file"
        if refusal:
            status, headers, content = *REFUSALS[refusal], b""
        else:
            content = (commits[revision] / file).read_bytes()
            tag = preset_files.sha256(commits[revision] / file)
            status, headers = 200, {"ETag": f'"{tag}"', "X-Repo-Commit": revision}
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub():
    hub = Hub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    yield hub
    hub.shutdown()
    hub.server_close()


class Client:
    """A process that loads presets: where the Hub is and who asks is read at its start."""

    PROGRAM = """if True:
        import json, os, sys
        from rws_keras import PresetError
        from rws_keras.models import pretrained
        for line in sys.stdin:
            handle, user = json.loads(line)
            if os.geteuid() == 0:
                os.seteuid(user)
            try:
                answer = {"folder": str(pretrained.locate(handle))}
            except PresetError as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)
    """

    def __init__(self, hub, home, **environment):
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM],
            cwd=ROOT,
            env={**inherited, **own, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def locate(self, handle, user=0):
        """The folder of the preset, or the error as a string; root acts as another user."""
        self.process.stdin.write(json.dumps([handle, user]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return Path(answer["folder"]) if "folder" in answer else answer["error"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hf")


@pytest.fixture(scope="module")
def client(hub, home):
    client = Client(hub, home)
    yield client
    client.close()


@pytest.fixture
def repository(hub, tmp_path):
    """A new repository of one commit: its name and the folder of the commit."""
    name = f"someone/repository-{len(hub.repositories)}"
    hub.repositories[name] = {"0" * 40: tmp_path / "0"}
    shutil.copytree(PRESET, tmp_path / "0")
    return name, tmp_path / "0"


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_preset_of_the_hub(hub, client, repository):
    name, _ = repository
    folder = client.locate(f"hf://{name}")
    assert files(folder) == files(PRESET)
    assert HelmholtzMachine.from_preset(folder).latent_units == [64, 32]
    # What belongs together is of one commit, even if another comes while it is downloaded.
    revisions = {
        (file == "preset.json", revision) for _, of, revision, file in hub.requests if of == name
    }
    assert revisions == {(True, "main"), (False, "0" * 40)}
    assert client.locate(f"hf://{name}/") == folder
    gets = [file for method, of, _, file in hub.requests if (method, of) == ("GET", name)]
    assert sorted(gets) == sorted(files(PRESET))


def test_a_revision(hub, client, repository, tmp_path):
    name, _ = repository
    newer = pretrained.save(HelmholtzMachine.from_sizes(4, [3]), tmp_path / "newer")
    hub.repositories[name] |= {"v2": newer, "1" * 40: newer}
    assert files(client.locate(f"hf://{name}@{'0' * 40}")) == files(PRESET)
    assert files(client.locate(f"hf://{name}")) == files(newer)
    assert "no such revision" in client.locate(f"hf://{name}@v3")


def test_a_damaged_file_is_told(hub, client, repository, tmp_path):
    name, folder = repository
    shutil.copytree(folder, tmp_path / "repaired")
    content = (folder / "model.weights.h5").read_bytes()
    (folder / "model.weights.h5").write_bytes(content[:-1] + b"?")
    error = client.locate(f"hf://{name}")
    assert f"model.weights.h5 of hf://{name} is damaged on the Hub: its SHA-256" in error
    hub.repositories[name]["1" * 40] = tmp_path / "repaired"
    assert files(client.locate(f"hf://{name}")) == files(PRESET)


def test_a_damaged_file_in_the_cache_is_replaced(client, repository):
    name, _ = repository
    folder = client.locate(f"hf://{name}")
    (folder / "config.json").resolve().write_bytes(b"half")
    assert files(client.locate(f"hf://{name}")) == files(PRESET)


@pytest.mark.parametrize("file", ["preset.json", "model.weights.h5"])
def test_a_missing_file_is_told(client, repository, file):
    name, folder = repository
    (folder / file).unlink()
    error = client.locate(f"hf://{name}")
    assert error == f"{file} of hf://{name} cannot be downloaded: the repository has no such file."


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ("missing", "no such repository, or it is private; check the name, or log in"),
        ("private", "no such repository, or it is private; check the name, or log in"),
        ("gated", "restricts access; request it"),
    ],
)
def test_a_repository_that_is_not_given_is_told(hub, client, repository, refusal, message):
    name, _ = repository
    hub.refusals[name] = refusal
    error = client.locate(f"hf://{name}")
    assert error.startswith(f"preset.json of hf://{name} cannot be downloaded: ")
    assert message in error
    assert "HF_TOKEN" in error


def test_a_private_repository_and_its_token(hub, repository, tmp_path):
    name, _ = repository
    hub.refusals[name] = "private"
    owner, other = (Client(hub, tmp_path / token, HF_TOKEN=token) for token in (TOKEN, "hf_wrong"))
    assert files(owner.locate(f"hf://{name}")) == files(PRESET)
    error = other.locate(f"hf://{name}")
    assert "the Hub does not accept the access token; log in" in error
    assert "hf_wrong" not in error
    owner.close()
    other.close()


def test_without_a_connection_the_cache_serves(client, repository, home, tmp_path):
    name, _ = repository
    folder = client.locate(f"hf://{name}")
    nobody = Hub()
    nobody.server_close()
    cut_off, told_so = Client(nobody, home), Client(nobody, home, HF_HUB_OFFLINE="1")
    assert cut_off.locate(f"hf://{name}") == folder
    assert told_so.locate(f"hf://{name}") == folder
    assert "the Hub cannot be reached" in told_so.locate("hf://someone/else")
    assert "not in the cache" in told_so.locate("hf://someone/else")
    cut_off.close()
    told_so.close()


def test_a_cache_that_nobody_may_write(hub, repository):
    """It serves what it has; what it lacks is told, with the place and what to do."""
    name, _ = repository
    with reachable_directory() as home:
        client = Client(hub, home)
        folder = client.locate(f"hf://{name}")
        client.locate("hf://someone/else")  # imports what errors need: nobody may not do so
        permit(home, 0o555, 0o444)
        assert client.locate(f"hf://{name}", NOBODY) == folder
        (folder / "model.weights.h5").unlink()
        error = client.locate(f"hf://{name}", NOBODY)
        assert f"model.weights.h5 of hf://{name} cannot be downloaded: {home}/" in error
        assert "Permission denied. Change its permissions" in error
        assert "HF_HOME" in error
        client.close()


@pytest.mark.parametrize(
    "handle", ["hf://digits", "hf://a/b/c", "hf://", "hf://a/b@", "hf://a b/c"]
)
def test_handles_that_are_none(handle):
    with pytest.raises(PresetError, match="expected hf://USER/NAME"):
        pretrained.locate(handle)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PresetError, match=r"pip install 'rws-keras\[hub\]'"):
        pretrained.locate("hf://someone/something")
