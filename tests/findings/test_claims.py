"""What may be said of a ratio, and what may not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from redline.findings.claims import (
    SAME_BAND,
    WIDEST,
    Claim,
    claim_of,
    digits_for,
    interval_text,
    judge,
    ratio_text,
    speed_text,
)
from redline.measurement.disturbance import Evidence
from redline.measurement.stats import Ratio
from redline.study.rows import Row

SOUND = Evidence(
    processes=6,
    confirmed=True,
    rounds=60,
    kept=55,
    calls_per_window=9.0,
    window_s=0.05,
    run_delay=0.01,
    steal=0.0,
    control=Ratio(1.0, 0.98, 1.02, 6),
)


def evidence(**changes: Any) -> Evidence:
    return replace(SOUND, **changes)


@pytest.mark.parametrize(
    ("ratio", "verdict", "text"),
    [
        (Ratio(5.23, 4.94, 5.41, 6), "faster", "5.2 times faster than the baseline (99 % interval 4.9 to 5.4)"),
        (Ratio(0.5, 0.48, 0.521, 6), "slower", "2.00 times slower than the baseline (99 % interval 1.92 to 2.08)"),
        (Ratio(1.01, 0.98, 1.04, 6), "same", "the same as the baseline within 5 % (99 % interval 0.98 to 1.04)"),
        (Ratio(1.02, 1.01, 1.03, 6), "same", "the same as the baseline within 5 % (99 % interval 1.010 to 1.030)"),
        (
            Ratio(1.03, 0.97, 1.09, 6),
            "undecided",
            "not decided against the baseline (99 % interval 0.97 to 1.09): measure more (--rounds 20 --repeats 6)",
        ),
    ],
)
def test_sound_ratios_are_told_by_their_interval(ratio: Ratio, verdict: str, text: str) -> None:
    claim = judge(ratio, SOUND)
    assert claim.verdict == verdict
    assert speed_text(claim) == text
    assert claim.says_speed == (verdict != "undecided")
    assert claim.reasons == ()


@pytest.mark.parametrize(
    ("changes", "reason", "advice"),
    [
        ({"run_delay": 0.47}, "its threads waited for a core 47 % of the time", "--threads"),
        ({"steal": 0.08}, "other virtual machines took 8 % of the processor (steal time)", "--threads"),
        ({"control": Ratio(1.07, 1.04, 1.1, 6)}, "its own copy came out at 1.04 to 1.10, which is not 1", "--threads"),
        ({"control": Ratio(1.0, 0.7, 1.43, 6)}, "its own copy came out at 0.7 to 1.4, more than ±15 %", "--threads"),
        ({"calls_per_window": 2.0}, "a turn held 2 calls of the slower one, at least 4 are needed", "--window"),
        ({"control": None}, "the baseline's own copy was not measured beside it", "measure again"),
        ({"stable": False}, "most warm-ups did not settle", "wait"),
    ],
)
def test_nothing_is_said_of_what_was_disturbed(changes: dict[str, Any], reason: str, advice: str) -> None:
    claim = judge(Ratio(5.2, 5.0, 5.4, 6), evidence(**changes))
    assert claim.verdict == "disturbed"
    assert not claim.says_speed
    assert len(claim.reasons) == 1
    assert reason in claim.reasons[0]
    assert claim.advice is not None
    assert advice in claim.advice
    text = speed_text(claim)
    assert text.startswith("too disturbed to say: ")
    assert reason in text
    assert "5.2" not in text


def test_a_control_that_misses_one_by_a_hair_is_sound() -> None:
    assert judge(Ratio(5.2, 5.0, 5.4, 6), evidence(control=Ratio(1.02, 1.005, 1.035, 6))).verdict == "faster"


def test_few_calls_that_fill_a_second_are_enough() -> None:
    assert judge(Ratio(5.2, 5.0, 5.4, 6), evidence(calls_per_window=1.0, window_s=3.0)).verdict == "faster"


def test_a_demo_on_a_busy_machine_prints_no_headline() -> None:
    # Printed once as "7120.60x": the control of the same run spanned 0.26 to 5.5.
    claim = judge(Ratio(7120.6, 6400.0, 7900.0, 3), evidence(control=Ratio(1.2, 0.26, 5.5, 3), run_delay=0.7))
    assert claim.verdict == "disturbed"
    text = speed_text(claim)
    assert "7120" not in text
    assert "waited for a core 70 %" in text
    assert "0.3 to 5.5" in text
    # And by the control alone, should the kernel say nothing.
    silent = judge(Ratio(7120.6, 6400.0, 7900.0, 3), evidence(control=Ratio(1.2, 0.26, 5.5, 3), run_delay=None))
    assert silent.verdict == "disturbed"


@pytest.mark.parametrize("known", [SOUND, None])
def test_a_huge_ratio_with_a_wide_interval_is_no_headline(known: Evidence | None) -> None:
    claim = judge(Ratio(63.65, 24.0, 166.0, 6), known)
    assert claim.verdict == "undecided"
    assert not claim.says_speed
    text = speed_text(claim)
    said = "faster than the baseline, by how much is not decided (99 % interval 20 to 170)"
    assert text.startswith(f"{said}: the interval is wider than ±")
    behind = judge(Ratio(1 / 63.65, 1 / 166.0, 1 / 24.0, 6), known)
    assert speed_text(behind).startswith(said.replace("faster", "slower"))
    few = judge(Ratio(63.65, 24.0, 166.0, 2))
    assert speed_text(few).startswith("not decided against the baseline (99 % interval 20 to 170)")


def test_what_was_hardly_measured_is_not_called_the_same() -> None:
    # 1.72 ms against 4.66 ms was once "no difference", as 0.87 to 8.48 holds 1.
    claim = judge(Ratio(2.71, 0.87, 8.48, 6), SOUND)
    assert claim.verdict == "undecided"
    assert speed_text(claim).startswith("not decided against the baseline (99 % interval 0.9 to 8.5)")


def test_an_interval_is_too_wide_from_fifteen_percent_on() -> None:
    edge = 1 + WIDEST
    assert judge(Ratio(2.0, 2 / edge, 2 * edge * 0.9999, 6), SOUND).verdict == "faster"
    assert judge(Ratio(2.0, 2 / edge, 2 * edge * 1.0001, 6), SOUND).verdict == "undecided"


def test_the_band_of_the_same_has_the_same_edges_from_both_sides() -> None:
    band = 1 + SAME_BAND
    assert judge(Ratio(1.0, 1 / band, band, 6), SOUND).verdict == "same"
    assert judge(Ratio(1.0, 0.999 / band, band, 6), SOUND).verdict == "undecided"
    assert judge(Ratio(1.0, 1 / band, 1.001 * band, 6), SOUND).verdict == "undecided"


@pytest.mark.parametrize("processes", [1, 2])
def test_few_processes_decide_nothing(processes: int) -> None:
    claim = judge(Ratio(5.2, 5.1, 5.3, processes), evidence(processes=processes))
    assert claim.verdict == "undecided"
    assert claim.reasons[0].startswith(f"measured in {processes} process")
    assert claim.advice is not None
    assert "--repeats 3" in claim.advice
    assert judge(Ratio(5.2, 5.1, 5.3, processes)).verdict == "undecided"
    assert judge(None, evidence(processes=processes)).reasons == claim.reasons


def test_a_ratio_that_could_not_be_had_says_why() -> None:
    claim = judge(None, SOUND)
    assert (claim.verdict, claim.value) == ("undecided", None)
    assert speed_text(claim) == (
        "not decided against the baseline: too few rounds had both; measure more (--rounds 20 --repeats 6)"
    )
    assert speed_text(None, of="ONNX Runtime") == "not compared with ONNX Runtime"


def test_an_interval_says_how_sure_it_is() -> None:
    claim = judge(Ratio(2.0, 1.9, 2.1, 5, confidence=0.95))
    assert "(95 % interval 1.9" in speed_text(claim)
    assert "than the other" in speed_text(claim, of="the other")


def row(**fields: Any) -> Row:
    texts = dict.fromkeys(("backend", "runtime", "requested", "layers_text"), "")
    named = {"cell": "a", "model": "m", "variant": "v", "title": "V", "loader": "dummy", "device": "cpu"}
    return Row(**texts, **named, precision="fp32", batch=1, height=1, width=1, **fields)


def test_a_row_is_told_by_its_ratio_and_what_that_rests_on() -> None:
    assert claim_of(row(is_baseline=True, time_s=1.0)) == Claim(verdict="baseline", value=1.0)
    assert claim_of(row()) is None, "not measured"
    assert claim_of(row(time_s=1.0)) is None, "not compared"
    found = claim_of(row(time_s=1.0, ratio=Ratio(2.0, 1.9, 2.1, 6), evidence=SOUND))
    assert found is not None
    assert (found.verdict, found.confirmed, found.processes) == ("faster", True, 6)
    control = claim_of(row(time_s=1.0, control=True, ratio=Ratio(1.0, 0.99, 1.01, 6), evidence=evidence(control=None)))
    assert control is not None
    assert control.verdict == "same"
    lost = claim_of(row(time_s=1.0, evidence=SOUND))
    assert lost is not None
    assert lost.verdict == "undecided"


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (5.2345, 4.9, 5.4, "5.2"),
        (1.0234, 1.019, 1.028, "1.023"),
        (63.65, 24.0, 166.0, "60"),
        (7120.6, 6400.0, 7900.0, "7100"),
        (1.7213, 1.71, 1.73, "1.721"),
        (0.000172, 0.000169, 0.000175, "0.000172"),
        (12.3456, 12.3456, 12.3456, "12.35"),
        (3e40, 2.0, 1e80, "3e+40"),
    ],
)
def test_a_value_has_no_more_digits_than_its_interval_bears(value: float, low: float, high: float, text: str) -> None:
    assert ratio_text(value, low, high) == text


def test_the_ends_of_an_interval_have_the_digits_of_its_value() -> None:
    assert interval_text(4.9312, 5.4411) == "4.9 to 5.4"
    assert interval_text(0.26, 5.5) == "0.3 to 5.5", "the lower end keeps a digit"
    assert interval_text(1.004, 1.3) == "1.00 to 1.30"
    assert digits_for(0.0, 0.0, 0.0) == 3
