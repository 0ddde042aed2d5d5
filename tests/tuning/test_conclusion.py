"""The conclusion says what the numbers say."""

from __future__ import annotations

from typing import Any

from tests.tuning.rows import row, study

from redline.measurement.summary import Row
from redline.tuning.conclusion import conclude

BASE = row("torch", 10e-3, verdict="baseline", speedup=1.0, accuracy=0.98, accuracy_drop=0.0, size_bytes=4_000_000)


def faster(name: str, p50_s: float, speedup: float, **fields: Any) -> Row:
    known = {
        "verdict": "faster",
        "speedup": speedup,
        "speedup_low": 0.95 * speedup,
        "speedup_high": 1.05 * speedup,
        "accuracy": 0.97,
        "accuracy_drop": 0.01,
    }
    return row(name, p50_s, **(known | fields))


def said(*rows: Row, depends: bool | None = True) -> tuple[dict[str, Any], str]:
    found = conclude(study(rows, depends=depends), batch=1, objective="latency")
    return found, " ".join([found["headline"], *found["sentences"]])


def test_a_faster_variant_is_recommended_with_gain_and_cost() -> None:
    found, text = said(BASE, faster("int8", 2e-3, 5.0, layers_text="int8 20, fp32 1"))
    assert found["recommended"] == "int8"
    assert found["gate_passed"] is True
    assert "INT8: 5.00 times faster than the baseline (99 % interval 4.75 to 5.25) at batch 1" in text
    assert "2 ms a call" in text
    assert "TORCH: 10 ms" in text
    assert "accuracy is 97.00% against 98.00%" in text
    assert "file 1.0 MB (from 4.0 MB)" in text
    assert found["losers"] == [{"variant": "torch", "why": "5.00 times the recommended variant's latency"}]


def test_without_labels_accuracy_is_called_unknown() -> None:
    _, text = said(BASE, faster("int8", 2e-3, 5.0, accuracy=None, accuracy_drop=None, top1_agreement=0.995))
    assert "there are no labels, so accuracy is unknown" in text
    assert "99.5% of top-1 answers are the same" in text


def test_where_there_are_no_classes_the_error_is_told() -> None:
    fields = {"accuracy": None, "accuracy_drop": None, "top1_agreement": None, "max_abs": 0.125}
    _, text = said(BASE, faster("int8", 2e-3, 5.0, **fields))
    assert "the largest error is 0.125" in text


def test_no_difference_is_called_so() -> None:
    same = faster("ort", 9e-3, 1.01, verdict="no difference", accuracy=0.98, accuracy_drop=0.0)
    _, text = said(BASE, same)
    assert "no difference from the baseline (99 % interval 0.96 to 1.06)" in text
    assert "times faster" not in text


def test_a_slower_variant_that_is_recommended_for_its_size_is_called_slower() -> None:
    small = faster("small", 20e-3, 0.5, verdict="slower", size_bytes=10)
    found = conclude(study([BASE, small]), batch=1, objective="size")
    assert found["recommended"] == "small"
    assert "2.00 times slower than the baseline" in found["headline"]


def test_the_baseline_can_win() -> None:
    found, text = said(BASE, faster("ort", 20e-3, 0.5, verdict="slower"))
    assert found["recommended"] == "torch"
    assert "TORCH stays: nothing beats it at batch 1" in text
    assert "Next: ORT with 20 ms" in text


def test_a_faster_variant_that_was_refused_is_named() -> None:
    wrong = faster("int8", 1e-3, 10.0, passed=False, gate_reason="top-1 agreement 12.0 %, expected 99.0 %")
    found, text = said(BASE, faster("ort", 5e-3, 2.0), wrong)
    assert found["recommended"] == "ort"
    assert "Faster but refused" in text
    assert "INT8 (1 ms)" in text
    assert {"variant": "int8", "why": "fails the gate: top-1 agreement 12.0 %, expected 99.0 %"} in found["losers"]


def test_nothing_passes() -> None:
    found, text = said(row("int8", passed=False, gate_reason="it answers NaN"))
    assert found["recommended"] is None
    assert found["gate_passed"] is False
    assert found["headline"] == "Nothing can be recommended"
    assert "No variant passed the gate (INT8: it answers NaN)." in text


def test_nothing_ran() -> None:
    found, text = said(row("int8", None, status="failed", reason="build: refused", passed=None))
    assert "No variant ran." in text
    assert found["losers"] == [{"variant": "int8", "why": "failed: build: refused"}]


def test_a_model_that_ignores_its_input_proves_nothing() -> None:
    assert "agreement proves nothing here" in said(BASE, depends=False)[1]
    assert "agreement proves nothing here" not in said(BASE, depends=True)[1]


def test_the_control_is_not_recommended_and_no_loser() -> None:
    found, text = said(BASE, row("torch-control", 1e-3, control=True))
    assert found["recommended"] == "torch"
    assert found["losers"] == []
    assert "CONTROL" not in text


def test_a_precision_that_fell_back_is_told() -> None:
    fell = faster("fp16", 20e-3, 0.5, requested="fp16", precision="fp32", layers_text="fp32")
    found, _ = said(BASE, fell)
    assert found["losers"][0]["why"].endswith("; asked for fp16, this machine ran fp32")
