"""The documentation site builds without a warning, its links lead somewhere, its code runs."""

import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import program
import pytest

from docs import pages
from rws_keras.cli.program import app

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
REFERENCE = ROOT / "docs" / "reference"
# Languages of blocks that are not run.
OTHER_LANGUAGES = {"", "json", "sh", "text", "toml"}


class Links(HTMLParser):
    """The addresses that a page points to, and the places in it that others may point to."""

    def __init__(self, path: Path):
        super().__init__()
        self.targets: set[str] = set()
        self.ids: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.targets.add(value)
            elif name == "id":
                self.ids.add(value)


@pytest.mark.slow
@pytest.mark.processes
def test_the_site(tmp_path):
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    command += ["--conf-dir", ROOT / "docs", "--doctree-dir", tmp_path / "doctrees"]
    site = tmp_path / "site"
    done = subprocess.run(
        [*map(str, command), str(ROOT), str(site)],
        env=program.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    found = {path: Links(path) for path in site.rglob("*.html")}
    assert site / "docs" / "index.html" in found
    broken = []
    for path, links in found.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            missing = not to.exists()
            if not missing and parts.fragment and to.suffix == ".html":
                missing = unquote(parts.fragment) not in found[to].ids
            if missing:
                broken.append(f"{path.relative_to(site)}: {target}")
    assert not broken


@pytest.mark.parametrize("package", [path.stem for path in REFERENCE.glob("*.md")])
def test_the_reference_has_all_public_names(package):
    text = (REFERENCE / f"{package}.md").read_text()
    if package in ("serving", "command-line"):
        return
    known = importlib.import_module("rws_keras")
    module = importlib.import_module(f"rws_keras.{package}")
    for name in module.__all__:
        full = f"rws_keras.{name}" if name in known.__all__ else f"rws_keras.{package}.{name}"
        assert f":: {full}\n" in text, full


def test_the_reference_has_all_commands():
    import typer.main

    def commands(group, before=""):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, f"{before}{name} ")
            else:
                yield f"{before}{name}"

    text = (REFERENCE / "command-line.md").read_text()
    documented = re.findall(r"^```\{command-help\} ?(.*)$", text, re.MULTILINE)
    assert sorted(documented) == sorted(["", *commands(typer.main.get_command(app))])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_python_is_tagged_python(page):
    """So that all of it runs: a block is Python, or of a language that is not run."""
    fences = re.findall(r"^ *```([^\n]*)\n.*?^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)
    for language in fences:
        if not language.startswith("{"):
            assert language == "python" or language in OTHER_LANGUAGES, language


def test_outputs_are_filled_in(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\nprint(x)\n```\n\n```text\nold\n```\n\n"
        "```text\nkept\n```\n\n```python\nprint(x + 1)\n```\n\n```sh\nls\n```\n"
    )
    assert pages.run(page, tmp_path) == page.read_text().replace("old", "1")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if pages.has_code(page) and page not in pages.TUTORIALS],
    ids=lambda page: str(page.relative_to(ROOT / "docs")),
)
def test_the_code_of_a_page_runs(page, tmp_path):
    assert pages.run(page, tmp_path) == page.read_text()
