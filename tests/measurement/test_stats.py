"""Ratios with intervals that mean what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from redline.measurement.stats import (
    PRIOR_EFFECT,
    Ratio,
    clopper_pearson,
    ratio_of_pairs,
    ratio_of_processes,
    ratio_unpaired,
    student_quantile,
)

Rounds = list[list[float]]


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.995, 2, 9.925),
        (0.995, 4, 4.604),
        (0.995, 5, 4.032),
        (0.995, 30, 2.750),
        (0.005, 5, -4.032),
        (0.5, 3, 0.0),
    ],
)
def test_quantiles_of_student_are_those_of_the_tables(probability: float, degrees: int, expected: float) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(expected, abs=5e-4)


def test_a_quantile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 to 1 and at least 1"):
        student_quantile(0.995, 0)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        student_quantile(1.0, 3)


def test_exact_intervals_of_shares() -> None:
    # Clopper and Pearson: of n without a miss, the lower end is (tail) ** (1 / n), and the mirror image of none.
    assert clopper_pearson(59, 59, confidence=0.9) == (pytest.approx(0.05 ** (1 / 59)), 1.0)
    assert clopper_pearson(0, 10) == (0.0, pytest.approx(1 - 0.025**0.1))
    # R: binom.test(14, 5000)$conf.int
    assert clopper_pearson(14, 5000) == (pytest.approx(0.00153161, abs=1e-7), pytest.approx(0.00469347, abs=1e-7))
    with pytest.raises(ValueError, match="got 3 of 2"):
        clopper_pearson(3, 2)


def test_a_ratio_by_hand() -> None:
    # Three processes, twice as fast by e^0.1, e^0, e^-0.1 in logarithms: sd 0.1, t(0.995, 2) = 9.925.
    baseline = [[2 * math.exp(0.1)] * 2, [2.0] * 2, [2 * math.exp(-0.1)] * 2]
    ratio = ratio_of_processes(baseline, [[1.0] * 2] * 3)
    assert ratio is not None
    half_width = 9.925 * 0.1 / math.sqrt(3)
    assert ratio.value == pytest.approx(2.0)
    assert ratio.low == pytest.approx(2 * math.exp(-half_width), rel=1e-4)
    assert ratio.high == pytest.approx(2 * math.exp(half_width), rel=1e-4)
    assert ratio.processes == 3


def test_a_screen_shrinks_the_variance_towards_what_processes_usually_differ_by() -> None:
    baseline = [[math.exp(0.1)] * 2, [1.0] * 2, [math.exp(-0.1)] * 2]
    ratio = ratio_of_processes(baseline, [[1.0] * 2] * 3, shrink=True)
    assert ratio is not None
    # Two prior degrees of freedom and two of its own; rounds within a process do not differ.
    variance = (2 * 2 * PRIOR_EFFECT**2 + 2 * 0.01) / 4
    assert ratio.half_width == pytest.approx(4.604 * math.sqrt(variance / 3), rel=1e-4)
    equal = ratio_of_processes([[1.0] * 8] * 3, [[1.0] * 8] * 3, shrink=True)
    assert equal is not None
    assert equal.half_width > PRIOR_EFFECT, "three processes that agree by luck do not make it certain"


def test_more_rounds_do_not_make_up_for_few_processes() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(0, 0.02, 3)
    few, many = (
        ratio_of_processes([[math.exp(effect)] * rounds for effect in effects], [[1.0] * rounds] * 3)
        for rounds in (4, 400)
    )
    assert few is not None
    assert many is not None
    assert few.half_width == pytest.approx(many.half_width)


def test_rounds_pair_by_number_and_those_that_one_lacks_do_not_count() -> None:
    drift = [1.0, 3.0, 1.5, 2.0]
    baseline: list[list[float | None]] = [[2 * d for d in drift], [2 * d for d in drift]]
    candidate: list[list[float | None]] = [[*drift], [*drift]]
    candidate[0][1] = None
    baseline[1][2] = None
    ratio = ratio_of_processes(baseline, candidate)
    assert ratio is not None
    assert (ratio.low, ratio.value, ratio.high) == (pytest.approx(2.0), pytest.approx(2.0), pytest.approx(2.0))
    assert ratio_of_processes([[None, None], [1.0]], [[1.0, 1.0], [1.0]]) is None, "one process has both"


def test_intervals_over_processes_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        base = np.exp(rng.normal(0, 0.01, (6, 1)) + rng.normal(0, 0.01, (6, 10)))
        other = np.exp(rng.normal(0, 0.01, (6, 1)) + rng.normal(0, 0.01, (6, 10)))
        ratio = ratio_of_processes(base.tolist(), other.tolist())
        assert ratio is not None
        held += ratio.low <= 1 <= ratio.high
    assert held >= 980, "99 % of 1000, and what chance takes from that once in 1000"


def test_runs_that_were_not_side_by_side_are_compared_over_processes() -> None:
    rng = np.random.default_rng(2)
    held = seen = 0
    for _ in range(300):
        base, same = (np.exp(rng.normal(0, 0.01, (6, 1)) + rng.normal(0, 0.01, (6, 10))) for _ in range(2))
        equal, faster = (
            ratio_unpaired(base.tolist(), same.tolist()),
            ratio_unpaired(base.tolist(), (same / 1.1).tolist()),
        )
        assert equal is not None
        assert faster is not None
        held += equal.low <= 1 <= equal.high
        seen += faster.low > 1
    assert held >= 290
    assert seen >= 290
    one = ratio_unpaired([[1.0, 1.0]], [[1.0, 1.0]] * 6)
    assert one is not None
    assert one.processes == 1
    assert ratio_unpaired([[None]], [[1.0]]) is None


def test_a_ratio_of_rounds_is_the_second_over_the_first() -> None:
    ratio = ratio_of_pairs([(10.0, 20.0), (10.0, 22.0), (10.0, 18.0), (0.0, 5.0)], confidence=0.95)
    assert ratio is not None
    logs = [math.log(2.0), math.log(2.2), math.log(1.8)]
    assert ratio.value == pytest.approx(math.exp(sum(logs) / 3))
    assert ratio.half_width == pytest.approx(4.303 * float(np.std(logs, ddof=1)) / math.sqrt(3), rel=1e-4)
    assert (ratio.processes, ratio.confidence) == (3, 0.95)
    assert ratio_of_pairs([(1.0, 1.0), (1.0, 1.0)]) is None


def test_ratios_are_set_against_a_control() -> None:
    ratio, control = Ratio(2.0, 1.8, 2.0 * 2.0 / 1.8, 6), Ratio(1.1, 1.0, 1.21, 3)
    over = ratio.over(control)
    assert over.value == pytest.approx(2.0 / 1.1)
    assert over.half_width == pytest.approx(math.hypot(ratio.half_width, control.half_width))
    assert over.processes == 3
    assert ratio.wider(0.05).half_width == pytest.approx(ratio.half_width + 0.05)
    both = ratio.spanning(control)
    assert (both.value, both.low, both.high) == (2.0, 1.0, ratio.high)
