"""The README and the pages: figures are those of the committed results, and examples run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import program
import pytest
from server_process import free_port

import rws_keras
from rws_keras.zoo import cards, published

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS_PAGE = (ROOT / "docs" / "results.md").read_text()
SPEED = (ROOT / "docs" / "speed.md").read_text()
SERVING = (ROOT / "docs" / "guides" / "serving.md").read_text()
TUTORIAL = (ROOT / "docs" / "tutorials" / "serving.md").read_text()
RESULTS = ROOT / "training" / "results"


def result(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def figure(entry, sign=1):
    """A likelihood as the pages write it: value and, in brackets, standard error."""
    return f"{sign * entry['log_likelihood']:.2f} ({entry['log_likelihood_se']:.2f})"


def evaluation(name, split, num_particles):
    (entry,) = (
        entry
        for entry in result(name)["evaluations"]
        if (entry["split"], entry["num_particles"]) == (split, num_particles)
        and "first_rows" not in entry
    )
    return entry


def rows(page, heading):
    """Rows of the table that stands below a heading, without the title and the rule."""
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_figures_of_the_demonstration():
    names = ["digits", "digits-k1", "digits-wake-sleep"]
    expected = [figure(evaluation(name, "test", 1000)) for name in names]
    expected.append(figure(result("digits")["independent_units"]))
    assert [row[1] for row in rows(RESULTS_PAGE, "The demonstration")] == expected


def test_figures_of_the_real_run():
    expected = []
    for name in ("mnist-rws-200-200-200", "mnist-wake-sleep-200-200-200"):
        likelihoods = [("validation", 100), ("validation", 1000), ("test", 1000)]
        expected.append(
            [
                *(figure(evaluation(name, *which), sign=-1) for which in likelihoods),
                f"{result(name)['seconds'] / 60:.0f}",
            ]
        )
        assert result(name)["updates"] == 30_000
        assert result(name)["epochs"] == 120
    assert [row[1:] for row in rows(RESULTS_PAGE, "A real run")] == expected


def test_figures_of_the_speed():
    found = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    step = found["peers"]["times"][0]

    def spread(entry, key):
        return f"{entry[key]:.2f} ({entry[f'{key}_25']:.2f}-{entry[f'{key}_75']:.2f})"

    runs = [step, *(run["times"][0] for run in found["peers"]["earlier"])]
    expected = [[spread(step["ours"], "ms"), "1", "1"]]
    for name in ("ours_awake", "torch", "torch_compile", "pyro"):
        medians = [run[f"{name}_over_ours"]["ratio"] for run in runs]
        expected.append(
            [
                spread(step[name], "ms"),
                spread(step[f"{name}_over_ours"], "ratio"),
                f"{min(medians):.2f}-{max(medians):.2f}",
            ]
        )
    rates = {row["num_particles"]: row for row in found["likelihood"]["rows"]}
    expected += [
        [spread(found["limits"]["cases"][0]["share_of_matrix_product_rate"], "ratio")],
        [spread(found["fit"], "ratio")],
        [spread(found["train_step"]["k50_over_k5"], "ratio")],
        [spread(found["resampling"]["k50_resampled5_over_k5"], "ratio")],
        [f"{rates[1000]['particles_per_second']:,.0f}"],
        [f"{rates[100_000]['particles_per_second']:,.0f}"],
        [f"{rates[100_000]['mib_over_baseline']:.0f}"],
        *([spread(entry, "ratio")] for entry in found["sampling"]["log_prob"]),
        [spread(found["train_step"]["cases"][-1], "ms")],
    ]
    written = [row[1:] for row in rows(f"## Speed\n{SPEED}", "Speed")]
    # The second table's title and rule are among the rows.
    assert [row for row in written if row not in (["figure"], ["---"])] == expected


def test_figures_of_the_zoo():
    presets = json.loads((ROOT / "zoo" / "index.json").read_text())["presets"]
    expected = {}
    for name, entry in presets.items():
        of_machine = published.of_machine(entry["dataset"], cards.label(entry))
        found = of_machine or published.figures(entry["dataset"])
        literature = f"{found[0].nll:.2f}" if found else ""
        num_particles = f"{entry['test']['num_particles']:,}"
        link = f"[`{name}`](zoo/{name}/README.md)"
        expected[link] = [figure(entry["test"], sign=-1), num_particles, literature]
    assert {row[0]: row[1:] for row in rows(README, "Presets")} == expected


def test_figures_of_the_load():
    found = json.loads((ROOT / "benchmarks" / "results.json").read_text())["serving"]
    assert f"({found['in_process_rows_per_second']:,.0f} rows/s)" in SERVING
    expected = {}
    for case in found["cases"]:
        assert case["wrong"] == 0
        expected.setdefault((str(case["clients"]), str(case["rows"])), []).extend(
            [
                f"{case['rows_per_second']:,.0f} ({case['ratio']:.2f})",
                f"{case['p50_ms']:.1f}, {case['p99_ms']:.1f}",
            ]
        )
    written = {tuple(row[:2]): row[2:] for row in rows(SERVING, "Load") if row[0].isdecimal()}
    assert written == expected


@pytest.mark.processes
def test_from_a_preset_to_a_served_score(tmp_path):
    """The six lines, as they are but for the installation and the ports."""
    (lines,) = re.findall(r"```sh\n(make .*?)```", TUTORIAL, flags=re.DOTALL)
    install, *others = lines.strip().splitlines()
    assert install == "make .venv/installed && . .venv/bin/activate"
    assert len(others) == 5
    rest, other = free_port(), free_port()
    script = "\n".join(others).replace("8501", str(rest))
    ports = f"--rest-port {rest} --grpc-port {other}"
    script = script.replace("serve --models models", f"serve --models models {ports}")
    bin_directory = program.install(tmp_path / "bin").parent
    environment = {
        **os.environ,
        "PATH": f"{bin_directory}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    script = f"set -e\ntrap 'kill %1' EXIT\nset -m\n{script}\n"
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "[64, 32]" in result.stdout
    answer = json.loads(result.stdout.strip().splitlines()[-1])
    x = rws_keras.datasets.load("digits").test[:3]
    machine = rws_keras.HelmholtzMachine.from_preset("digits-sbn-64-32")
    expected = machine.log_likelihood(x, 10_000, seed=0)
    for row, prediction in enumerate(answer["predictions"]):
        error = prediction["log_likelihood"] - expected.log_likelihood[row].numpy()
        # Five standard errors of an estimate from 100 particles; the noise is always the same.
        assert abs(error) < 5 * prediction["standard_error"] + 0.1


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_results_belong_to_the_recipes_of_today(path):
    from rws_keras.training import recipe

    assert recipe.Recipe(**json.loads(path.read_text())["recipe"]) == recipe.load(path.stem)[1]


@pytest.mark.slow
def test_the_example_of_a_machine_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (machine,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(machine, "README.md", "exec"), {})
    assert (tmp_path / "digits.keras").exists()
    assert "'num_particles': 1000" in capsys.readouterr().out


def test_the_readme_takes_three_minutes():
    assert len(README.split()) < 3 * 250


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link
