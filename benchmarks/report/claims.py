"""The claims of the literature, each beside what was measured here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.gradient_noise import shown_snr
from benchmarks.report.evidence import Evidence, Gain, nll
from benchmarks.report.page import table
from rws_keras.training.comparison import label
from rws_keras.training.comparison_summary import Row

HOLDS, FAILS, OPEN = "holds", "does not hold", "not measured yet"
SETS = {"switches-mnist": "MNIST", "switches-plants": "plants", "switches-mushrooms": "mushrooms"}
_RWS = "[Bornschein & Bengio 2015](https://arxiv.org/abs/1406.2751)"
_VIMCO = "[Mnih & Rezende 2016](https://arxiv.org/abs/1602.06725)"
_NO_PAPER = "often said; no paper known to us"


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
    figure: str = ""
    verdict: str = OPEN


def claims_table(evidence: Evidence) -> str:
    """All claims as a Markdown table."""
    return table(["claim", "from", "here", "verdict"], [list(claim) for claim in claims(evidence)])


def claims(evidence: Evidence) -> list[Claim]:
    """All claims, judged by the committed results."""
    judged = (
        particles_beat_wake_sleep,
        wake_and_sleep_is_best,
        depth_pays,
        unbiased,
        errors_fall_as_one_over_k,
        cost_over_vae,
        cost_over_nvil,
        sensitive_to_k,
        growing_pays,
        vimco_beats_rws,
        vimco_beats_reinforce,
        tighter_bounds_hurt_q,
    )
    return [judge(evidence) for judge in judged]


def particles_beat_wake_sleep(evidence: Evidence) -> Claim:
    """At equal updates and at equal time, K = 5 and 10."""
    claim = Claim("5 to 10 particles beat wake-sleep", _RWS)
    wake_sleep = evidence.find("estimators", "wake-sleep", 1)
    rows = [row for k in (5, 10) if (row := evidence.find("estimators", "RWS", k))]
    if wake_sleep is None or len(rows) < 2:
        return claim
    parts, better = [], {}
    for row in rows:
        gains = [evidence.gain("estimators", row, wake_sleep, w) for w in ("updates", "equal_time")]
        parts.append(f"K = {row.value}: {gains[0]} nats at equal updates, {gains[1]} at equal time")
        better[row.value] = [gain.verdict == "better" for gain in gains]
    updates = all(found[0] for found in better.values())
    in_time = [f"K = {k}" for k, found in better.items() if found[1]]
    if updates and len(in_time) == len(rows):
        verdict = HOLDS
    elif updates:
        verdict = f"{HOLDS} at equal updates; at equal time {_only_if(in_time)}"
    else:
        verdict = FAILS
    return claim._replace(figure="; ".join(parts), verdict=verdict)


def _only_if(names: list[str]) -> str:
    return f"only with {' and '.join(names)}" if names else FAILS


def wake_and_sleep_is_best(evidence: Evidence) -> Claim:
    """Against the best of the other settings, on three sets."""
    claim = Claim("wake and sleep updates of Q together are best", _RWS)
    parts, verdicts = [], {}
    for name, title in SETS.items():
        rows = {row.method: row for row in evidence.done(name)}
        both = rows.pop("wake and sleep", None)
        if both is None or not {"wake only", "sleep only"} <= rows.keys():
            return claim
        best = min(rows.values(), key=nll)
        gain = evidence.gain(name, both, best)
        parts.append(f"{title}: {gain} nats over {best.method}, the next best")
        verdicts[title] = gain.verdict
    where = {v: [t for t, verdict in verdicts.items() if verdict == v] for v in verdicts.values()}
    if set(where) == {"better"}:
        verdict = HOLDS
    elif "worse" not in where:
        verdict = f"no difference found on {_listed(where['equal'])}"
        if "better" in where:
            verdict = f"{HOLDS} on {_listed(where['better'])}; {verdict}"
    else:
        verdict = f"{FAILS} on {_listed(where['worse'])}"
        if "better" in where:
            verdict = f"{HOLDS} on {_listed(where['better'])}, {verdict}"
    return claim._replace(figure="; ".join(parts), verdict=verdict)


def depth_pays(evidence: Evidence) -> Claim:
    """How far each further layer is better than the one before."""
    claim = Claim("deeper machines are better", _RWS)
    parts, layers = [], {}
    for method in ("RWS, K = 5", "wake-sleep"):
        rows = evidence.done("depth", method)
        if len(rows) < 5:
            return claim
        pays = 1
        for shallow, deep in itertools.pairwise(rows):
            if evidence.gain("depth", deep, shallow).verdict != "better":
                break
            pays += 1
        parts.append(f"{method}: {', '.join(f'{nll(row):.1f}' for row in rows)}")
        layers[method] = pays
    if set(layers.values()) == {5}:
        verdict = HOLDS
    elif set(layers.values()) == {1}:
        verdict = FAILS
    else:
        up_to = (f"up to {most} layers with {method}" for method, most in layers.items())
        verdict = f"{_listed(up_to)}, after so few updates"
    figure = f"test NLL with 1 to 5 layers, {'; '.join(parts)}"
    return claim._replace(figure=figure, verdict=verdict)


def unbiased(evidence: Evidence) -> Claim:
    """The variance of a weight as Q is trained, by enumeration."""
    stages = evidence.benchmarks["exact_estimates"]["stages"]
    variances = [stage["weight_variance"] for stage in stages]
    shown = ", ".join(f"{value:.3g}" for value in variances)
    updates = ", ".join(f"{stage['updates_of_q']:,}" for stage in stages)
    falls = all(a > b for a, b in itertools.pairwise(variances))
    return Claim(
        "the likelihood estimate is unbiased, and its variance falls as Q approaches the posterior",
        _RWS,
        f"K times its relative variance: {shown} after {updates} updates of Q, by enumeration; the "
        "tests compare its mean with p(x)",
        HOLDS if falls else FAILS,
    )


def errors_fall_as_one_over_k(evidence: Evidence) -> Claim:
    """The exact bias over its limit for large K."""
    parts, close = [], []
    for stage in evidence.benchmarks["exact_estimates"]["stages"]:
        shares = {
            r["num_particles"]: r["num_particles"] * r["bias"] / stage["limits"]["bias"]
            for r in stage["rows"]
        }
        shown = ", ".join(f"{shares[k]:.2f}" for k in (5, 100, 1000))
        parts.append(f"{shown} where the variance of a weight is {stage['weight_variance']:.3g}")
        close.append(abs(shares[1000] - 1.0) < 0.1)
    return Claim(
        "for large K the bias of log p̂ is -Var(ω / p(x)) / 2K",
        "[Domke & Sheldon 2018](https://arxiv.org/abs/1808.09034)",
        f"exact bias over that, for K = 5, 100 and 1,000: {'; '.join(parts)}",
        f"{HOLDS} once K is many times the variance of a weight" if all(close) else FAILS,
    )


def cost_over_vae(evidence: Evidence) -> Claim:
    """For which K the ratio of the steps is between 5 and 10."""
    values = sorted(
        row["value"] for row in evidence.results.times("estimators") if row["method"] == "RWS"
    )
    vae = ("ELBO (VAE)", 1)
    ratios = {k: evidence.time_ratio("estimators", ("RWS", k), vae) for k in values}
    inside = [k for k, ratio in ratios.items() if 5 <= ratio <= 10]
    verdict = HOLDS if 5 in inside else FAILS
    if inside and 5 not in inside:
        verdict = f"only with K = {_listed(inside)}; not with K = 5"
    return Claim(
        "a step of RWS takes 5 to 10 times that of a VAE",
        _NO_PAPER,
        f"{', '.join(f'{ratios[k]:.1f} (K = {k})' for k in values if k >= 5)}",
        verdict,
    )


def cost_over_nvil(evidence: Evidence) -> Claim:
    """Whether the ratio of the steps is between 1.5 and 2.5."""
    equal = evidence.time_ratio("estimators", ("RWS", 5), ("NVIL", 5))
    over_one = {
        k: evidence.time_ratio("estimators", ("RWS", k), ("NVIL", 1)) for k in (5, 7, 10, 20)
    }
    about_two = [f"K = {k}" for k, ratio in over_one.items() if 1.5 <= ratio <= 2.5]
    if 1.5 <= equal <= 2.5:
        verdict = HOLDS
    elif about_two:
        verdict = f"not at equal K; with {_listed(about_two)} over NVIL with K = 1"
    else:
        verdict = FAILS
    shown = ", ".join(f"{ratio:.2f} (K = {k})" for k, ratio in over_one.items())
    return Claim(
        "a step of RWS takes about 2 times that of NVIL",
        _NO_PAPER,
        f"{equal:.2f} with K = 5 in both; over NVIL with K = 1: {shown}; from 1.5 to 2.5 counts as "
        "about 2",
        verdict,
    )


def sensitive_to_k(evidence: Evidence) -> Claim:
    """Which K are as good as the best one."""
    claim = Claim("results are sensitive to K", "users' questions")
    rows = evidence.done("estimators", "RWS")
    timed = [row for row in rows if row.equal_time]
    if len(timed) < 5:
        return claim
    close, close_in_time = (
        _as_good_as_best(evidence, rows),
        _as_good_as_best(evidence, timed, "equal_time"),
    )
    worst = max(rows, key=nll)
    all_alike = len(close) == len(rows) and len(close_in_time) == len(timed)
    return claim._replace(
        figure=f"test NLL from {min(map(nll, rows)):.1f} to {nll(worst):.1f} (K = {worst.value}); "
        f"the best, and those without a difference from it: K = {_listed(close)} at equal "
        f"updates, K = {_listed(close_in_time)} at equal time",
        verdict=FAILS if all_alike else HOLDS,
    )


def _as_good_as_best(evidence: Evidence, rows: list[Row], which: str = "updates") -> list[int]:
    best = min(rows, key=lambda row: nll(row, which))
    return [
        row.value
        for row in rows
        if row is best or evidence.gain("estimators", best, row, which).verdict == "equal"
    ]


def growing_pays(evidence: Evidence) -> Claim:
    """Each schedule against the constant K whose updates take about as long."""
    claim = Claim("K should grow during training", _RWS)
    constants = [
        row for row in evidence.done("estimators", "RWS") if row.value in (2, 5, 7, 10, 20)
    ]
    schedules = evidence.done("growing", "growing")
    if not schedules or len(constants) < 5:
        return claim
    parts, verdicts = [], []
    for row in schedules:
        rival = min(constants, key=lambda c: abs(evidence.cost(c) - evidence.cost(row)))
        gain = evidence.gain("estimators", row, rival)
        parts.append(f"K = {label(row.value)}: {gain} nats over constant K = {rival.value}")
        verdicts.append(gain.verdict)
    if set(verdicts) == {"better"}:
        verdict = HOLDS
    elif "better" not in verdicts:
        verdict = f"{FAILS} in 10 epochs"
    else:
        verdict = "holds for some schedules"
    return claim._replace(figure=f"at about equal cost, {'; '.join(parts)}", verdict=verdict)


def vimco_beats_rws(evidence: Evidence) -> Claim:
    """At equal K, after longer training, and against RWS without its sleep update."""
    claim = Claim("VIMCO is better than RWS at equal K", _VIMCO)
    gains: dict[str, Gain] = {}
    for k in (5, 10, 50):
        rows = [evidence.find("estimators", name, k) for name in ("VIMCO", "RWS")]
        if rows[0] and rows[1]:
            gains[f"K = {k}"] = evidence.gain("estimators", rows[0], rows[1])
    rows = [evidence.find("longer", name, 5) for name in ("VIMCO", "RWS")]
    if rows[0] and rows[1]:
        gains["K = 5 for five times as long"] = evidence.gain("longer", rows[0], rows[1])
    wake_only = evidence.find("switches-mnist", "wake only", 5)
    vimco = evidence.find("estimators", "VIMCO", 5)
    if wake_only and vimco:
        gains["K = 5 and no sleep update in RWS"] = evidence.gain(
            "switches-mnist", vimco, wake_only
        )
    if not gains:
        return claim
    verdicts = {name: gain.verdict for name, gain in gains.items()}
    figure = "; ".join(f"{name}: {gain} nats" for name, gain in gains.items())
    if set(verdicts.values()) == {"better"}:
        verdict = HOLDS
    else:
        words = {"better": HOLDS, "equal": "no difference found", "worse": FAILS}
        groups = {v: [n for n, found in verdicts.items() if found == v] for v in words}
        verdict = "; ".join(f"{words[v]} with {_listed(n)}" for v, n in groups.items() if n)
        if set(verdicts.values()) == {"worse"}:
            verdict = FAILS
    return claim._replace(figure=figure, verdict=verdict)


def vimco_beats_reinforce(evidence: Evidence) -> Claim:
    """The signal-to-noise ratios of both."""
    last, found = _noise_of_q(evidence)
    ks = sorted(k for estimator, k in found if estimator == "VIMCO")
    parts = [
        f"{shown_snr(found['VIMCO', k])} against {shown_snr(found['REINFORCE', k])}" for k in ks
    ]
    resolved = [k for k in ks if not shown_snr(found["VIMCO", k]).startswith("<")]
    better = resolved and all(
        found["VIMCO", k]["snr_squared"] > found["REINFORCE", k]["snr_squared"] for k in resolved
    )
    verdict = HOLDS if better else FAILS
    if unresolved := [k for k in ks if k not in resolved]:
        verdict += f"; not resolved with K = {_listed(unresolved)}"
    return Claim(
        "leave-one-out baselines make REINFORCE's gradient of Q less noisy",
        _VIMCO,
        f"signal-to-noise ratio after {last} epochs, K = {_listed(ks)}: {', '.join(parts)}",
        verdict,
    )


def tighter_bounds_hurt_q(evidence: Evidence) -> Claim:
    """The signal-to-noise ratios with few and with many particles."""
    claim = Claim(
        "with more particles IWAE's gradient of Q gets noisier, DReG's does not",
        "[Rainforth et al. 2018](https://arxiv.org/abs/1802.04537), "
        "[Tucker et al. 2019](https://arxiv.org/abs/1810.04152)",
    )
    last, found = _noise_of_q(evidence)
    ks = sorted(k for estimator, k in found if estimator == "IWAE")
    if not ks:
        return claim
    first, most = ks[0], ks[-1]
    parts, rises, losses = [], {}, {}
    for name in ("IWAE", "DReG"):
        few, many = found[name, first], found[name, most]
        parts.append(f"{name} {shown_snr(few)} and {shown_snr(many)}")
        error = (few["snr_squared_se"] ** 2 + many["snr_squared_se"] ** 2) ** 0.5
        difference = many["snr_squared"] - few["snr_squared"]
        rises[name] = (difference > 2.0 * error) - (difference < -2.0 * error)
        ratio = max(many["snr_squared"], 0.0) / max(few["snr_squared"], 1e-12)
        losses[name] = f"{1.0 - ratio**0.5:.0%}"
    if rises["IWAE"] < 0 <= rises["DReG"]:
        verdict = HOLDS
    elif rises["IWAE"] < 0:
        verdict = (
            f"{HOLDS} for IWAE, which loses {losses['IWAE']}; DReG's falls too, by {losses['DReG']}"
        )
    else:
        verdict = FAILS
    return claim._replace(
        figure=f"signal-to-noise ratio with K = {first} and {most} after {last} epochs: "
        f"{', '.join(parts)}",
        verdict=verdict,
    )


def _noise_of_q(evidence: Evidence) -> tuple[int, dict[tuple[str, int], dict]]:
    """The last epoch that gradients were measured at, and the noise of those of Q there."""
    rows = evidence.benchmarks["gradient_noise"]["rows"]
    last = max(row["epoch"] for row in rows)
    return last, {
        (row["estimator"], row["num_particles"]): row["q"] for row in rows if row["epoch"] == last
    }


def _listed(items: Iterable) -> str:
    return ", ".join(map(str, items))
