"""The tables of the report."""

from __future__ import annotations

from benchmarks.gradient_noise import shown_snr
from benchmarks.report.claims import SETS
from benchmarks.report.evidence import Evidence
from benchmarks.report.page import table
from rws_keras.training.comparison import label
from rws_keras.training.comparison_summary import Row

_VAE = ("ELBO (VAE)", 1)


def figures(evidence: Evidence, name: str, value: str = "K") -> str:
    """All methods of a comparison: what they reach after equal updates, and after equal time."""
    timed = evidence.comparison(name).reference is not None
    columns = ["method", value, "rate", "seeds", "test NLL", "correction", "-ELBO", "ESS of 100"]
    columns += ["active units by layer"] + (["NLL at equal time", "epochs (time)"] if timed else [])
    return table(columns, [_cells(row, timed) for row in evidence.rows(name)])


def _cells(row: Row, timed: bool) -> list[str]:
    seeds = f"{row.seeds} ({row.diverged} diverged)" if row.diverged else str(row.seeds)
    cells = [row.method, label(row.value), f"{row.rate:g}", seeds]
    if not row.updates:
        return [*cells, *[""] * (7 if timed else 5)]
    cells += [
        row.updates["log_likelihood"].text(2, -1),
        row.updates["correction"].text(1, -1),
        row.updates["elbo"].text(2, -1),
        row.updates["ess"].text(2),
        active_units(row),
    ]
    if not timed:
        return cells
    if not row.equal_time or row.epochs[1] is None or row.time is None:
        return [*cells, "", ""]
    share = row.epochs[1] * row.time["ratio"] / row.epochs[0]
    return [
        *cells,
        row.equal_time["log_likelihood"].text(2, -1),
        f"{row.epochs[1]} ({share:.2f})",
    ]


def particles(evidence: Evidence) -> str:
    """Test NLL and effective sample size of presets at some numbers of particles."""
    found = evidence.benchmarks["particles"]["rows"]
    presets = list(dict.fromkeys(row["preset"] for row in found))
    numbers = [k for k in (1, 10, 100, 1000, 10_000) if any(k == r["num_particles"] for r in found)]
    columns = ["preset", *(f"K = {k:,}" for k in numbers)]
    rows = []
    for preset in presets:
        of = {row["num_particles"]: row for row in found if row["preset"] == preset}
        cells = [
            f"{-of[k]['log_likelihood']:.2f} ({of[k]['effective_sample_size']:.1f})"
            for k in numbers
        ]
        rows.append([f"`{preset}`", *cells])
    return table(columns, rows)


def active_units(row: Row) -> str:
    """The active units of each layer, the lowest first."""
    layers = [figure for name, figure in row.updates.items() if name.startswith("active_units_")]
    return ", ".join(f"{figure.mean:.0f}" for figure in layers)


def times(evidence: Evidence, name: str) -> str:
    """The step of each method and K over that of RWS with five particles, and over the VAE's."""
    order = evidence.comparison(name).names
    found = sorted(
        evidence.results.times(name), key=lambda row: (order.index(row["method"]), row["value"])
    )
    rows = [
        [
            row["method"],
            label(row["value"]),
            f"{row['ratio']:.2f} ({row['ratio_25']:.2f} to {row['ratio_75']:.2f})",
            f"{evidence.time_ratio(name, (row['method'], row['value']), _VAE):.2f}",
        ]
        for row in found
    ]
    return table(["method", "K", "over RWS, K = 5 (quartiles)", "over the VAE, K = 1"], rows)


def gradient_noise(evidence: Evidence) -> str:
    """Signal-to-noise ratio and variance of the gradients, at each stage."""
    rows = [
        [
            row["estimator"],
            str(row["num_particles"]),
            str(row["epoch"]),
            *(shown_snr(row[stack]) for stack in "pq"),
            *(f"{row[stack]['variance']:.3g}" for stack in "pq"),
        ]
        for row in evidence.benchmarks["gradient_noise"]["rows"]
    ]
    columns = ["estimator", "K", "epoch", "SNR, P", "SNR, Q", "variance, P", "variance, Q"]
    return table(columns, rows)


def exact(evidence: Evidence) -> str:
    """Exact errors for small, middle and large K."""
    keys = [
        f"{part}{error}"
        for part in ("", "p_gradient_", "q_gradient_")
        for error in ("bias", "variance")
    ]
    rows = [
        [
            f"{stage['weight_variance']:.3g}",
            str(row["num_particles"]),
            *(f"{row[key]:.3g}" for key in keys),
        ]
        for stage in evidence.benchmarks["exact_estimates"]["stages"]
        for row in stage["rows"]
        if row["num_particles"] in (1, 5, 10, 100, 1000)
    ]
    columns = ["variance of a weight", "K", "bias of log p̂", "variance of log p̂"]
    columns += ["bias, ∇P", "variance, ∇P", "bias, ∇Q", "variance, ∇Q"]
    return table(columns, rows)


def switches(evidence: Evidence) -> str:
    """Test NLL of the four settings of Q's updates on each set, with the rates, and the plot."""
    found = {name: {row.method: row for row in evidence.rows(name)} for name in SETS}
    rows = [
        [method, *(_with_rate(found[name].get(method)) for name in SETS)]
        for method in evidence.comparison("switches-mnist").names
    ]
    found_all = table(["updates of Q", *SETS.values()], rows)
    # As for the plot itself: it is there once each set has a run.
    if not all(evidence.done(name) for name in SETS):
        return found_all
    return f"{found_all}\n\n![Test NLL with the updates of Q on and off](estimators/switches.svg)"


def _with_rate(row: Row | None) -> str:
    if row is None or not row.updates:
        return ""
    diverged = f", {row.diverged} diverged" if row.diverged else ""
    return f"{row.updates['log_likelihood'].text(2, -1)} (rate {row.rate:g}{diverged})"


def vimco(evidence: Evidence) -> str:
    """VIMCO beside RWS with and without its sleep update, and NVIL, all with K = 5."""
    chosen = [
        ("RWS, wake and sleep updates of Q", "switches-mnist", "wake and sleep"),
        ("RWS, wake update of Q only", "switches-mnist", "wake only"),
        ("RWS, sleep update of Q only", "switches-mnist", "sleep only"),
        ("VIMCO", "estimators", "VIMCO"),
        ("NVIL", "estimators", "NVIL"),
    ]
    rows = [
        [title, row.updates["log_likelihood"].text(2, -1), active_units(row)]
        for title, name, method in chosen
        if (row := evidence.find(name, method, 5))
    ]
    return table(["K = 5", "test NLL", "active units by layer"], rows)


def growing(evidence: Evidence) -> str:
    """Numbers of particles that change while training, beside constant ones, by their cost."""
    constants = [row for row in evidence.done("estimators", "RWS") if row.value <= 20]
    rows = [*evidence.done("growing"), *constants]
    cells = [
        [
            label(row.value) if row in constants else f"{row.method}: {label(row.value)}",
            f"{evidence.cost(row):.2f}",
            str(row.seeds),
            row.updates["log_likelihood"].text(2, -1),
        ]
        for row in sorted(rows, key=evidence.cost)
    ]
    return table(["particles K", "time over K = 5", "seeds", "test NLL"], cells)
