"""Two runs side by side: no difference where there is none, and no comparison where it would mean nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.studies import Cell, Record, Run, study_of, usual_time

from redline.core.errors import InputError
from redline.findings.compare import CellChange, Comparison, compare_studies, regressions
from redline.study.rows import Study

BATCHES = (1, 4)


def study(seed: int, change: Callable[[Record], Record] = lambda record: record, **fields: Any) -> Study:
    return study_of(Run(seed=seed, change=change, **{**DEFAULTS, **fields}))


DEFAULTS: dict[str, Any] = {"loaders": ("dummy",), "batches": BATCHES, "drift": 0.005}
#: Two runs of the same.
FIRST, SECOND = study(1), study(2)


def verdict(change: CellChange) -> str | None:
    return change.claim.verdict if change.claim else None


def different(change: CellChange) -> bool:
    return verdict(change) in ("faster", "slower")


def slower(backend: str, factor: float) -> Callable[[Cell], float]:
    return lambda cell: usual_time(cell) * (factor if backend in cell.variant else 1.0)


def in_run(**fields: Any) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        return {**record, **fields} if record["kind"] == "run" else record

    return change


def in_settings(**fields: Any) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        return {**record, "settings": {**record["settings"], **fields}} if record["kind"] == "run" else record

    return change


def in_environment(**fields: Any) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        if record["kind"] in ("run", "node"):
            record["machine"]["environment"] = {**record["machine"]["environment"], **fields}
        return record

    return change


@pytest.mark.parametrize("drift", [0.002, 0.03])
def test_the_same_twice_is_called_different_in_one_cell_of_twenty_at_most(drift: float) -> None:
    called, cells = 0, 0
    for seed in range(12):
        found = compare_studies(study(2 * seed, drift=drift), study(2 * seed + 1, drift=drift))
        called += sum(different(change) for change in found.cells)
        cells += len(found.cells)
    assert cells == 12 * 14
    assert called <= 0.05 * cells


@pytest.mark.parametrize("seed", range(4))
def test_a_slower_backend_is_found_there_and_nowhere_else(seed: int) -> None:
    found = compare_studies(study(100 + seed), study(200 + seed, time=slower("onnxruntime-fp32", 1.12)))
    planted = [change for change in found.cells if change.after.variant == "onnxruntime-fp32"]
    assert len(planted) == 2 * len(BATCHES)
    assert sum(verdict(change) == "slower" for change in planted) >= len(planted) - 1
    assert all(r.low < 1.12 < r.high for change in planted if (r := change.time_ratio))
    others = [change for change in found.cells if change.after.variant != "onnxruntime-fp32"]
    assert sum(different(change) for change in others) <= 1
    worst = regressions(found, 0.01)
    assert worst
    assert {change.after.variant for change in worst} == {"onnxruntime-fp32"}
    lows = [change.time_ratio.low for change in worst if change.time_ratio]
    assert lows == sorted(lows, reverse=True)
    assert regressions(found, 0.15) == ()


def test_a_faster_backend_is_called_faster() -> None:
    found = compare_studies(FIRST, study(2, time=slower("openvino", 0.8)))
    assert {verdict(c) for c in found.cells if c.after.variant == "openvino-fp32"} == {"faster"}
    assert regressions(found, 0.0) == ()


def test_a_slower_machine_is_not_blamed_on_the_variants() -> None:
    found = compare_studies(FIRST, study(2, time=lambda cell: 1.2 * usual_time(cell)))
    assert {different(change) for change in found.cells} == {False}
    assert all(change.controlled for change in found.cells)
    assert any("the baseline, whose time changed by +1" in note or "by +2" in note for note in found.notes)


def test_a_slower_baseline_is_seen_against_the_others() -> None:
    found = compare_studies(FIRST, study(2, time=slower("torch-eager-fp32", 1.2)))
    verdicts = {verdict(c) for c in found.cells if c.after.variant == "torch-eager-fp32" and c.after.device == "cpu"}
    assert verdicts == {"slower"}
    assert {different(c) for c in found.cells if c.after.variant == "onnxruntime-fp32"} == {False}


def test_without_a_baseline_the_interval_is_wider_and_says_so() -> None:
    runs = [study(seed, baseline={}) for seed in (1, 2)]
    found = compare_studies(*runs)
    assert not any(change.controlled for change in found.cells)
    assert all(r.high / r.low > 1.1 for change in found.cells if (r := change.time_ratio))
    assert found.warnings[0].startswith("on cpu all ")
    assert found.warnings[0].endswith("cells have no control: intervals are 5 % wider there")
    big = compare_studies(runs[0], study(2, baseline={}, time=slower("openvino", 1.3)))
    assert {verdict(c) for c in big.cells if c.after.variant == "openvino-fp32"} == {"slower"}


def test_without_repeats_nothing_is_called_different() -> None:
    called = 0
    for seed in range(6):
        runs = [study(10 * seed + n, repeats=1, rounds=12, process_noise=0.01) for n in range(2)]
        found = compare_studies(*runs)
        called += sum(different(change) for change in found.cells)
    assert called <= 0.05 * 6 * len(found.cells)
    assert compare_studies(FIRST, SECOND).warnings == ()


def test_another_baseline_is_no_control() -> None:
    found = compare_studies(FIRST, study(2, baseline={"cpu": "onnxruntime-fp32", "cuda": "torch-eager-fp32"}))
    assert {change.controlled for change in found.cells if change.after.device == "cpu"} == {False}
    assert {change.controlled for change in found.cells if change.after.device == "cuda"} == {True}
    assert ("baseline on cpu", "torch-eager-fp32", "onnxruntime-fp32") in told(found)


def test_another_processor_is_compared_as_such() -> None:
    found = compare_studies(FIRST, study(2, in_environment(cpu="Other CPU"), time=lambda cell: 0.5 * usual_time(cell)))
    on_cpu = [change for change in found.cells if change.after.device == "cpu"]
    assert {verdict(change) for change in on_cpu} == {"faster"}
    assert not any(change.controlled for change in on_cpu)
    assert found.warnings[0].startswith(
        "on cpu the processor, or how much of it may be used, is another: the ratios are those of "
    )
    assert {different(change) for change in found.cells if change.after.device == "cuda"} == {False}


def told(found: Comparison) -> set[tuple[str, str, str]]:
    return {(difference.what, difference.before, difference.after) for difference in found.differences}


def test_conditions_that_differ_are_listed_and_others_are_not() -> None:
    versions = {"redline": "0.2.0", "numpy": "2.0.0", "torch": "2.7.0", "openvino": "2025.1"}
    changed = in_environment(python="3.11.4", os="Other Linux", versions=versions)
    found = compare_studies(FIRST, study(2, lambda r: in_run(commit="abc")(changed(r)), rounds=5))
    assert told(found) == {
        ("system", "Some Linux 1", "Other Linux"),
        ("Python", "3.12.1", "3.11.4"),
        ("torch", "2.6.0", "2.7.0"),
        ("onnxruntime", "1.20.0", "unknown"),
        ("openvino", "unknown", "2025.1"),
        ("commit", "None", "abc"),
        ("rounds", "6", "5"),
    }
    assert compare_studies(FIRST, SECOND).differences == ()


def test_the_gpu_and_its_driver_are_conditions() -> None:
    def change(record: Record) -> Record:
        if record["kind"] in ("run", "node"):
            record["machine"]["gpus"][0] |= {"name": "H200", "driver": "580.2"}
        return record

    found = compare_studies(FIRST, study(2, change))
    assert told(found) == {("GPU", "H100", "H200"), ("GPU driver", "570.1", "580.2")}
    assert not any(c.controlled for c in found.cells if c.after.device == "cuda")


def test_memory_and_precision_of_a_cell() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "process":
            record["memory"]["private_peak_bytes"] *= 2
        if record["kind"] == "variant" and record["requested"] == "int8":
            record |= {"precision": "fp32", "layers": [["fp32", 21]]}
        return record

    found = compare_studies(FIRST, study(2, change))
    assert {change.host_memory for change in found.cells} == {2.0}
    assert {change.device_memory for change in found.cells} == {None, 1.0}
    assert {c.note for c in found.cells if c.after.requested == "int8"} == {"ran int8 before and fp32 now"}
    assert {c.note for c in found.cells if c.after.requested == "fp32"} == {None}


def test_an_upgrade_of_a_runtime_is_named_at_its_cells() -> None:
    def at(version: str) -> Callable[[Record], Record]:
        def change(record: Record) -> Record:
            if record["kind"] == "variant" and "onnxruntime" in record["variant"]:
                record["platform"] = {"onnxruntime": version}
            return record

        return change

    found = compare_studies(study(1, at("1.30")), study(2, at("1.31")))
    notes = {change.note for change in found.cells if "onnxruntime" in change.after.variant}
    assert notes == {"onnxruntime 1.30 before and 1.31 now"}


def test_cells_of_one_run_alone_are_named() -> None:
    found = compare_studies(study(1, batches=(1, 4)), study(2, batches=(4, 8)))
    assert {change.after.batch for change in found.cells} == {4}
    assert len(found.only_before) == len(found.only_after) == 7
    assert "net/torch-eager-fp32/cpu/dummy/1x224x224" in found.only_before


def test_one_process_gives_no_verdict() -> None:
    found = compare_studies(study(1, repeats=1), study(2, repeats=1))
    assert {verdict(change) for change in found.cells} == {"undecided"}
    assert regressions(found, 0.0) == ()


def test_two_clocks_are_not_compared() -> None:
    def change(record: Record) -> Record:
        record.pop("device_s", None)
        return record

    found = compare_studies(FIRST, study(2, change))
    on_cuda = [change for change in found.cells if change.after.device == "cuda"]
    assert {verdict(change) for change in on_cuda} == {None}
    assert all("timed on the device before and on the host now" in (change.note or "") for change in on_cuda)


def other_model(record: Record) -> Record:
    if record["kind"] == "run":
        record["models"] = [{**record["models"][0], "sha256": "ff" * 32}]
    return record


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"change": other_model},
            "model net has sha256 010101010101… in the first run and ffffffffffff… in the second",
        ),
        ({"change": in_settings(threads=4)}, "threads was 2 in the first run and is 4 in the second"),
        ({"change": in_settings(window_s=1.0)}, "window_s was 0.2 in the first run and is 1.0 in the second"),
        ({"change": in_settings(warmup_s=0.1)}, "warmup_s was 3.0 in the first run and is 0.1 in the second"),
        ({"batches": (16,)}, "no cell in common"),
        ({"sizes": ((112, 112),)}, "no cell in common"),
        ({"models": ("other",)}, "no cell in common"),
        ({"outcome": lambda cell: ("failed", "build", "no")}, "no cell in common"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        compare_studies(FIRST, study(2, **fields))


def test_a_machine_with_other_cores_takes_other_threads() -> None:
    wider = in_environment(cores_available=8)
    found = compare_studies(FIRST, study(2, lambda r: in_settings(threads=8)(wider(r))))
    assert told(found) == {("usable cores", "2", "8"), ("threads", "2", "8")}


def test_a_comparison_as_json_and_in_words() -> None:
    found = compare_studies(FIRST, study(2, in_environment(python="3.11.4")))
    assert [str(difference) for difference in found.differences] == ["Python was 3.12.1, is 3.11.4"]
    value = json.loads(json.dumps(found.to_json()))
    assert set(value) == {"differences", "cells", "only_before", "only_after", "notes", "warnings"}
    assert value["cells"][0]["cell"] == found.cells[0].cell == found.cells[0].after.cell
    assert value["cells"][0]["after_s"] == found.cells[0].after.time_s


def test_a_tune_is_compared_as_a_grid_is() -> None:
    tunes = [study(seed, purpose="tune") for seed in (1, 2)]
    assert len(compare_studies(*tunes).cells) == len(compare_studies(FIRST, SECOND).cells)


def test_a_model_without_a_digest_is_taken_on_trust() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "run":
            record["models"] = [{**record["models"][0], "sha256": None}]
        return record

    assert any("taken on trust" in text for text in compare_studies(FIRST, study(2, change)).warnings)


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf")])
def test_a_threshold_that_is_no_share_is_refused(threshold: float) -> None:
    with pytest.raises(InputError, match="expected a share"):
        regressions(compare_studies(FIRST, SECOND), threshold)
