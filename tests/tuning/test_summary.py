"""From records made by hand to the rows of a table."""

from __future__ import annotations

from typing import Any

import pytest

from redline.measurement.summary import Study, summarize

Record = dict[str, Any]


def run(**data: Any) -> Record:
    return {
        "kind": "run",
        "model": {"name": "m", "parameters": 1000},
        "settings": {"batches": [1, 8], "baseline": "torch"},
        "data": {"warning": None, "depends_on_input": None, **data},
        "environment": {},
    }


def variant(name: str, **fields: Any) -> Record:
    shown = {"title": name, "backend": "b", "requested": "fp32", "precision": "fp32", "layers": [["fp32", 2]]}
    return {"kind": "variant", "name": name, **shown, "size_bytes": 10, **fields}


def samples(name: str, seconds: float, *, batch: int = 1, rounds: int = 5, calls: int = 10) -> list[Record]:
    return [
        {"kind": "samples", "variant": name, "batch": batch, "round": index, "samples_s": [seconds] * calls}
        for index in range(rounds)
    ]


def agreement(name: str, **fields: Any) -> Record:
    values = {"outputs": [], "top1_agreement": None, "accuracy": None, "reference_accuracy": None}
    return {"kind": "agreement", "variant": name, **values, "passed": True, "reason": None, **fields}


def failed(name: str, batch: int | None, stage: str = "measure") -> Record:
    return {"kind": "failed", "variant": name, "batch": batch, "stage": stage, "reason": "it died"}


def at(study: Study, name: str, batch: int = 1) -> Any:
    return next(row for row in study.rows if row.variant == name and row.batch == batch)


def test_a_row_for_each_variant_and_batch() -> None:
    study = summarize([run(), variant("torch"), variant("a"), variant("a", size_bytes=20)])
    assert [(row.variant, row.batch) for row in study.rows] == [("torch", 1), ("a", 1), ("torch", 8), ("a", 8)]
    assert at(study, "a").size_bytes == 20
    assert study.batches == (1, 8)


def test_speed_against_the_baseline() -> None:
    records = [run(), variant("torch"), variant("a"), *samples("torch", 0.010), *samples("a", 0.005)]
    study = summarize(records)
    assert at(study, "torch").verdict == "baseline"
    row = at(study, "a")
    assert row.verdict == "faster"
    assert row.speedup == pytest.approx(2)
    assert row.p50_s == 0.005
    assert row.throughput_per_s == pytest.approx(200)
    assert at(study, "a", 8).p50_s is None
    assert at(study, "a", 8).verdict is None


def test_a_99th_percentile_needs_100_samples() -> None:
    few = summarize([run(), variant("torch"), *samples("torch", 0.01, rounds=3, calls=33)])
    assert (at(few, "torch").samples, at(few, "torch").p99_s) == (99, None)
    enough = summarize([run(), variant("torch"), *samples("torch", 0.01, rounds=4, calls=25)])
    assert (at(enough, "torch").samples, at(enough, "torch").p99_s) == (100, 0.01)


def test_a_round_that_was_measured_twice_counts_once() -> None:
    records = [run(), variant("torch"), *samples("torch", 0.01, rounds=3), *samples("torch", 0.02, rounds=3)]
    assert at(summarize(records), "torch").samples == 30


def test_memory_is_kept_for_each_batch() -> None:
    memory = [
        {"kind": "memory", "variant": "torch", "batch": batch, "private_peak_bytes": size}
        for batch, size in ((1, 100), (8, 800))
    ]
    study = summarize([run(), variant("torch"), *memory])
    assert (at(study, "torch").private_peak_bytes, at(study, "torch", 8).private_peak_bytes) == (100, 800)


def test_a_failure_is_a_row_and_a_retry_forgets_it() -> None:
    records = [run(), variant("torch"), variant("a"), failed("a", None, "build")]
    assert at(summarize(records), "a").status == "failed"
    assert at(summarize(records), "a").reason == "build: it died"
    retried = [*records, {"kind": "retry", "variant": "a"}, *samples("a", 0.01)]
    assert at(summarize(retried), "a").status == "ok"
    again = [*retried, failed("a", 8)]
    assert at(summarize(again), "a").status == "ok"
    assert at(summarize(again), "a", 8).status == "failed"


def test_a_worker_that_died_at_one_batch_has_failed_at_those_after_it() -> None:
    study = summarize([run(), variant("torch"), *samples("torch", 0.01, rounds=2), failed("torch", 1)])
    assert [row.status for row in study.rows] == ["failed", "failed"]


def test_a_skipped_variant_is_a_row_with_its_reason() -> None:
    study = summarize([run(), variant("a"), {"kind": "skipped", "variant": "a", "reason": "no bf16 here"}])
    assert (at(study, "a").status, at(study, "a").reason) == ("skipped", "no bf16 here")


def test_accuracy_drop_is_against_the_reference() -> None:
    right = agreement("a", accuracy=0.95, reference_accuracy=0.97, top1_agreement=0.98)
    row = at(summarize([run(), variant("a"), right]), "a")
    assert (row.accuracy, row.top1_agreement, row.passed) == (0.95, 0.98, True)
    assert row.accuracy_drop == pytest.approx(0.02)


def test_the_share_of_what_the_machine_could_do() -> None:
    limits: list[Record] = [
        {"kind": "macs", "macs_per_sample": 1_000_000_000},
        {"kind": "ceiling", "precision": "fp32", "gflops": 100.0},
        {"kind": "bandwidth", "gbytes_per_s": 10.0},
    ]
    int8 = variant("int8", precision="int8", layers=[["int8", 2]])
    study = summarize([run(), variant("torch"), int8, *limits, *samples("torch", 0.040), *samples("int8", 0.01)])
    row = at(study, "torch")
    assert row.share_of_limit == pytest.approx(0.5)  # 2e9 operations at 100e9 a second are 20 ms
    assert row.limit_by == "compute"
    assert at(study, "int8").share_of_limit is None  # no ceiling was measured at int8


def test_the_front_and_the_recommendation_are_marked_at_their_batch() -> None:
    conclusion = {"kind": "conclusion", "recommended": "a", "pareto": ["a"], "batch": 1}
    study = summarize([run(), variant("torch"), variant("a"), conclusion])
    assert at(study, "a").recommended
    assert at(study, "a").pareto
    assert not at(study, "a", 8).pareto
    assert not at(study, "torch").recommended


def test_warnings_of_data_dependence_and_noise_are_told() -> None:
    records = [
        run(warning="random numbers"),
        {"kind": "dependence", "depends_on_input": False, "warning": "it ignores its input"},
    ]
    study = summarize(records)
    assert study.run["data"]["depends_on_input"] is False
    assert study.warnings == ("random numbers; it ignores its input",)


def test_a_control_that_differs_is_a_warning() -> None:
    control = variant("torch-control", control=True)
    records = [run(), variant("torch"), control, *samples("torch", 0.010), *samples("torch-control", 0.020)]
    assert any("the control" in warning for warning in summarize(records).warnings)
    calm = [run(), variant("torch"), control, *samples("torch", 0.010), *samples("torch-control", 0.010)]
    assert summarize(calm).warnings == ()
