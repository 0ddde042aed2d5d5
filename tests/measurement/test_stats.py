"""Ratios with intervals that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from redline.measurement.stats import Ratio, percentile, speedup

Rounds = list[list[float]]


def rounds(rng: np.random.Generator, factor: float, drift: np.ndarray, noise: float) -> Rounds:
    return [list(factor * d * np.exp(rng.normal(0, noise, 8)) * 1e-3) for d in drift]


def test_a_drift_of_the_machine_cancels_out() -> None:
    rng = np.random.default_rng(0)
    drift = np.linspace(1, 3, 20)
    ratio = speedup(rounds(rng, 2.0, drift, 0.02), rounds(rng, 1.0, drift, 0.02))
    assert ratio is not None
    assert ratio.value == pytest.approx(2.0, rel=0.03)
    assert ratio.low < 2.0 < ratio.high
    assert ratio.verdict == "faster"


def test_equals_are_called_equal_and_a_delay_of_five_percent_is_seen() -> None:
    rng = np.random.default_rng(1)
    equal, slower = 0, 0
    for _ in range(100):
        drift = np.exp(rng.normal(0, 0.2, 60))
        base = rounds(rng, 1.0, drift, 0.05)
        same = speedup(base, rounds(rng, 1.0, drift, 0.05))
        late = speedup(base, rounds(rng, 1.05, drift, 0.05))
        assert same is not None
        assert late is not None
        equal += same.verdict == "no difference"
        slower += late.verdict == "slower"
    assert equal >= 98
    assert slower >= 95


def test_a_few_disturbed_rounds_do_not_move_it() -> None:
    rng = np.random.default_rng(2)
    base = rounds(rng, 1.0, np.ones(20), 0.01)
    candidate = rounds(rng, 1.0, np.ones(20), 0.01)
    candidate[3] = [second * 50 for second in candidate[3]]
    candidate[11] = [second * 9 for second in candidate[11]]
    ratio = speedup(base, candidate)
    assert ratio is not None
    assert ratio.verdict == "no difference"
    assert ratio.value == pytest.approx(1.0, abs=0.02)


def test_what_only_adds_time_does_not_count() -> None:
    rng = np.random.default_rng(3)
    base = [[1.0 + late for late in rng.exponential(0.5, 8)] for _ in range(60)]
    busy = [[1.0 + late for late in rng.exponential(0.5, 40)] for _ in range(60)]
    ratio = speedup(base, busy)
    assert ratio is not None
    assert ratio.verdict == "no difference"


def test_too_few_rounds_give_no_ratio() -> None:
    assert speedup([[1.0], [1.0]], [[1.0], [1.0]]) is None


def test_equal_rounds_have_an_interval_all_the_same() -> None:
    ratio = speedup([[1.0]] * 5, [[0.5]] * 5)
    assert ratio is not None
    assert (ratio.low, ratio.high) == (pytest.approx(1.98, abs=0.01), pytest.approx(2.02, abs=0.01))


def test_verdicts() -> None:
    assert Ratio(0.9, 0.85, 0.95).verdict == "slower"
    assert Ratio(1.0, 0.9, 1.1).verdict == "no difference"
    assert percentile([1, 2, 3, 4], 25) == 1.75
