from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from tests.loadtesting.documents import AGREEMENT, closed, document, opened, split, window

from redline.loadtesting.ratios import ratio_of_rounds
from redline.loadtesting.results import Point
from redline.loadtesting.summary import summarize


def test_percentiles_are_those_of_all_rounds_together() -> None:
    one, two = [0.001 * n for n in range(1, 51)], [0.001 * n for n in range(51, 101)]
    point = Point(mode="closed", users=1, windows=(window(0, 0, one), window(0, 1, two)))
    found = summarize(document([point], ("only",))).targets[0].points[0]
    assert found.requests == 100
    assert found.p50_s == pytest.approx(np.percentile([*one, *two], 50))
    assert found.p99_s == pytest.approx(np.percentile([*one, *two], 99))
    assert found.max_s == pytest.approx(0.1)
    assert found.rps == pytest.approx(50)


def test_a_candidate_that_is_faster_is_called_so_with_an_interval_that_holds_the_truth() -> None:
    summary = summarize(document([closed(1, (50, 80)), closed(4, (100, 160))], agreement=AGREEMENT))
    ratio = summary.comparisons[0].rps
    assert ratio is not None
    assert ratio.low < 1.6 < ratio.high
    assert ratio.verdict == "more"
    assert summary.comparisons[0].equal_load is not None
    assert summary.comparisons[0].equal_load.label == "4 users"
    assert summary.conclusion[0].startswith("int8 answers 1.")
    assert any("98 % of 200 inputs" in sentence for sentence in summary.conclusion)
    assert any("89 % against 90 %" in sentence for sentence in summary.conclusion)


def test_without_rates_the_fewest_users_that_reach_the_most_are_told() -> None:
    summary = summarize(document([closed(1, (50,)), closed(2, (97,)), closed(4, (100,))], ("only",)))
    knee = summary.targets[0].knee
    assert knee is not None
    assert knee.users == 2
    assert "with 2 users it reaches" in summary.conclusion[0]


def test_the_same_twice_is_called_the_same() -> None:
    summary = summarize(document([closed(4, (100, 100))]))
    assert summary.conclusion[0].startswith("int8 and fp32 answer the same within 5 %: 1.00x the requests per second")


def test_two_that_answer_all_they_are_offered_are_not_judged_by_their_rates() -> None:
    summary = summarize(document([opened(rate, (200.0, 400.0)) for rate in (20.0, 40.0)]))
    assert summary.conclusion[0].startswith("fp32 and int8 answered all that they were offered")
    assert not any("the same within" in sentence for sentence in summary.conclusion)
    assert "At 40/s the p99 of int8 is 0.50x" in summary.conclusion[1]


def test_a_slower_candidate_is_called_slower() -> None:
    assert summarize(document([closed(4, (100, 60))])).conclusion[0].startswith("int8 is slower")


def test_two_rounds_are_too_few_for_a_comparison() -> None:
    summary = summarize(document([closed(4, (100, 200), rounds=2)]))
    assert summary.comparisons[0].rps is None
    assert "Too few rounds" in summary.conclusion[0]


def test_the_knee_is_the_highest_rate_that_each_kept_up_with() -> None:
    rates = (50.0, 90.0, 120.0, 190.0, 240.0)
    summary = summarize(document([opened(rate, (100.0, 200.0)) for rate in rates], slo_ms=50))
    knees = [target.knee.rate if target.knee else None for target in summary.targets]
    assert knees == [90.0, 190.0]
    assert all(target.saturated for target in summary.targets)
    assert [target.slo_rate for target in summary.targets] == [90.0, 190.0]
    assert summary.comparisons[0].knee == pytest.approx(190 / 90)


def test_a_rate_above_one_that_was_too_much_is_no_knee() -> None:
    lucky = replace(opened(120.0, (500.0,)), rate=120.0)
    summary = summarize(document([opened(90.0, (95.0,)), opened(110.0, (95.0,)), lucky], ("only",)))
    assert summary.targets[0].knee is not None
    assert summary.targets[0].knee.rate == 90.0


def test_dropped_requests_and_errors_are_no_keeping_up() -> None:
    point = opened(50.0, (100.0,))
    lossy = replace(point, windows=tuple(replace(one, dropped=1, offered=one.offered + 1) for one in point.windows))
    failed = replace(point, windows=tuple(replace(one, statuses={"200": 49, "503": 1}) for one in point.windows))
    for changed in (lossy, failed):
        summary = summarize(document([changed], ("only",)))
        assert summary.targets[0].knee is None
    assert any("503" in warning for warning in summary.warnings)


def test_goodput_counts_what_was_answered_in_time_of_what_was_offered() -> None:
    one = window(0, 0, [0.01] * 30 + [0.2] * 10, seconds=2.0, offered=50, dropped=10)
    summary = summarize(document([Point(mode="open", arrivals="constant", rate=25.0, windows=(one,))], slo_ms=100))
    found = summary.targets[0].points[0]
    assert found.goodput_per_s == pytest.approx(15)
    assert found.within_slo == pytest.approx(0.6)
    assert found.lost == pytest.approx(0.2)


def test_server_time_is_per_inference_and_cpu_per_request_with_the_lead_in() -> None:
    one = window(0, 0, [0.01] * 80, server=split(100, 2.0), server_cpu_s=3.0, lead=20, elapsed_s=1.5)
    found = summarize(document([Point(mode="closed", users=1, windows=(one,))], ("only",))).targets[0].points[0]
    assert found.server is not None
    assert found.server.compute_infer_s == pytest.approx(0.02)
    assert found.server.batch == pytest.approx(2)
    assert found.server_cpu_per_request_s == pytest.approx(0.03)
    assert found.server_cores == pytest.approx(2)


def test_a_busy_client_is_warned_of() -> None:
    point = closed(2, (100,), client_cpu_s=0.99, elapsed_s=1.0)
    assert any("client is the bottleneck" in text for text in summarize(document([point], ("only",))).warnings)


def test_nothing_answered_is_said() -> None:
    one = window(0, 0, [], statuses={"refused": 10}, sent=10, offered=10)
    summary = summarize(document([Point(mode="closed", users=1, windows=(one,))], ("only",)))
    assert summary.targets[0].best is None
    assert "Nothing was answered" in summary.conclusion[0]
    json.dumps(summary.to_json(), allow_nan=False)


def test_an_empty_test_has_a_summary() -> None:
    json.dumps(summarize(document([])).to_json(), allow_nan=False)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Rounds of a true ratio of 1.2 with 3 % of noise: of 300 tests at least 93 % hold it, and most are narrow."""
    rng = np.random.default_rng(3)
    held, widths = 0, []
    for _ in range(300):
        drift = rng.normal(1, 0.3, 5).clip(0.3)
        pairs = [(100 * d * rng.normal(1, 0.03), 120 * d * rng.normal(1, 0.03)) for d in drift]
        ratio = ratio_of_rounds(pairs)
        assert ratio is not None
        held += ratio.low <= 1.2 <= ratio.high
        widths.append(math.log(ratio.high / ratio.low) / 2)
    assert held >= 0.93 * 300
    assert np.median(widths) < 0.08
