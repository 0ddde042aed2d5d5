"""From the records of a grid to honest rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.grid.records import Record, Run, cells_of, grid_records

from redline.core.errors import ArtifactError
from redline.grid.derive import UNFINISHED
from redline.grid.rows import GridRow, GridStudy, is_grid, read_grid, summarize_grid

SMALL = {"batches": (1,), "loaders": ("dummy",), "devices": ("cpu",)}


def study(change: Callable[[Record], Record | None] = lambda record: record, **fields: object) -> GridStudy:
    return summarize_grid(grid_records(Run(change=change, **{**SMALL, **fields})))  # type: ignore[arg-type]


def only(found: GridStudy, variant: str, **fields: object) -> GridRow:
    (row,) = found.at(variant=variant, **fields)
    return row


def test_a_row_for_each_cell_in_the_order_of_the_grid() -> None:
    run = Run()
    found = summarize_grid(grid_records(run))
    assert [row.cell for row in found.rows] == [cell.id for cell in cells_of(run)]
    assert (found.models, found.devices, found.loaders) == (("net",), ("cpu", "cuda"), ("dummy", "real"))
    assert (found.batches, found.sizes, found.variants) == ((1, 4, 16), ("224x224",), tuple(run.variants))
    assert len(found.at(device="cpu", batch=4)) == 2 * len(run.variants)
    assert {row.outcome for row in found.rows} == {"measured", "skipped", "failed"}
    assert found.warnings == ()


def test_percentiles_are_over_the_raw_calls_of_all_repeats() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "samples":
            record["samples_s"] = [record["repeat"] + 1.0, 3.0]
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
    assert only(found, "torch-eager-fp32").verdict == "baseline"
    fast = only(found, "onnxruntime-fp32")
    assert fast.verdict == "faster"
    truth = (0.0002 + 1 / 50) / (0.0002 + 1 / 90)
    assert fast.speedup_low is not None
    assert fast.speedup_high is not None
    assert fast.speedup_low < truth < fast.speedup_high
    same = study(time=lambda cell: 0.01)
    assert {row.verdict for row in same.rows if row.variant != "torch-eager-fp32"} <= {"no difference", None}


def test_a_missing_round_leaves_the_others_paired() -> None:
    def change(record: Record) -> Record | None:
        if record["kind"] == "samples":
            record["samples_s"] = [(record["round"] + 1.0) / (2.0 if "openvino" in record["cell"] else 1.0)] * 3
            if "openvino" in record["cell"] and record["round"] == 1:
                return None
        return record

    row = only(study(change), "openvino-fp32")
    assert row.speedup == pytest.approx(2.0)
    assert row.windows_s[0][1] == ()
    assert row.calls == 2 * 5 * 3


def test_a_window_that_was_measured_twice_counts_once() -> None:
    records = grid_records(Run(**SMALL))  # type: ignore[arg-type]
    again = [record for record in records if record["kind"] == "samples"]
    assert summarize_grid([*records, *again]).rows == summarize_grid(records).rows


def test_on_cuda_the_time_is_the_devices_own() -> None:
    row = only(study(devices=("cuda",)), "torch-eager-fp16")
    assert (row.clock, row.time_s) == ("device", row.device_s)
    assert row.latency_s == pytest.approx(row.device_s + 5e-5 if row.device_s else None)
    assert row.verdict == "faster"


def test_times_of_two_clocks_are_not_compared() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "samples" and "fp16" in record["cell"]:
            del record["device_s"]
        return record

    found = study(change, devices=("cuda",))
    row = only(found, "torch-eager-fp16")
    assert (row.clock, row.speedup, row.verdict) == ("host", None, None)
    assert row.time_s == row.latency_s
    assert "no CUDA events were recorded in 1 cells (torch-eager-fp16)" in found.warnings[0]


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
            record["memory"]["private_peak_bytes"] = 100 + record["repeat"]
            record["memory"]["device_peak_bytes"] = -5
        return record

    row = only(study(change), "torch-eager-fp32")
    assert (row.host_bytes, row.device_bytes) == (101, None)


def test_one_repeat_that_never_settled_makes_the_cell_unstable() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "process":
            record["stable"] = record["repeat"] == 0
        return record

    assert only(study(change), "torch-eager-fp32").stable is False
    assert only(study(), "torch-eager-fp32").stable is True


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
    assert (row.title, row.time_s, row.verdict, row.fell_back) == ("openvino-fp32", None, None, False)


def test_a_killed_run_shows_what_is_finished() -> None:
    records = grid_records(Run(batches=(1, 4), loaders=("dummy",)))
    first = next(index for index, record in enumerate(records) if record["kind"] == "cell")
    killed = summarize_grid(records[: first + 15])
    begun = [row for row in killed.rows if row.reason == UNFINISHED]
    assert begun
    assert all((row.outcome, row.time_s, row.windows_s) == ("skipped", None, ()) for row in begun)
    assert any("of 20 cells have no result" in warning for warning in killed.warnings)


def test_a_cell_that_was_tried_again_has_its_last_outcome() -> None:
    records = grid_records(Run(**SMALL))  # type: ignore[arg-type]
    line = next(r for r in records if r["kind"] == "cell" and r["variant"] == "openvino-fp32")
    failed = {**line, "outcome": "failed", "stage": "measure", "reason": "it died"}
    assert only(summarize_grid([*records, failed]), "openvino-fp32").outcome == "failed"
    assert only(summarize_grid([*records, failed, line]), "openvino-fp32").outcome == "measured"


@pytest.mark.parametrize("baseline", [{}, {"cpu": "no-such-variant"}])
def test_without_a_baseline_there_are_no_speed_ups(baseline: dict[str, str]) -> None:
    found = study(baseline=baseline)
    assert {row.verdict for row in found.rows} == {None}
    assert {row.speedup for row in found.rows} == {None}


def test_clocks_and_throttling() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "samples" and record["round"] == 0:
            record["gpu"] |= {"sm_mhz": 1200, "throttle": ["sw_power_cap", "gpu_idle"]}
        return record

    row = only(study(change, devices=("cuda",)), "torch-eager-fp32")
    assert (row.sm_mhz, row.lowest_sm_mhz, row.throttled) == (1980, 1200, ("sw_power_cap",))


def test_a_tunes_file_is_refused(tmp_path: Path) -> None:
    records = grid_records(Run(**SMALL))  # type: ignore[arg-type]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert is_grid(path)
    assert is_grid(records)
    assert read_grid(path) == summarize_grid(records)
    del records[0]["purpose"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert not is_grid(path)
    with pytest.raises(ArtifactError, match="results file of a tune"):
        read_grid(path)


@pytest.mark.parametrize(("layers", "expected"), [([["fp16", 21]], 20_000_000), ([["fp16", 20], ["fp32", 1]], None)])
def test_weights_of_a_tensorrt_engine_are_as_large_as_its_layers_make_them(
    layers: list[list[object]], expected: int | None
) -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "variant" and record["variant"] == "torch-eager-fp16":
            record.update(backend="tensorrt", layers=layers)
        return record

    rows = summarize_grid(grid_records(Run(change=change))).at(variant="torch-eager-fp16", device="cuda")
    assert {row.weights_bytes for row in rows} == {expected}
