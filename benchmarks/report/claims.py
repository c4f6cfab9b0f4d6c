"""The claims of the literature, each beside what was measured here."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from benchmarks.report.evidence import Evidence
from benchmarks.report.page import table

HOLDS, FAILS, ONLY_IF = "holds", "does not hold", "only if"
_OPEN = "not measured yet"
_SBN = "SBN 200-200-200"


class Claim(NamedTuple):
    """A claim.

    Attributes:
        text: What is claimed.
        source: By whom.
        figure: What was measured here.
        verdict: Whether it holds here.
    """

    text: str
    source: str
    figure: str
    verdict: str


def claims_table(evidence: Evidence) -> str:
    """All claims as a Markdown table."""
    return table(["claim", "from", "here", "verdict"], [list(claim) for claim in claims(evidence)])


def claims(evidence: Evidence) -> list[Claim]:
    """All claims, judged by the committed results."""
    judged = (
        _particles_beat_wake_sleep,
        _wake_and_sleep_is_best,
        _depth_pays,
        _unbiased,
        _errors_fall_as_one_over_k,
        _cost_over_vae,
        _cost_over_nvil,
        _sensitive_to_k,
        _growing_pays,
        _vimco_beats_rws,
        _vimco_beats_reinforce,
        _tighter_bounds_hurt_q,
    )
    return [judge(evidence) for judge in judged]


def _sure(gain: float, error: float) -> bool:
    """A difference of more than two standard errors over seeds."""
    return gain > 2.0 * error


def _particles_beat_wake_sleep(evidence: Evidence) -> Claim:
    text, source = "5 to 10 particles beat wake-sleep", "Bornschein & Bengio 2015"
    wake_sleep = evidence.find("estimators", "wake-sleep", 1)
    rows = [evidence.find("estimators", "RWS", k) for k in (5, 10)]
    found = [row for row in rows if row]
    if wake_sleep is None or len(found) < 2:
        return Claim(text, source, "", _OPEN)
    parts, verdicts = [], []
    for row in found:
        updates, error = evidence.gain(row, wake_sleep)
        time, _ = evidence.gain(row, wake_sleep, "equal_time")
        parts.append(f"K = {row.value}: {updates:+.1f} nats at equal updates, {time:+.1f} in time")
        verdicts += [_sure(updates, error), _sure(time, error)]
    if all(verdicts):
        verdict = HOLDS
    elif all(verdicts[:3]):
        verdict = f"{HOLDS} at equal updates; at equal time {ONLY_IF} K is 5"
    elif verdicts[0] and verdicts[2]:
        verdict = f"{ONLY_IF} updates are counted, not time"
    else:
        verdict = FAILS
    return Claim(text, source, "; ".join(parts), verdict)


def _wake_and_sleep_is_best(evidence: Evidence) -> Claim:
    text = "wake and sleep updates of Q together are best"
    source, parts, verdicts = "Bornschein & Bengio 2015", [], []
    for name in ("switches-mnist", "switches-plants", "switches-mushrooms"):
        rows = {row.method: row for row in evidence.rows(name) if row.updates}
        both = rows.pop("wake and sleep", None)
        if both is None or not {"wake only", "sleep only"} <= rows.keys():
            return Claim(text, source, "", _OPEN)
        best = min(rows.values(), key=evidence.nll)
        gain, error = evidence.gain(both, best)
        data = name.split("-")[1]
        parts.append(f"{data}: {gain:+.2f} ± {error:.2f} nats over {best.method}")
        verdicts.append(HOLDS if _sure(gain, error) else FAILS if _sure(-gain, error) else "equal")
    if set(verdicts) == {HOLDS}:
        verdict = HOLDS
    elif FAILS in verdicts:
        verdict = FAILS if HOLDS not in verdicts else f"{ONLY_IF} the data are right"
    else:
        verdict = "best or as good as the best"
    return Claim(text, source, "; ".join(parts), verdict)


def _depth_pays(evidence: Evidence) -> Claim:
    text, source = "depth pays", "Bornschein & Bengio 2015"
    rows = {
        method: [row for row in evidence.rows("depth") if row.method == method and row.updates]
        for method in ("RWS, K = 5", "wake-sleep")
    }
    if any(len(own) < 5 for own in rows.values()):
        return Claim(text, source, "", _OPEN)
    parts, best = [], {}
    for method, own in rows.items():
        parts.append(f"{method}: {', '.join(f'{evidence.nll(row):.1f}' for row in own)}")
        best[method] = 1 + min(range(5), key=lambda i, own=own: evidence.nll(own[i]))
    figure = f"test NLL with 1 to 5 layers, {'; '.join(parts)}"
    layers = best["RWS, K = 5"]
    if layers == 5:
        verdict = HOLDS
    elif layers == 1:
        verdict = FAILS
    else:
        verdict = f"up to {layers} layers after so many updates"
    return Claim(text, source, figure, verdict)


def _unbiased(evidence: Evidence) -> Claim:
    stages = evidence.benchmarks["exact_estimates"]["stages"]
    variances = [stage["weight_variance"] for stage in stages]
    shown = ", ".join(f"{value:.3g}" for value in variances)
    updates = ", ".join(f"{stage['updates_of_q']:,}" for stage in stages)
    falls = all(a > b for a, b in itertools.pairwise(variances))
    return Claim(
        "the likelihood's estimate is unbiased, and its variance falls as Q nears the posterior",
        "Bornschein & Bengio 2015",
        f"relative variance of a weight {shown} after {updates} updates of Q, by enumeration; the "
        "mean of p̂ is p(x) in the tests",
        HOLDS if falls else FAILS,
    )


def _errors_fall_as_one_over_k(evidence: Evidence) -> Claim:
    stages = evidence.benchmarks["exact_estimates"]["stages"]
    ratios = {}
    for stage in (stages[0], stages[-1]):
        rows = {row["num_particles"]: row for row in stage["rows"]}
        ratios[stage["updates_of_q"]] = (
            rows[5]["bias"] / rows[10]["bias"],
            rows[500]["bias"] / rows[1000]["bias"],
        )
    parts = [
        f"after {updates:,} updates of Q {small:.2f} and {large:.2f}"
        for updates, (small, large) in ratios.items()
    ]
    large_enough = all(abs(large - 2.0) < 0.1 for _, large in ratios.values())
    small_too = all(abs(small - 2.0) < 0.1 for small, _ in ratios.values())
    return Claim(
        "the bias of log p̂ falls as 1 / K",
        "Burda et al. 2016; Domke & Sheldon 2018",
        f"bias at half of K over that at K, for K = 10 and 1,000: {'; '.join(parts)}",
        HOLDS if small_too else f"{ONLY_IF} K is large, or Q good" if large_enough else FAILS,
    )


def _cost_over_vae(evidence: Evidence) -> Claim:
    vae = ("ELBO (VAE)", 1)
    ratios = {k: evidence.time_ratio("estimators", ("RWS", k), vae) for k in (5, 10, 50)}
    parts = ", ".join(f"{ratio:.1f} with K = {k}" for k, ratio in ratios.items())
    inside = [k for k, ratio in ratios.items() if 5 <= ratio <= 10]
    return Claim(
        "a step of RWS takes 5 to 10 times that of a VAE",
        "rule of thumb",
        f"{parts}, over a VAE of 200 latents with deterministic layers of 200",
        HOLDS if 5 in inside else f"{ONLY_IF} K is between 10 and 50" if ratios[50] > 5 else FAILS,
    )


def _cost_over_nvil(evidence: Evidence) -> Claim:
    equal = evidence.time_ratio("estimators", ("RWS", 5), ("NVIL", 5))
    usual = evidence.time_ratio("estimators", ("RWS", 5), ("NVIL", 1))
    verdict = HOLDS if equal >= 1.5 else f"{ONLY_IF} NVIL has one particle and RWS five"
    return Claim(
        "a step of RWS takes about 2 times that of NVIL",
        "rule of thumb",
        f"{equal:.2f} with K = 5 in both, {usual:.2f} over NVIL with K = 1",
        verdict if usual >= 1.5 else FAILS,
    )


def _sensitive_to_k(evidence: Evidence) -> Claim:
    text, source = "results are sensitive to K", "public threads"
    rows = [row for row in evidence.rows("estimators") if row.method == "RWS" and row.updates]
    if len(rows) < 5:
        return Claim(text, source, "", _OPEN)
    best = min(rows, key=evidence.nll)
    close = [row.value for row in rows if evidence.nll(row) < evidence.nll(best) + 0.5]
    timed = min(
        (row for row in rows if row.equal_time), key=lambda row: evidence.nll(row, "equal_time")
    )
    figure = (
        f"K = {rows[0].value} to {rows[-1].value}: {evidence.nll(rows[0]):.1f} to "
        f"{evidence.nll(rows[-1]):.1f}; within half a nat of the best: {', '.join(map(str, close))}"
        f"; best at equal time: K = {timed.value}"
    )
    return Claim(text, source, figure, f"{ONLY_IF} K is below {min(close)}, or time is short")


def _growing_pays(evidence: Evidence) -> Claim:
    text, source = "K should grow while training", "Bornschein & Bengio 2015"
    growing = [row for row in evidence.rows("growing") if row.method == "growing" and row.updates]
    constant = evidence.find("estimators", "RWS", 5)
    if not growing or constant is None:
        return Claim(text, source, "", _OPEN)
    best = min(growing, key=evidence.nll)
    gain, error = evidence.gain(best, constant)
    sure = _sure(gain, error)
    figure = f"{gain:+.2f} ± {error:.2f} nats over constant K = 5, 10 epochs"
    verdict = HOLDS if sure else FAILS if _sure(-gain, error) else "no difference in so few epochs"
    return Claim(text, source, figure, verdict)


def _vimco_beats_rws(evidence: Evidence) -> Claim:
    text, source = "VIMCO is better than RWS at equal K", "Mnih & Rezende 2016"
    parts, verdicts = [], []
    for k in (5, 10, 50):
        rws, vimco = (evidence.find("estimators", name, k) for name in ("RWS", "VIMCO"))
        if rws is None or vimco is None:
            continue
        gain, error = evidence.gain(vimco, rws)
        parts.append(f"K = {k}: {gain:+.1f}")
        verdicts.append(_sure(gain, error))
    longer = [evidence.find("longer", name, 5) for name in ("RWS", "VIMCO")]
    if longer[0] and longer[1]:
        gain, _ = evidence.gain(longer[1], longer[0])
        parts.append(f"five times as long, K = 5: {gain:+.1f}")
        verdicts.append(gain > 0)
    if not parts:
        return Claim(text, source, "", _OPEN)
    figure = f"test NLL gained, {_SBN}: {', '.join(parts)} nats"
    return Claim(text, source, figure, HOLDS if all(verdicts) else f"{FAILS} in so few updates")


def _vimco_beats_reinforce(evidence: Evidence) -> Claim:
    rows = evidence.benchmarks["gradient_noise"]["rows"]
    last = max(row["epoch"] for row in rows)
    found = {
        (row["estimator"], row["num_particles"]): row["q"]["snr"]
        for row in rows
        if row["epoch"] == last
    }
    parts = []
    ks = sorted(k for estimator, k in found if estimator == "VIMCO")
    for k in ks:
        parts.append(f"{found['VIMCO', k]:.2f} against {found['REINFORCE', k]:.2f}")
    better = all(found["VIMCO", k] > found["REINFORCE", k] for k in ks)
    return Claim(
        "leave-one-out baselines make REINFORCE's gradient of Q less noisy",
        "Mnih & Rezende 2016",
        f"signal-to-noise ratio after {last} epochs, K = {', '.join(map(str, ks))}: "
        f"{', '.join(parts)}",
        HOLDS if better else FAILS,
    )


def _tighter_bounds_hurt_q(evidence: Evidence) -> Claim:
    text = "with more particles the gradient of Q of IWAE gets noisier, that of DReG does not"
    source = "Rainforth et al. 2018; Tucker et al. 2019"
    rows = evidence.benchmarks["gradient_noise"]["rows"]
    found = {
        (row["estimator"], row["num_particles"]): row["q"]["snr"]
        for row in rows
        if row["epoch"] == max(row["epoch"] for row in rows)
    }
    ks = sorted(k for estimator, k in found if estimator == "IWAE")
    if not ks:
        return Claim(text, source, "", _OPEN)
    first, last = ks[0], ks[-1]
    iwae, dreg = (found[name, last] / found[name, first] for name in ("IWAE", "DReG"))
    holds = iwae < 1 <= dreg
    return Claim(
        text,
        source,
        f"signal-to-noise ratio with K = {last} over that with K = {first}: IWAE {iwae:.2f}, "
        f"DReG {dreg:.2f}",
        HOLDS if holds else FAILS,
    )
