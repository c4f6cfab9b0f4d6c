"""The training step: all three updates and Adam, for several machines, K and batch sizes."""

from __future__ import annotations

from benchmarks.machines import NADE, REFERENCE, SBN3, Case, bare_step, make
from rws_keras.training.timing import alternate, ratio, summary, timer

_CASES = [
    *(
        Case("sbn", latents, num_particles, batch_size)
        for latents in ((200,), SBN3, (400, 300, 200, 100, 10))
        for num_particles in (1, 5, 10, 50)
        for batch_size in (25, 100, 500)
    ),
    Case("arsbn", (500,)),
    Case(NADE, (250,)),
    Case("nade", (250,)),
]


def measure(report) -> dict:
    """Each case in turn with SBN 200-200-200, K = 5, batch 100, as the unit."""
    unit = timer(bare_step(make(REFERENCE), REFERENCE.batch_size))
    rows = []
    for case in _CASES:
        report(case.name)
        step = timer(bare_step(make(case), case.batch_size))
        large = case.num_particles * case.batch_size > 4000 or case.family != "sbn"
        times = alternate({"case": step, "unit": unit}, rounds=5, steps=5 if large else 20)
        rows.append(
            {"case": case.name, **summary(times["case"]), **ratio(times["case"], times["unit"])}
        )
    report("growth with K")
    steps = {str(k): timer(bare_step(make(Case("sbn", SBN3, k)), 100)) for k in (5, 50)}
    times = alternate(steps, rounds=9, steps=10)
    return {"cases": rows, "k50_over_k5": ratio(times["50"], times["5"])}
