"""What more particles change about a likelihood: its mean, its error and the effective number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rws_keras import HelmholtzMachine, datasets

_PRESETS = (
    ("mnist-sbn-200-200-200", "binarized_mnist"),
    ("mnist-arsbn-200", "binarized_mnist"),
    ("digits-sbn-64-32", "digits"),
)
_PARTICLES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_ROWS, _BATCH = 300, 50


def measure(report: Callable) -> dict:
    """Test log-likelihood and effective sample size of presets against K."""
    rows = []
    for preset, dataset in _PRESETS:
        machine = HelmholtzMachine.from_preset(preset)
        x = datasets.load(dataset).test[:_ROWS]
        for k in _PARTICLES:
            report(f"{preset}, K = {k:,}")
            parts = [
                machine.log_likelihood(x[start : start + _BATCH], k, seed=start)
                for start in range(0, len(x), _BATCH)
            ]
            scores, errors, sizes = (
                np.concatenate([getattr(part, name).numpy() for part in parts])
                for name in ("log_likelihood", "standard_error", "effective_sample_size")
            )
            rows.append(
                {
                    "preset": preset,
                    "num_particles": k,
                    "log_likelihood": float(scores.mean()),
                    "log_likelihood_se": float(scores.std(ddof=1) / np.sqrt(len(scores))),
                    "median_standard_error": None if k == 1 else float(np.median(errors)),
                    "effective_sample_size": float(sizes.mean()),
                }
            )
    return {"test_rows": _ROWS, "rows": rows}
