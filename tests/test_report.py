"""The report on the estimators: fresh, and its verdicts follow from the figures."""

import numpy as np
import pytest

from benchmarks.report import __main__ as report
from benchmarks.report import claims, page, plots
from benchmarks.report.evidence import Evidence
from rws_keras.training.comparison_summary import Figure, Row

SEEDS = 3


@pytest.fixture(scope="module")
def evidence():
    return Evidence()


def test_the_tables_are_those_of_the_committed_results(evidence):
    committed = report.PAGE.read_text()
    assert page.filled(committed, report.blocks(evidence)) == committed


def test_the_plots_are_those_of_the_committed_results(evidence, tmp_path):
    plots.draw(evidence, tmp_path)
    committed = report.PAGE.parent / "estimators"
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in committed.iterdir()}
    for path in tmp_path.glob("*.svg"):
        assert path.read_bytes() == (committed / path.name).read_bytes(), path.name


def test_all_plots_are_on_the_page():
    text = report.PAGE.read_text()
    for path in (report.PAGE.parent / "estimators").glob("*.svg"):
        assert f"(estimators/{path.name})" in text, path.name


def test_a_page_with_a_wrong_block_is_refused():
    text = "<!-- begin a -->\nold\n<!-- end a -->\n"
    assert page.filled(text, {"a": lambda: "new"}) == text.replace("old", "new")
    with pytest.raises(KeyError, match="b"):
        page.filled(text, {"a": lambda: "new", "b": lambda: "new"})
    with pytest.raises(KeyError, match="a"):
        page.filled(text, {})


class Found(Evidence):
    """Evidence whose rows are given: test NLL and spread by comparison, method and value."""

    def __init__(self, figures):
        super().__init__()
        self.figures = figures

    def rows(self, name):
        return [
            _row(method, value, *found)
            for (where, method, value), found in self.figures.items()
            if where == name
        ]


def _row(method, value, nll, spread, timed=None):
    updates = {"log_likelihood": Figure(-nll, spread)}
    time = {"log_likelihood": Figure(-timed, spread)} if timed else {}
    return Row(method, value, 1e-3, SEEDS, None, updates, time, (10, None), np.zeros(10), 0)


def switches(both, wake, sleep):
    names = ("switches-mnist", "switches-plants", "switches-mushrooms")
    settings = {"wake and sleep": both, "wake only": wake, "sleep only": sleep}
    return Found({(n, method, 5): (nll, 0.3) for n in names for method, nll in settings.items()})


@pytest.mark.parametrize(
    ("both", "wake", "sleep", "verdict"),
    [
        (100.0, 101.0, 102.0, "holds"),
        (100.0, 100.2, 102.0, "best or as good as the best"),  # 0.2 ± 0.24
        (101.0, 100.0, 102.0, "does not hold"),
        (102.0, 104.0, 100.0, "does not hold"),
    ],
)
def test_the_verdict_on_the_switches_follows_from_the_figures(both, wake, sleep, verdict):
    found = claims._wake_and_sleep_is_best(switches(both, wake, sleep))
    assert found.verdict == verdict


def test_a_gain_and_its_error_are_those_of_the_seeds():
    evidence = switches(100.0, 101.0, 102.0)
    both, wake, _ = evidence.rows("switches-mnist")
    assert evidence.gain(both, wake) == pytest.approx((1.0, np.sqrt(2 * 0.3**2 / SEEDS)))


@pytest.mark.parametrize(
    ("five", "ten", "verdict"),
    [
        ((100.0, 100.0), (99.0, 99.0), "holds"),
        ((100.0, 100.0), (99.0, 106.0), "holds at equal updates; at equal time only if K is 5"),
        ((100.0, 106.0), (99.0, 106.0), "only if updates are counted, not time"),
        ((106.0, 106.0), (99.0, 99.0), "does not hold"),
    ],
)
def test_the_verdict_on_wake_sleep_follows_from_the_figures(five, ten, verdict):
    evidence = Found(
        {
            ("estimators", "wake-sleep", 1): (105.0, 0.3, 105.0),
            ("estimators", "RWS", 5): (five[0], 0.3, five[1]),
            ("estimators", "RWS", 10): (ten[0], 0.3, ten[1]),
        }
    )
    assert claims._particles_beat_wake_sleep(evidence).verdict == verdict


def test_what_was_not_measured_is_not_judged():
    verdicts = {claim.verdict for claim in claims.claims(Found({}))}
    assert "not measured yet" in verdicts
    assert claims._depth_pays(Found({})).figure == ""
