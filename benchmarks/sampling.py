"""Sampling from P, and the log-probability of autoregressive layers against unit by unit."""

from __future__ import annotations

import tensorflow as tf

from benchmarks.machines import NADE, SBN3, VISIBLE, Case, data, make
from rws_keras import layers
from rws_keras.training.timing import alternate, ratio, summary, timer

_ROWS = 500


def measure(report) -> dict:
    """Samples per second of each family; log-probability of AR-SBN and NADE."""
    rows = []
    for case in (
        Case("sbn", SBN3),
        Case("dsbn", SBN3),
        Case("arsbn", (500,)),
        Case(NADE, (250,)),
    ):
        report(case.name)
        machine = make(case)
        times = alternate(
            {"sample": timer(lambda machine=machine: machine.sample(_ROWS, seed=0))},
            rounds=5,
            steps=3,
        )
        found = summary(times["sample"])
        rows.append(
            {
                "case": case.name.split(",")[0],
                **found,
                "samples_per_second": _ROWS / found["ms"] * 1e3,
            }
        )
    report("log-probability")
    return {
        "samples": _ROWS,
        "rows": rows,
        "log_prob": [_log_prob("arsbn", {}), _log_prob("nade", {"hidden_units": 250})],
    }


def _log_prob(family, options):
    """All units at once against one conditional `p(x_i | x_<i)` after the other."""
    layer = layers.get({"family": family, **options}, VISIBLE)
    layer.build(None)
    x = tf.constant(data(100), tf.float32)
    together = tf.function(lambda: layer.distribution().log_prob(x), jit_compile=True)

    # A unit of zeros in front of all others, lest the first has none before it.
    padded = tf.pad(x, [[0, 0], [1, 0]])
    weights = layer.autoregressive_kernel if family == "arsbn" else layer.encoder
    weights = tf.pad(weights.value, [[1, 0], [0, 0]])

    @tf.function
    def conditional(i):
        """`log p(x_i | x_<i)` from the definition."""
        before = padded[:, : i + 1]
        if family == "arsbn":
            logit = layer.bias[i] + tf.linalg.matvec(before, weights[: i + 1, i])
        else:
            hidden = layer.hidden_bias + tf.matmul(before, weights[: i + 1])
            logit = layer.bias[i] + tf.linalg.matvec(tf.sigmoid(hidden), layer.decoder[i])
        return -tf.nn.softplus((1.0 - 2.0 * x[:, i]) * logit)

    units = [tf.constant(i) for i in range(VISIBLE)]

    def one_by_one():
        return tf.add_n([conditional(i) for i in units])

    tf.debugging.assert_near(one_by_one(), together(), atol=1e-2)
    times = alternate(
        {"together": timer(together), "unit by unit": timer(one_by_one)}, rounds=7, steps=2
    )
    return {
        "family": family,
        "units": VISIBLE,
        "rows": len(x),
        "together": summary(times["together"]),
        "unit_by_unit": summary(times["unit by unit"]),
        **ratio(times["unit by unit"], times["together"]),
    }
