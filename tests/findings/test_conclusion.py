"""The conclusion of a tune says what the numbers say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.studies import Cell, Record, Run, study_of

from redline.findings.conclusion import conclude
from redline.findings.recommend import pareto_front
from redline.study.records import Conclusion

VARIANTS = ("torch-eager-fp32", "onnxruntime-fp32", "onnxruntime-int8-static")


def at(**seconds: float) -> Callable[[Cell], float]:
    """Seconds a call by a word of the variant; the first that fits."""
    return lambda cell: next(second for word, second in seconds.items() if word in cell.variant)


TIMES = at(int8=0.002, onnx=0.005, torch=0.010)


def changed(kind: str, variant: str, **fields: Any) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        mine = record["kind"] == kind and record.get("variant", record.get("cell", "")).startswith(variant)
        return record | fields if mine else record

    return change


def said(
    change: Callable[[Record], Record] = lambda record: record, *, objective: str = "latency", **fields: Any
) -> tuple[Conclusion, str]:
    small: dict[str, Any] = {"devices": ("cpu",), "loaders": ("dummy",), "batches": (1,), "variants": VARIANTS}
    run = Run(purpose="tune", change=change, **{**small, "time": TIMES, **fields})
    found = conclude(study_of(run), batch=1, objective=objective)
    return found, " ".join([found.headline, *found.sentences])


def test_a_faster_variant_is_recommended_with_gain_and_cost() -> None:
    found, text = said(changed("agreement", "onnxruntime-int8", accuracy=0.97, reference_accuracy=0.98))
    assert (found.recommended, found.gate_passed) == ("onnxruntime-int8-static", True)
    assert "times faster than the baseline (99 % interval 4." in found.headline
    assert "97.00% against 98.00%" in text
    assert {loser.variant for loser in found.losers} == {"torch-eager-fp32", "onnxruntime-fp32"}


def test_what_fails_the_gate_is_refused_with_the_reason() -> None:
    refuse = changed("agreement", "onnxruntime-int8", passed=False, reason="top-1 agreement 12.0 %, expected 99.0 %")
    found, text = said(refuse)
    assert found.recommended == "onnxruntime-fp32"
    assert "top-1 agreement 12.0 %" in " ".join(loser.why for loser in found.losers)
    assert "ONNX Runtime INT8 static" in text


def test_nothing_passes() -> None:
    def change(record: Record) -> Record:
        return record | {"passed": False, "reason": "it answers NaN"} if record["kind"] == "agreement" else record

    found, text = said(change)
    assert (found.recommended, found.gate_passed) == (None, False)
    assert found.headline == "Nothing can be recommended"
    assert "it answers NaN" in text


def test_the_baseline_can_win() -> None:
    found, text = said(time=at(int8=0.04, onnx=0.03, torch=0.01))
    assert found.recommended == "torch-eager-fp32"
    assert "stays" in text


def test_level_variants_are_decided_by_the_gates_margin_then_by_size() -> None:
    level = at(int8=0.005, onnx=0.005, torch=0.01)
    found, text = said(time=level)
    assert found.recommended == "onnxruntime-fp32"  # its answers are all the same
    assert "level" in text
    alike = changed("agreement", "onnxruntime-int8", top1_agreement=1.0, relative_error=1e-6)

    def smaller(record: Record) -> Record:
        record = alike(record)
        if record["kind"] == "variant" and "int8" in record["variant"]:
            record["size_bytes"] = 10_000_000
        return record

    assert said(smaller, time=level)[0].recommended == "onnxruntime-int8-static"


def test_for_its_size_a_slower_one_may_be_recommended_and_is_called_slower() -> None:
    def smaller(record: Record) -> Record:
        if record["kind"] == "variant" and "int8" in record["variant"]:
            record["size_bytes"] = 10_000_000
        return record

    found, _ = said(smaller, objective="size", time=at(int8=0.02, onnx=0.005, torch=0.01))
    assert found.recommended == "onnxruntime-int8-static"
    assert "times slower than the baseline" in found.headline


def test_a_disturbed_run_has_no_number_in_its_headline() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "samples":
            record["disturbance"]["run_delay"] = 0.3
        return record

    found, _ = said(change)
    assert "too disturbed to say" in found.headline
    assert "--threads" in found.headline
    assert "times faster" not in found.headline


def test_the_control_is_neither_recommended_nor_a_loser() -> None:
    found, _ = said(time=lambda cell: 0.001 if cell.variant.endswith("-control") else TIMES(cell))
    assert "control" not in str(found.recommended)
    assert not any("control" in loser.variant for loser in found.losers)


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_what_did_not_run_says_why(outcome: str) -> None:
    found, _ = said(
        outcome=lambda cell: (outcome, "build", "no") if "int8" in cell.variant else ("measured", None, None)
    )
    assert any(loser.variant == "onnxruntime-int8-static" and "no" in loser.why for loser in found.losers)


def test_the_front_is_what_nothing_beats_in_speed_and_answers() -> None:
    run = Run(purpose="tune", devices=("cpu",), loaders=("dummy",), batches=(1,), variants=VARIANTS, time=TIMES)
    front = pareto_front(study_of(run).rows)
    assert "onnxruntime-int8-static" in front  # the fastest
    assert "onnxruntime-fp32" in front  # with all answers
    assert "torch-eager-fp32" not in front
