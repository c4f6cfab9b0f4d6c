"""Which cases of a parametrised test `make check` runs."""

from collections.abc import Collection, Iterable

import pytest


def slow_except(quick: Collection, cases: Iterable) -> list:
    """The cases for `parametrize`; all but the quick ones are marked slow."""
    cases = list(cases)
    assert all(case in cases for case in quick)
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]
