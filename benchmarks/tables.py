"""The results as tables."""

from __future__ import annotations

from rich.table import Table

from benchmarks.gradient_noise import shown_snr


def tables(results: dict) -> list[Table]:
    """One or more tables for each section that was measured."""
    return [
        table
        for name, make in _SECTIONS.items()
        if name in results
        for table in make(results[name])
    ]


def _table(title, columns, rows):
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*map(str, row))
    return table


def _ms(entry):
    return f"{entry['ms']:.2f} ({entry['ms_25']:.2f}-{entry['ms_75']:.2f})"


def _ratio(entry):
    return f"{entry['ratio']:.2f} ({entry['ratio_25']:.2f}-{entry['ratio_75']:.2f})"


def _train_step(found):
    rows = [(row["case"], _ms(row), _ratio(row)) for row in found["cases"]]
    rows.append(("t(K = 50) / t(K = 5), SBN 200-200-200", "", _ratio(found["k50_over_k5"])))
    yield _table("Training step", ["case", "ms (quartiles)", "relative to the unit"], rows)


def _peers(found):
    names = {"torch": "PyTorch", "torch_compile": "torch.compile", "pyro": "Pyro"}
    awake = {"ours_awake": "rws_keras without sleep update"}
    for row in found["times"]:
        rows = [("rws_keras", _ms(row["ours"]), "1")]
        rows += [
            (title, _ms(row[name]), _ratio(row[f"{name}_over_ours"]))
            for name, title in (awake | names).items()
        ]
        yield _table(
            f"Against peers: {row['case']}", ["library", "ms (quartiles)", "times ours"], rows
        )
    rows = [
        (
            f"{names[row['peer']]}, {row['data']} data",
            row["updates"],
            f"{row['largest_t']:.1f}",
            "yes" if row["same"] else "no",
        )
        for row in found["gradients"]
    ]
    yield _table("The same expected gradient?", ["peer", "updates", "largest |t|", "same"], rows)


def _limits(found):
    for case in found["cases"]:
        rows = [(name, f"{ms:.2f}") for name, ms in case["ms"].items()]
        rows += [
            ("the whole step", f"{case['step']['ms']:.2f}"),
            ("one pass over its activations", f"{case['ms_of_one_pass']:.2f}"),
            ("GFLOP/s of the step", f"{case['gflops_of_step']:.0f}"),
            ("GFLOP/s of its matrix products alone", f"{case['gflops_of_matrix_products']:.0f}"),
            ("share of that rate", _ratio(case["share_of_matrix_product_rate"])),
        ]
        yield _table(f"Limits: {case['case']}", ["part", "ms"], rows)


def _likelihood(found):
    rows = [
        (
            f"{row['num_particles']:,}",
            f"{row['particles_per_second']:,.0f}",
            f"{row['mib_over_baseline']:.0f}",
        )
        for row in found["rows"]
    ]
    title = f"Likelihood (K = 100,000 at {found['k100000_over_k1000']:.2f} of the rate of 1,000)"
    yield _table(title, ["K", "particles/s", "peak MiB over baseline"], rows)


def _sampling(found):
    rows = [(row["case"], _ms(row), f"{row['samples_per_second']:,.0f}") for row in found["rows"]]
    yield _table(
        f"Sampling from P, {found['samples']} at once",
        ["machine", "ms (quartiles)", "samples/s"],
        rows,
    )
    rows = [
        (row["family"], _ms(row["together"]), _ms(row["unit_by_unit"]), _ratio(row))
        for row in found["log_prob"]
    ]
    yield _table(
        "Log-probability of 784 autoregressive units, 100 rows",
        ["family", "together, ms", "unit by unit, ms", "ratio"],
        rows,
    )


def _scoring(found):
    rows = [(row["preset"], _ms(row), f"{row['rows_per_second']:,.0f}") for row in found["rows"]]
    yield _table(
        f"Scoring {found['rows_scored']} rows, K = {found['num_particles']}",
        ["preset", "ms (quartiles)", "rows/s"],
        rows,
    )


def _fit(found):
    rows = [("fit", _ms(found["fit"])), ("bare step", _ms(found["bare"])), ("ratio", _ratio(found))]
    yield _table(f"fit: {found['case']}", ["", "ms a step (quartiles)"], rows)


def _resampling(found):
    rows = [
        (
            row["num_particles"],
            row["num_resampled"] or "all",
            _ms(row),
            f"{row['ratio']:.2f}",
            f"{row['variance_ratio']:.3f}",
            f"{row['variance_times_time']:.2f}",
        )
        for row in found["rows"]
    ]
    growth = found["k50_resampled5_over_k5"]["ratio"]
    yield _table(
        f"Resampled particles (t of K = 50, 5 resampled, over K = 5: {growth:.2f})",
        ["K", "followed", "ms (quartiles)", "time", "variance", "time x variance"],
        rows,
    )


def _time_to_likelihood(found):
    for target in dict.fromkeys(row["target"] for row in found["rows"]):
        rows = [
            (
                row["library"],
                f"{row['optimizer']} {run['rate']:g}",
                run["updates"],
                f"{run['seconds']:.0f}",
                f"{run['nll']:.2f} ({run['nll_se']:.2f})",
                "best" if run == row["best"] else "",
            )
            for row in found["rows"]
            if row["target"] == target
            for run in row["runs"]
        ]
        columns = ["library", "optimizer", "updates", "seconds", "NLL (se)", ""]
        yield _table(f"Time to a validation NLL of {target:g}", columns, rows)


def _serving(found):
    rows = [
        (
            f"{case['protocol']}, {case['clients']} clients, {case['rows']} rows a request",
            f"{case['rows_per_second']:,.0f}",
            f"{case['ratio']:.2f}",
            f"{case['p50_ms']:.1f}",
            f"{case['p99_ms']:.1f}",
            case["wrong"],
        )
        for case in found["cases"]
    ]
    title = (
        f"Serving {found['model']} (in process {found['in_process_rows_per_second']:,.0f} rows/s)"
    )
    columns = ["load", "rows/s", "of in process", "p50 ms", "p99 ms", "wrong"]
    yield _table(title, columns, rows)


def _exact_estimates(found):
    for stage in found["stages"]:
        rows = [
            (
                row["num_particles"],
                *(f"{row[key]:.3g}" for key in ("bias", "variance")),
                *(f"{row[f'{stack}_gradient_{key}']:.3g}" for stack in "pq" for key in _MOMENTS),
            )
            for row in stage["rows"]
        ]
        title = (
            f"Exact errors, {found['machine']}, Q after {stage['updates_of_q']} updates (variance "
            f"of a weight {stage['weight_variance']:.3g})"
        )
        columns = ["K", "bias of log p(x)", "variance"]
        columns += [f"{key}, gradient of {stack}" for stack in "PQ" for key in _MOMENTS]
        yield _table(title, columns, rows)


_MOMENTS = ("bias", "variance")


def _gradient_noise(found):
    rows = [
        (
            f"{row['estimator']}, epoch {row['epoch']}",
            row["num_particles"],
            *(shown_snr(row[stack]) for stack in "pq"),
            *(f"{row[s]['variance']:.3g}" for s in "pq"),
        )
        for row in found["rows"]
    ]
    columns = ["estimator", "K", "signal to noise, P", "Q", "variance, P", "Q"]
    yield _table("Noise of the gradients", columns, rows)


def _missing_values(found):
    rows = [
        (
            f"{row['dataset']}, {row['pattern']}: {row['method']}",
            _mean(row["log_prob"], 4),
            _mean(row["accuracy"], 3),
            "" if row["joint"] is None else _mean(row["joint"], 2),
        )
        for row in found["rows"]
    ]
    title = f"{found['share']:.0%} of the cells removed"
    yield _table(title, ["data and method", "nats a cell", "accuracy", "nats a row, jointly"], rows)


def _mean(entry, digits):
    return f"{entry['mean']:.{digits}f} ({entry['se']:.{digits}f})"


def _imputation_coverage(found):
    rows = [
        (row["method"], f"{row['coverage']:.3f} ({row['coverage_se']:.3f})", f"{row['width']:.3f}")
        for row in found["methods"]
    ]
    title = f"{found['level']:.0%} intervals of multiple imputation, {found['pairs']} pairs of bars"
    yield _table(title, ["method", "coverage", "width"], rows)


def _anomalies(found):
    rows = [
        (
            f"{row['dataset']} ({row['model']}): {row['odd']}",
            f"{row['usual']:.2f}",
            f"{row['odd_mean']:.2f}",
            f"{row['auroc']:.3f}",
            f"{row['auroc_two_sided']:.3f}",
            *(f"{row[key]:.1%}" for key in ("false_alarms", "alarms", "alarms_two_sided")),
        )
        for row in found["rows"]
    ]
    columns = ["odd rows", "normal", "odd", "AUROC", "two-sided", "false alarms", "alarms"]
    yield _table(f"Alarms at {found['level']:.0%}", [*columns, "two-sided"], rows)


def _families(found):
    rows = [
        (
            f"{row['dataset']}: {row['model']}",
            f"{row['log_likelihood']:.2f} ({row['log_likelihood_se']:.2f})",
            f"{row['auroc']:.3f}",
        )
        for row in found["rows"]
    ]
    title = f"Visible layers on tables, K = {found['num_particles']:,}"
    yield _table(title, ["model", "test log-likelihood (nats)", "AUROC of flipped cells"], rows)


def _particles(found):
    rows = [
        (
            row["preset"],
            f"{row['num_particles']:,}",
            f"{row['log_likelihood']:.2f} ({row['log_likelihood_se']:.2f})",
            "" if row["median_standard_error"] is None else f"{row['median_standard_error']:.2f}",
            f"{row['effective_sample_size']:.1f}",
        )
        for row in found["rows"]
    ]
    columns = ["preset", "K", "log-likelihood", "median error of a row", "effective sample size"]
    yield _table(f"Particles at evaluation, {found['test_rows']} rows", columns, rows)


_SECTIONS = {
    "train_step": _train_step,
    "peers": _peers,
    "limits": _limits,
    "likelihood": _likelihood,
    "sampling": _sampling,
    "scoring": _scoring,
    "fit": _fit,
    "resampling": _resampling,
    "time_to_likelihood": _time_to_likelihood,
    "serving": _serving,
    "exact_estimates": _exact_estimates,
    "gradient_noise": _gradient_noise,
    "missing_values": _missing_values,
    "imputation_coverage": _imputation_coverage,
    "anomalies": _anomalies,
    "families": _families,
    "particles": _particles,
}
