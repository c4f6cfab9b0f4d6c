"""The tables of the report."""

from __future__ import annotations

import itertools

from benchmarks.report.evidence import Evidence
from benchmarks.report.page import table
from rws_keras.training.comparison import label
from rws_keras.training.comparison_summary import Figure, Row

_REFERENCE, _VAE = ("RWS", 5), ("ELBO (VAE)", 1)


def figures(evidence: Evidence, name: str) -> str:
    """All methods of a comparison: what they reach after equal updates, and after equal time."""
    timed = evidence.comparison(name).reference is not None
    columns = ["method", evidence.comparison(name).axis_title.split(" ")[-1], "rate", "seeds"]
    columns += ["test NLL", "-ELBO", "ESS of 100", "active units"]
    columns += ["NLL, equal time", "epochs"] if timed else []
    return table(columns, [_figures(row, timed) for row in evidence.rows(name)])


def _figures(row: Row, timed: bool) -> list[str]:
    cells = [row.method, label(row.value), f"{row.rate:g}", str(row.seeds + row.diverged)]
    if not row.updates:
        return [*cells, "diverged", "", "", "", *(["", ""] if timed else [])]
    cells += [
        _cell(row.updates["log_likelihood"], 2, -1),
        _cell(row.updates["elbo"], 2, -1),
        _cell(row.updates["ess"], 2),
        _cell(row.updates["active_units"], 0),
    ]
    if not timed:
        return cells
    if not row.equal_time:
        return [*cells, "", ""]
    return [*cells, _cell(row.equal_time["log_likelihood"], 2, -1), str(row.epochs[1])]


def _cell(figure: Figure, digits: int, sign: int = 1) -> str:
    spread = "" if figure.spread is None else f" ± {figure.spread:.{digits}f}"
    return f"{sign * figure.mean:.{digits}f}{spread}"


def times(evidence: Evidence, name: str) -> str:
    """The step of each method and K over that of RWS with five particles, and over the VAE's."""
    rows = []
    for row in evidence.results.times(name):
        mine = (row["method"], row["value"])
        rows.append(
            [
                row["method"],
                label(row["value"]),
                f"{row['ratio']:.2f} ({row['ratio_25']:.2f} to {row['ratio_75']:.2f})",
                f"{evidence.time_ratio(name, mine, _VAE):.2f}",
            ]
        )
    order = {method: index for index, method in enumerate(evidence.comparison(name).names)}
    rows.sort(key=lambda cells: (order[cells[0]], int(cells[1])))
    return table(["method", "K", "over RWS, K = 5 (quartiles)", "over the VAE, K = 1"], rows)


def gradient_noise(evidence: Evidence) -> str:
    """Signal-to-noise ratio and variance of the gradients, at each stage."""
    rows = [
        [
            row["estimator"],
            str(row["num_particles"]),
            str(row["epoch"]),
            *(f"{row[stack]['snr']:.3f} ± {row[stack]['snr_se']:.3f}" for stack in "pq"),
            *(f"{row[stack]['variance']:.3g}" for stack in "pq"),
        ]
        for row in evidence.benchmarks["gradient_noise"]["rows"]
    ]
    columns = ["estimator", "K", "epoch", "SNR, P", "SNR, Q", "variance, P", "variance, Q"]
    return table(columns, rows)


def exact(evidence: Evidence) -> str:
    """Exact errors for small, middle and large K."""
    rows = []
    for stage in evidence.benchmarks["exact_estimates"]["stages"]:
        for row in stage["rows"]:
            if row["num_particles"] in (1, 5, 10, 100, 1000):
                keys = ("bias", "variance", "p_gradient_bias", "p_gradient_variance")
                keys += ("q_gradient_bias", "q_gradient_variance")
                cells = [f"{row[key]:.3g}" for key in keys]
                rows.append([str(stage["updates_of_q"]), str(row["num_particles"]), *cells])
    columns = ["updates of Q", "K", "bias of log p̂", "variance of log p̂"]
    columns += ["bias, ∇P", "variance, ∇P", "bias, ∇Q", "variance, ∇Q"]
    return table(columns, rows)


def switches(evidence: Evidence) -> str:
    """Test NLL of the four settings of Q's updates on each set."""
    names = ("switches-mnist", "switches-plants", "switches-mushrooms")
    found = {name: {row.method: row for row in evidence.rows(name)} for name in names}
    rows = []
    for method in evidence.comparison(names[0]).names:
        cells = [method]
        for name in names:
            row = found[name].get(method)
            cells.append(_cell(row.updates["log_likelihood"], 2, -1) if row else "")
        rows.append(cells)
    return table(["updates of Q", *(name.split("-")[1] for name in names)], rows)


def growing(evidence: Evidence) -> str:
    """Numbers of particles that change while training, beside constant ones of like cost."""
    costs = {row["value"]: row["ratio"] for row in _times_of(evidence, "RWS")}
    rows = []
    for row in evidence.rows("growing"):
        starts = {int(start): value for start, value in row.value.items()}
        edges = [*sorted(starts), row.epochs[0]]
        spans = itertools.pairwise(edges)
        cost = sum(costs[starts[a]] * (b - a) for a, b in spans) / row.epochs[0]
        title = f"{row.method}: {label(row.value)}"
        nll = _cell(row.updates["log_likelihood"], 2, -1)
        rows.append((cost, [title, f"{cost:.2f}", str(row.seeds), nll]))
    for row in evidence.rows("estimators"):
        if row.method == "RWS" and row.value in (2, 5, 7, 10, 20):
            nll = _cell(row.updates["log_likelihood"], 2, -1)
            cost = costs[row.value]
            rows.append((cost, [f"constant: {row.value}", f"{cost:.2f}", str(row.seeds), nll]))
    columns = ["particles K", "time over K = 5", "seeds", "test NLL"]
    return table(columns, [cells for _, cells in sorted(rows, key=lambda row: row[0])])


def _times_of(evidence: Evidence, method: str) -> list[dict]:
    return [row for row in evidence.results.times("estimators") if row["method"] == method]
