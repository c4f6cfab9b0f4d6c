"""Tables are whole at every width."""

import pytest
from program import RECIPE
from typer.testing import CliRunner

from rws_keras.cli import output
from rws_keras.cli.program import app

_COLUMNS = ["preset", "data", "test NLL (nats)", "K", "description"]
_ROWS = [
    ["mnist-sbn-400-300-200-100-10", "binarized_mnist", "90.53 (0.24)", "1,000", "five " * 20],
    ["digits", "digits", "19.16 (0.22)", "1,000", "small [and] quick"],
]


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
def test_no_table_is_cut_off(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    output.show(_COLUMNS, _ROWS, folded="description")
    shown = capsys.readouterr().out
    assert "…" not in shown
    words = " ".join(shown.split())
    for *cells, _ in _ROWS:
        assert all(cell in words for cell in cells)
    assert shown.count("five") == 20
    assert "small [and] quick" in words
    assert max(map(len, shown.splitlines())) <= width


def test_in_a_pipe_every_row_is_one_line(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    output.show(_COLUMNS, _ROWS, folded="description")
    lines = capsys.readouterr().out.splitlines()
    for row in _ROWS:
        (line,) = (line for line in lines if row[0] in line and row[1] in line)
        assert all(cell.strip() in line for cell in row)


def test_runs_are_listed_beside_what_is_not_one(tmp_path):
    for name, content in (("damaged", "{"), ("foreign", "[1]"), ("new", RECIPE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.json").write_text(content)
        (tmp_path / name / "run.json").write_text("{}")
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "recipe.json").write_text(RECIPE)
    wide = CliRunner(env={"COLUMNS": "300"})
    shown = wide.invoke(app, ["runs", str(tmp_path)], catch_exceptions=False).output
    for name, state in (
        ("damaged", "Skipped"),
        ("foreign", "Skipped"),
        ("preset", "Skipped"),
        ("new", "0/1"),
    ):
        (line,) = (line for line in shown.splitlines() if name in line)
        assert state in line
