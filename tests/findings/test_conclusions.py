"""Sentences and recommendations say what the numbers say, and no more."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.studies import KINDS, Cell, Kind, Record, Run, study_of, usual_time

from redline.findings.conclusions import Findings, found_in
from redline.findings.findings import Finding
from redline.findings.recommend import Recommendation

SMALL: dict[str, Any] = {"loaders": ("dummy",), "devices": ("cpu",), "batches": (1,)}
ALL = ("measured", None, None)


def concluded(change: Callable[[Record], Record] = lambda record: record, **fields: Any) -> Findings:
    return found_in(study_of(Run(change=change, **{**SMALL, **fields})))


def said(findings: Findings, topic: str) -> list[str]:
    return [finding.text for finding in findings.sentences if finding.topic == topic]


def goal(findings: Findings, words: str) -> Recommendation:
    (found,) = [one for one in findings.recommendations if one.goal == words]
    return found


def at_speed(**speeds: float) -> Callable[[Cell], float]:
    """Seconds a call by the first word of the variant."""
    return lambda cell: cell.batch * next(s for name, s in speeds.items() if cell.variant.startswith(name))


def answers(variant: str, **fields: Any) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        if record["kind"] == "agreement" and record["variant"] == variant:
            record |= fields
        return record

    return change


def test_every_sentence_is_one_and_names_cells_that_are_there() -> None:
    study = study_of(Run(sizes=((112, 112), (224, 224), (448, 448)), models=("a", "b")))
    cells = {row.cell for row in study.rows}
    found = found_in(study)
    topics = {finding.topic for finding in found.sentences}
    assert topics == {"fastest", "constraint", "memory", "fp16", "int8", "scaling", "loader", "baseline", "caution"}
    for finding in found.sentences:
        assert finding.text.endswith(".")
        assert finding.text[0].isupper() or finding.text[0].isdigit() or finding.text[:5] in ("a on ", "b on ")
        assert set(finding.cells) <= cells
        assert "None" not in finding.text
        assert "nan" not in finding.text
    assert {one.cell for one in found.recommendations} <= cells
    assert len({one.goal for one in found.recommendations}) == len(found.recommendations) == 2 * 3 * 2 * 3


def test_the_fastest_is_told_with_its_interval() -> None:
    (text, rate) = said(concluded(), "fastest")
    assert text.startswith("On cpu at batch 1: ONNX Runtime INT8 static is fastest, 4.")
    assert "times faster than the baseline (99 % interval 4.1" in text
    assert "next comes" in text
    assert rate.startswith("On cpu ONNX Runtime INT8 static at batch 1 makes the most images a second, 20")


def test_equals_are_called_level() -> None:
    found = concluded(
        time=at_speed(torch=0.02, onnx=0.01, openvino=0.01),
        variants=("torch-eager-fp32", "onnxruntime-fp32", "openvino-fp32"),
    )
    text = said(found, "fastest")[0]
    assert "ONNX Runtime FP32" in text.split(" are level")[0]
    assert "OpenVINO FP32" in text.split(" are level")[0]
    assert "none is shown to be slower than the fastest by more than 5 %" in text
    assert "is fastest" not in text
    assert "level with" in goal(found, "lowest latency at batch 1 on cpu").text


def test_neighbouring_batches_with_one_winner_share_a_sentence() -> None:
    def time(cell: Cell) -> float:
        return usual_time(cell) * (0.2 if cell.batch == 4 and "openvino" in cell.variant else 1.0)

    texts = said(
        concluded(
            batches=(1, 2, 4, 8),
            time=time,
            outcome=lambda cell: ALL,
            variants=("torch-eager-fp32", "onnxruntime-fp32", "openvino-fp32", "onnxruntime-int8-static"),
        ),
        "fastest",
    )
    assert texts[0].startswith("On cpu at batch 1 and 2: ONNX Runtime INT8 static is fastest")
    assert texts[1].startswith("On cpu at batch 4: OpenVINO FP32 is fastest")
    assert texts[2].startswith("On cpu at batch 8: ONNX Runtime INT8 static is fastest")


def test_where_fp32_must_run() -> None:
    (text,) = said(
        concluded(variants=("torch-eager-fp32", "onnxruntime-fp32", "onnxruntime-int8-static")), "constraint"
    )
    assert text.startswith("On cpu at batch 1 where FP32 must run: ONNX Runtime FP32 is fastest")
    assert said(concluded(variants=("torch-eager-fp32", "onnxruntime-fp32")), "constraint") == []


@pytest.mark.parametrize("wrong", [{"top1_agreement": 0.2}, {"finite": False}])
def test_what_answers_wrongly_wins_nothing(wrong: dict[str, Any]) -> None:
    found = concluded(answers("onnxruntime-int8-static", **wrong))
    assert not any("INT8" in text for text in said(found, "fastest"))
    assert {one.variant for one in found.recommendations} <= {"onnxruntime-fp32", "openvino-fp32"}
    assert "faster, but not answering as the baseline does: ONNX Runtime INT8 static" in found.recommendations[0].text
    assert "its speed counts for nothing" in said(found, "int8")[0]


def test_memory() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "process" and "openvino" in record["cell"]:
            record["memory"]["private_peak_bytes"] = 100_000_000
        return record

    found = concluded(change)
    (text,) = said(found, "memory")
    assert text.startswith("On cpu at batch 1 OpenVINO FP32 needs the least memory, 100 MB of its own; ")
    assert text.endswith(" need the most, 204 MB.")
    assert "INT8" in text
    assert goal(found, "least memory at batch 1 on cpu").variant == "openvino-fp32"
    assert "all 4 variants need the same memory within 2 %" in said(concluded(), "memory")[0]


def test_int8_pays_with_its_range_and_its_price() -> None:
    (text,) = said(concluded(batches=(1, 4)), "int8")
    assert text.startswith(
        "On cpu INT8 pays for ONNX Runtime INT8 static, against ONNX Runtime FP32: faster in all 2 cells"
    )
    assert "in 99.0 % or more" in text


@pytest.mark.parametrize(
    ("factor", "words"),
    [(0.5, "pays for"), (1.0, "does not pay for"), (1.3, "does not pay for")],
)
def test_fp16_pays_or_not(factor: float, words: str) -> None:
    def time(cell: Cell) -> float:
        return 0.01 * cell.batch * (factor if "fp16" in cell.variant else 1.0)

    (text,) = said(concluded(devices=("cuda",), batches=(1, 4), time=time), "fp16")
    assert f"FP16 {words} PyTorch eager FP16, against PyTorch eager" in text
    if factor == 1.0:
        assert "the same within 5 % in all 2 cells" in text


def test_fp16_that_pays_at_one_batch_pays_in_part() -> None:
    def time(cell: Cell) -> float:
        return 0.01 * cell.batch * (0.5 if "fp16" in cell.variant and cell.batch > 1 else 1.0)

    (text,) = said(concluded(devices=("cuda",), batches=(1, 4), time=time), "fp16")
    assert "pays in part" in text
    assert "faster in 1 of 2 cells (2.0" in text
    assert "the same within 5 % in 1 of 2 cells" in text


def test_scaling_in_words() -> None:
    found = concluded(batches=(1, 2, 4, 8), time=lambda cell: 0.01 * cell.batch**0.7, noise=0.005, drift=0.001)
    (text,) = said(found, "scaling")
    assert "the time of PyTorch eager grows with the batch to the power 0.70 (95 % interval 0." in text
    assert "4 points): less than in proportion" in text
    assert said(concluded(batches=(1, 2)), "scaling") == []


def test_real_images_against_dummy_ones() -> None:
    def time(cell: Cell) -> float:
        return usual_time(cell) * (1.2 if cell.loader == "real" and "openvino" in cell.variant else 1.0)

    alone, pipeline = said(concluded(loaders=("dummy", "real"), time=time), "loader")
    assert "for the model alone: the same within 5 % in " in alone
    assert "slower in 1 of 4 cells (0.8" in alone
    assert "working ahead takes 1.03 times the model's own time" in pipeline
    assert said(concluded(), "loader") == []


def test_the_baseline_is_counted_or_missed() -> None:
    assert said(concluded(), "baseline") == ["On cpu against PyTorch eager, the baseline, 3 cells are faster."]
    unnamed = concluded(baseline={})
    assert said(unnamed, "baseline") == ["On cpu no baseline was named, so no speed-up is told."]
    missing = concluded(outcome=lambda cell: ("failed", "build", "x") if "torch" in cell.variant else ALL)
    assert "the baseline torch-eager-fp32 was not measured" in " ".join(said(missing, "baseline"))
    assert "is fastest" in said(missing, "fastest")[0]
    assert missing.recommendations


def test_the_smallest_difference_that_means_something() -> None:
    def told(noise: float) -> float:
        text = next(t for t in said(concluded(noise=noise), "caution") if "mean nothing here" in t)
        return float(text.split("differences under ")[1].split(" %")[0])

    assert 1.0 <= told(0.01) < told(0.3)


def test_cautions() -> None:
    many = concluded(batches=(1, 2, 4, 8), loaders=("dummy", "real"), devices=("cpu", "cuda"), sizes=((8, 8), (9, 9)))
    assert any("may differ by accident" in text for text in said(many, "caution"))
    unknown = concluded(answers("openvino-fp32", top1_agreement=None, relative_error=None))
    assert any("The answers of OpenVINO FP32 were not compared" in text for text in said(unknown, "caution"))


def test_tf32_is_not_passed_for_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Kind(title="PyTorch eager TF32", backend="torch", requested="tf32", speed={"cuda": 4000})
    monkeypatch.setitem(KINDS, "torch-eager-tf32", kind)
    found = concluded(devices=("cuda",), variants=("torch-eager-fp32", "torch-eager-tf32", "onnxruntime-fp32"))
    assert any(text.startswith("PyTorch eager TF32 ran TF32") for text in said(found, "caution"))
    assert "where FP32 must run: ONNX Runtime FP32 is fastest" in said(found, "constraint")[0]


def test_throughput_takes_the_smaller_of_two_level_batches() -> None:
    found = concluded(
        batches=(4, 8),
        time=at_speed(torch=0.02, onnx=0.005),
        drift=0.0,
        variants=("torch-eager-fp32", "onnxruntime-fp32"),
    )
    one = goal(found, "most images a second on cpu")
    assert one.cell == "net/onnxruntime-fp32/cpu/dummy/4x224x224"
    assert "level with ONNX Runtime FP32 at batch 8" in one.text
    assert "its smaller batch" in one.text


def test_one_process_claims_nothing() -> None:
    found = concluded(repeats=1)
    assert "to be told apart" in said(found, "fastest")[0] or "is fastest" not in said(found, "fastest")[0]
    assert "not decided" in found.recommendations[0].text


def test_a_disturbed_run_is_not_called_level() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "samples":
            record["disturbance"]["run_delay"] = 0.4
            factor = 20.0 if (record["round"] + ("onnx" in record["cell"])) % 2 else 1.0
            record["samples_s"] = [second * factor for second in record["samples_s"]]
        return record

    found = concluded(
        change,
        time=at_speed(torch=0.01, onnx=0.01),
        variants=("torch-eager-fp32", "onnxruntime-fp32"),
    )
    text = said(found, "fastest")[0]
    assert "too disturbed to be told apart" in text
    assert "level" not in text
    assert any("too disturbed to say" in text for text in said(found, "baseline"))
    assert any("too disturbed at batch 1 on cpu" in text for text in found.warnings)
    assert len(found.warnings) == len(set(found.warnings))


def test_a_disturbed_run_says_no_ratio_anywhere() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "samples":
            record["disturbance"]["run_delay"] = 0.4
        return record

    found = concluded(change, loaders=("dummy", "real"))
    told = " ".join([*(one.text for one in found.sentences), *(one.text for one in found.recommendations)])
    assert "ONNX Runtime INT8 static" in told
    assert not re.search(r"\d times (the (time|speed)|faster|slower)", told)
    assert len(found.warnings) == len(set(found.warnings))


def test_only_failures_conclude_nothing() -> None:
    found = concluded(outcome=lambda cell: ("failed", "build", "no"))
    assert found == Findings(
        sentences=(Finding(topic="caution", text="Nothing was measured, so nothing can be concluded."),)
    )


def test_one_cell_alone() -> None:
    found = concluded(variants=("torch-eager-fp32",))
    assert said(found, "fastest")[0].startswith("On cpu at batch 1: PyTorch eager is the only one that counts")
    assert {one.variant for one in found.recommendations} == {"torch-eager-fp32"}
