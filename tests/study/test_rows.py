"""From the records of a grid to honest rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.studies import Record, Run, cells_of, lines_of, records_of, study_of

from redline.core.errors import ArtifactError
from redline.findings.claims import claim_of
from redline.findings.conclusions import found_in
from redline.study.derive import summarize
from redline.study.journal import read_records, read_study
from redline.study.records import CellEnded
from redline.study.rows import UNFINISHED, Row, Study

SMALL = {"batches": (1,), "loaders": ("dummy",), "devices": ("cpu",)}


def study(change: Callable[[Record], Record | None] = lambda record: record, **fields: object) -> Study:
    return study_of(Run(change=change, **{**SMALL, **fields}))  # type: ignore[arg-type]


def only(found: Study, variant: str, **fields: object) -> Row:
    (row,) = found.at(variant=variant, **fields)
    return row


def verdict(row: Row) -> str | None:
    claim = claim_of(row)
    return claim.verdict if claim else None


def test_a_row_for_each_cell_and_the_control_of_each_baseline() -> None:
    run = Run()
    found = study_of(run)
    assert {row.cell for row in found.rows} == {cell.id for cell in cells_of(run)}
    assert len(found.at(device="cpu", batch=4)) == 2 * (len(run.variants) + 1)
    assert {row.outcome for row in found.rows} == {"measured", "skipped", "failed"}
    assert {row.variant for row in found.rows if row.control} == {"torch-eager-fp32-control"}
    assert found_in(found).warnings == ()


def test_percentiles_are_over_the_raw_calls_of_all_repeats() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "samples":
            record["samples_s"] = [record["process"] + 1.0, 3.0]
        return record

    row = only(study(change, rounds=4, repeats=2), "torch-eager-fp32")
    calls = [1.0, 3.0] * 4 + [2.0, 3.0] * 4
    assert row.calls == 16
    assert sorted(row.samples_s) == sorted(calls)
    assert row.time_s == np.percentile(calls, 50)
    assert row.p90_s == np.percentile(calls, 90)
    assert row.mean_s == pytest.approx(np.mean(calls))
    assert row.throughput_per_s == pytest.approx(1 / np.mean(calls))


@pytest.mark.parametrize(("calls", "has"), [(9, False), (10, True)])
def test_a_99th_percentile_needs_100_calls(calls: int, has: bool) -> None:
    row = only(study(rounds=10, repeats=1, calls=calls), "onnxruntime-fp32")
    assert row.calls == 10 * calls
    assert (row.p99_s is not None) is has


def test_speed_ups_are_paired_and_hold_the_truth() -> None:
    found = study()
    assert verdict(only(found, "torch-eager-fp32")) == "baseline"
    fast = only(found, "onnxruntime-fp32")
    assert verdict(fast) == "faster"
    assert fast.ratio is not None
    assert fast.ratio.low < (0.0002 + 1 / 50) / (0.0002 + 1 / 90) < fast.ratio.high
    same = study(time=lambda cell: 0.01)
    assert {verdict(row) for row in same.rows} == {"baseline", "same", None}


def test_a_missing_round_leaves_the_others_paired() -> None:
    def change(record: Record) -> Record | None:
        if record["kind"] == "samples":
            record["samples_s"] = [(record["round"] + 1.0) / (2.0 if "openvino" in record["cell"] else 1.0)] * 3
            if "openvino" in record["cell"] and record["round"] == 1:
                return None
        return record

    row = only(study(change), "openvino-fp32")
    assert row.ratio is not None
    assert row.ratio.value == pytest.approx(2.0)
    assert row.processes[0].rounds_s[1] == ()
    assert row.calls == 3 * 5 * 3


def test_a_window_that_was_measured_twice_counts_once() -> None:
    records = records_of(Run(**SMALL))  # type: ignore[arg-type]
    again = [record for record in records if record.kind == "samples"]
    assert summarize([*records, *again]).rows == summarize(records).rows


def test_on_cuda_the_time_is_the_devices_own() -> None:
    row = only(study(devices=("cuda",)), "torch-eager-fp16")
    assert (row.clock, row.time_s) == ("device", row.device_s)
    assert row.latency_s == pytest.approx(row.device_s + 5e-5 if row.device_s else None)
    assert verdict(row) == "faster"


def test_times_of_two_clocks_are_not_compared() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "samples" and "fp16" in record["cell"]:
            del record["device_s"]
        return record

    found = study(change, devices=("cuda",))
    row = only(found, "torch-eager-fp16")
    assert (row.clock, row.ratio) == ("host", None)
    assert verdict(row) not in ("faster", "slower", "same")
    assert row.time_s == row.latency_s
    assert any("no CUDA events were recorded in 1 cell" in text for text in found_in(found).warnings)


def test_only_the_real_loader_has_a_pipeline() -> None:
    found = study(loaders=("dummy", "real"))
    assert only(found, "torch-eager-fp32", loader="dummy").pipeline_s is None
    real = only(found, "torch-eager-fp32", loader="real")
    assert real.latency_s is not None
    assert real.pipeline_s == pytest.approx(1.03 * real.latency_s)
    assert real.serial_s == pytest.approx(real.latency_s + 0.002)


def test_memory_is_the_largest_of_the_repeats_and_never_below_zero() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "process":
            record["memory"]["private_peak_bytes"] = 100 + record["process"]
            record["memory"]["device_peak_bytes"] = -5
        return record

    row = only(study(change), "torch-eager-fp32")
    assert (row.host_bytes, row.device_bytes) == (102, None)


@pytest.mark.parametrize(("settled", "stable"), [(1, False), (2, True)])
def test_a_cell_is_stable_where_most_of_its_processes_settled(settled: int, stable: bool) -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "process":
            record["stable"] = record["process"] < settled
        return record

    assert only(study(change), "torch-eager-fp32").stable is stable


def test_the_share_of_what_the_machine_could_do() -> None:
    found = study(time=lambda cell: 0.018)
    row = only(found, "torch-eager-fp32")
    assert row.time_s is not None
    assert row.share_of_limit == pytest.approx(2 * 1.8e9 / 400e9 / row.time_s)
    assert row.limit_by == "compute"
    without = study(lambda record: None if record["kind"] == "ceiling" else record)
    assert only(without, "torch-eager-fp32").share_of_limit is None
    assert found.ceilings["cpu", "fp32"] == 400.0
    assert found.bandwidth == {"cpu": 20.0}
    assert found.macs["net", (224, 224)] == 1_800_000_000


def test_precision_is_what_ran() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "variant" and record["variant"] == "onnxruntime-int8-static":
            record |= {"precision": "fp32", "layers": [["fp32", 20], ["int8", 1]]}
        return record

    row = only(study(change), "onnxruntime-int8-static")
    assert (row.requested, row.precision, row.layers_text) == ("int8", "fp32", "fp32 (20 of 21 layers)")
    assert row.fell_back
    assert not only(study(), "onnxruntime-int8-static").fell_back


def test_a_variant_that_never_opened_still_has_a_row() -> None:
    def change(record: Record) -> Record | None:
        gone = record["kind"] in ("variant", "agreement") and record["variant"] == "openvino-fp32"
        return None if gone else record

    found = study(
        change,
        outcome=lambda cell: (
            ("failed", "build", "no such operator") if "open" in cell.variant else ("measured", None, None)
        ),
        variants=("torch-eager-fp32", "openvino-fp32"),
    )
    row = only(found, "openvino-fp32")
    assert (row.outcome, row.stage, row.reason) == ("failed", "build", "no such operator")
    assert (row.title, row.time_s, verdict(row), row.fell_back) == ("openvino-fp32", None, None, False)


def test_a_killed_run_shows_what_is_finished() -> None:
    records = records_of(Run(batches=(1, 4), loaders=("dummy",)))
    first = next(index for index, record in enumerate(records) if record.kind == "cell")
    killed = summarize(records[: first + 15])
    begun = [row for row in killed.rows if row.reason == UNFINISHED]
    assert begun
    assert all((row.outcome, row.time_s) == ("skipped", None) for row in begun)
    assert any("of 20 cells have no result" in warning for warning in found_in(killed).warnings)


def test_a_cell_that_was_tried_again_has_its_last_outcome() -> None:
    records = records_of(Run(**SMALL))  # type: ignore[arg-type]
    line = next(r for r in records if isinstance(r, CellEnded) and r.variant == "openvino-fp32")
    failed = replace(line, outcome="failed", stage="measure", reason="it died")
    assert only(summarize([*records, failed]), "openvino-fp32").outcome == "failed"
    assert only(summarize([*records, failed, line]), "openvino-fp32").outcome == "measured"


@pytest.mark.parametrize("baseline", [{}, {"cpu": "no-such-variant"}])
def test_without_a_baseline_there_are_no_speed_ups(baseline: dict[str, str]) -> None:
    found = study(baseline=baseline)
    assert {row.ratio for row in found.rows} == {None}
    assert not {verdict(row) for row in found.rows} & {"faster", "slower", "same"}


def test_clocks_and_throttling() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "samples" and record["round"] == 0:
            record["gpu"] |= {"sm_mhz": 1200, "throttle": ["sw_power_cap", "gpu_idle"]}
        return record

    row = only(study(change, devices=("cuda",)), "torch-eager-fp32")
    assert (row.sm_mhz, row.lowest_sm_mhz, row.throttled) == (1980, 1200, ("sw_power_cap",))


def test_the_versions_of_what_ran_stand_in_the_row() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "variant" and record["variant"] == "openvino-fp32":
            record["platform"] = {"openvino": "2026.4", "tensorrt-rtx": "1.3", "cpu": "Some CPU", "machine": "x86_64"}
        return record

    assert only(study(change), "openvino-fp32").versions == {"openvino": "2026.4", "tensorrt-rtx": "1.3"}


def written(path: Path, lines: Sequence[Record]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("purpose", ["tune", "bench"])
def test_a_file_says_the_same_as_its_records(tmp_path: Path, purpose: str) -> None:
    run = Run(purpose=purpose, **SMALL)  # type: ignore[arg-type]
    path = written(tmp_path / "results.jsonl", lines_of(run))
    assert read_study(path) == study_of(run)
    assert read_study(tmp_path) == study_of(run)  # as the folder of a tune


def test_another_format_is_refused_with_the_version_that_reads_it(tmp_path: Path) -> None:
    lines = lines_of(Run(**SMALL))  # type: ignore[arg-type]
    for number, told in ((1, r"format 1, .* read it with Redline 0\.1, or measure again"), (3, "of a newer Redline")):
        path = written(tmp_path / "run.jsonl", [{**lines[0], "format": number}, *lines[1:]])
        with pytest.raises(ArtifactError, match=told):
            read_records(path)


def test_a_wrong_field_is_named_with_its_line(tmp_path: Path) -> None:
    lines = lines_of(Run(**SMALL))  # type: ignore[arg-type]
    number = next(n for n, line in enumerate(lines) if line["kind"] == "samples")
    lines[number]["round"] = "first"
    with pytest.raises(ArtifactError, match=rf"run\.jsonl:{number + 1}: .*`int`.*round"):
        read_records(written(tmp_path / "run.jsonl", lines))


def test_a_torn_last_line_is_left_out_and_an_unknown_kind_passed_over(tmp_path: Path) -> None:
    run = Run(**SMALL)  # type: ignore[arg-type]
    path = written(tmp_path / "run.jsonl", [*lines_of(run), {"kind": "of a later version"}])
    with path.open("a") as file:
        file.write('{"kind": "sam')
    assert read_study(path) == study_of(run)


@pytest.mark.parametrize(("layers", "expected"), [([["fp16", 21]], 20_000_000), ([["fp16", 20], ["fp32", 1]], None)])
def test_weights_of_a_tensorrt_engine_are_as_large_as_its_layers_make_them(
    layers: list[list[object]], expected: int | None
) -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "variant" and record["variant"] == "torch-eager-fp16":
            record.update(backend="tensorrt", layers=layers)
        return record

    rows = study_of(Run(change=change)).at(variant="torch-eager-fp16", device="cuda")
    assert {row.weights_bytes for row in rows} == {expected}
