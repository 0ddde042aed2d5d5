"""What is on the front, and which of it is taken."""

from __future__ import annotations

import pytest
from tests.tuning.rows import row

from redline.tuning.pareto import harm, pareto_front, recommend


def test_the_front_is_what_nothing_beats_everywhere_fastest_first() -> None:
    fast = row("fast", 1e-3, size_bytes=9)
    small = row("small", 2e-3, size_bytes=1)
    beaten = row("beaten", 3e-3, size_bytes=9)
    assert pareto_front([beaten, small, fast]) == ("fast", "small")


@pytest.mark.parametrize(
    "out", [{"passed": False}, {"passed": None}, {"status": "failed"}, {"control": True}, {"p50_s": None}]
)
def test_only_variants_that_ran_and_passed_take_part(out: dict[str, object]) -> None:
    rows = [row("good", 2e-3), row("out", **({"p50_s": 1e-3} | out))]
    assert pareto_front(rows) == ("good",)
    assert recommend(rows, "latency") is rows[0]


def test_nothing_passes_nothing_is_recommended() -> None:
    assert recommend([row("a", passed=False)], "latency") is None
    assert recommend([], "size") is None


def test_each_objective_takes_its_own() -> None:
    rows = [
        row("fast", 1e-3, size_bytes=9, private_peak_bytes=9),
        row("small", 2e-3, size_bytes=1, private_peak_bytes=5),
        row("lean", 3e-3, size_bytes=5, private_peak_bytes=1),
    ]
    chosen = {objective: recommend(rows, objective) for objective in ("latency", "throughput", "size", "memory")}  # type: ignore[arg-type]
    assert {objective: found and found.variant for objective, found in chosen.items()} == {
        "latency": "fast",
        "throughput": "fast",
        "size": "small",
        "memory": "lean",
    }


def test_of_equals_in_speed_the_one_that_changes_fewest_answers_is_taken() -> None:
    faster = row("int8", 1.00e-3, top1_agreement=0.99)
    equal = row("fp32", 1.001e-3, top1_agreement=1.0)
    assert recommend([faster, equal], "latency") is equal
    slower = row("slow", 1.2e-3, top1_agreement=1.0)
    assert recommend([faster, slower], "latency") is faster


def test_of_equals_in_everything_the_one_with_less_memory_is_taken() -> None:
    assert recommend([row("a", private_peak_bytes=9), row("b", private_peak_bytes=1)], "latency").variant == "b"  # type: ignore[union-attr]


def test_unknown_memory_is_never_the_least() -> None:
    assert recommend([row("a", private_peak_bytes=None), row("b")], "memory").variant == "b"  # type: ignore[union-attr]


def test_harm_is_accuracy_then_answers_then_error() -> None:
    assert harm(row("a", accuracy_drop=0.02, top1_agreement=0.5)) == 0.02
    assert harm(row("a", accuracy_drop=-0.02)) == 0.0
    assert harm(row("a", top1_agreement=0.75)) == 0.25
    assert harm(row("a", top1_agreement=None, cosine=0.5)) == 0.5
    assert harm(row("a", top1_agreement=None, cosine=None)) == float("inf")
