"""Timings that can be compared: subjects measured in turn, in one run, after warm-up."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

Subject = Callable[[int], list[float]]


def timer(call: Callable[[], object]) -> Subject:
    """A subject: measures the time of each call, in seconds."""

    def seconds(steps):
        seconds_of_calls = []
        for _ in range(steps):
            began = time.perf_counter()
            call()
            seconds_of_calls.append(time.perf_counter() - began)
        return seconds_of_calls

    return seconds


def alternate(
    subjects: dict[str, Subject], rounds: int = 9, steps: int = 20, warm_up: int = 3
) -> dict[str, np.ndarray]:
    """Times subjects in turn, so that what slows the machine down slows them all.

    Args:
        subjects: Functions that take a number of steps and return the seconds of each.
        rounds: Number of turns of each.
        steps: Steps per turn.
        warm_up: Steps of each before the first round; one more opens each turn, untimed.

    Returns:
        For each subject the median seconds of each round, `[rounds]`.
    """
    for subject in subjects.values():
        subject(warm_up)
    return {
        name: np.array(medians)
        for name, medians in zip(
            subjects,
            zip(
                *(
                    [float(np.median(subject(steps + 1)[1:])) for subject in subjects.values()]
                    for _ in range(rounds)
                ),
                strict=True,
            ),
            strict=True,
        )
    }


def summary(seconds: np.ndarray) -> dict[str, float]:
    """Median over the rounds in milliseconds, and the quartiles."""
    low, middle, high = np.percentile(seconds, [25, 50, 75]) * 1e3
    return {"ms": float(middle), "ms_25": float(low), "ms_75": float(high)}


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> dict[str, float]:
    """Ratio of the medians, and the quartiles of the rounds' own ratios."""
    low, high = np.percentile(numerator / denominator, [25, 75])
    middle = np.median(numerator) / np.median(denominator)
    return {"ratio": float(middle), "ratio_25": float(low), "ratio_75": float(high)}
