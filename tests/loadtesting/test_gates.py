from __future__ import annotations

import pytest
from tests.loadtesting.documents import AGREEMENT, closed, document, opened

from redline.core.errors import InputError
from redline.loadtesting.gates import NAMES, Subject, failed_gates, parse_gate
from redline.loadtesting.summary import summarize

SUMMARY = summarize(
    document(
        [closed(1, (50, 80)), closed(4, (100, 160)), opened(90.0, (100.0, 200.0)), opened(300.0, (100.0, 200.0))],
        agreement=AGREEMENT,
        slo_ms=100,
    )
)


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("p99_ms > 50", False),
        ("p99_ms > 4", True),
        ("rps_ratio < 1.2", False),
        ("rps_ratio<1.9", True),
        ("errors > 0", False),
        ("errors == 0", True),
        ("top1_agreement < 0.99", True),
        ("top1_agreement < 97%", False),
        ("accuracy_drop > 5e-3", True),
        ("accuracy_drop > 2%", False),
        ("knee_rps < 100", True),
        ("knee_rps >= 100", False),
    ],
)
def test_a_gate_fails_where_its_expression_holds(text: str, fails: bool) -> None:
    assert bool(failed_gates(SUMMARY, [parse_gate(text)])) is fails


def test_what_was_not_measured_fails() -> None:
    alone = summarize(document([closed(1, (50,))], ("only",)))
    assert "not measured" in failed_gates(alone, [parse_gate("rps_ratio < 1")])[0]
    assert "not measured" in failed_gates(alone, [parse_gate("top1_agreement < 1")])[0]


@pytest.mark.parametrize(
    "text", ["", "p99_ms", "p99_ms > ", "p99_ms > x", "1 < 2", "p99_ms > 5; 1", "__import__('os') > 1", "p99_ms => 5"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="NAME OP NUMBER"):
        parse_gate(text)


def test_an_unknown_name_is_refused_with_the_list() -> None:
    with pytest.raises(InputError, match="p98_ms.*p50_ms, .*accuracy_drop"):
        parse_gate("p98_ms > 5")


def test_every_name_has_a_number_here() -> None:
    target = SUMMARY.targets[1]
    subject = Subject(SUMMARY, target, target.knee, SUMMARY.comparisons[0])
    assert {name for name, value in NAMES.items() if value(subject) is None} == set()
