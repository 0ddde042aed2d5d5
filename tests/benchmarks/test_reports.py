"""Reports of benchmark tools, captured from real runs, are read as the tool means them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.peers.reports import (
    NoReportError,
    read_optimum,
    read_polygraphy,
    read_profile,
    read_torch_timer,
    read_yolo_benchmark,
)

DATA = Path(__file__).parent / "data"


def text(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


def test_optimum_has_a_mean_percentiles_and_the_largest_resident_memory_of_three_phases() -> None:
    document = json.loads(text("optimum_benchmark_report.json"))
    report = read_optimum(document, warm_up_calls=10, threads="1")
    values = document["forward"]["latency"]["values"]
    assert report.statistic == "mean"
    assert report.time_s == pytest.approx(sum(values) / len(values))
    assert report.calls == len(values) == 27
    assert report.p50_s == sorted(values)[13]
    assert report.warm_up_calls == 11
    assert report.memory_bytes == 552_210_432
    assert report.load_s == document["load_model"]["latency"]["total"]
    assert report.first_call_s == document["first_forward"]["latency"]["total"]


def test_optimum_in_another_unit_is_refused() -> None:
    document = json.loads(text("optimum_benchmark_report.json"))
    document["forward"]["latency"]["unit"] = "ms"
    with pytest.raises(NoReportError, match="in ms, expected s"):
        read_optimum(document, warm_up_calls=10, threads="1")


def test_polygraphy_has_a_mean_and_nothing_else() -> None:
    report = read_polygraphy(text("polygraphy_sequential.txt"), threads="1")
    assert report.said == "Completed 40 iteration(s) in 1393 ms | Average inference time: 34.82 ms"
    assert (report.statistic, report.calls, report.warm_up_calls) == ("mean", 40, 10)
    assert report.time_s == pytest.approx(34.82e-3)
    assert report.p50_s is report.memory_bytes is report.load_s is None


def test_polygraphy_as_it_comes_reports_no_time() -> None:
    with pytest.raises(NoReportError, match="no time of a call .* PASSED"):
        read_polygraphy(text("polygraphy_streaming.txt"), threads="1")


def test_profile_models_has_a_clipped_mean_and_ran_on_eight_threads() -> None:
    report = read_profile(text("ultralytics_profile.txt"))
    assert (report.statistic, report.calls) == ("mean", 100)
    assert report.time_s == pytest.approx(410.9e-3)
    assert report.spread_s == pytest.approx(48.4e-3)
    assert report.spread is not None
    assert "clipping" in report.spread
    assert report.threads == "ONNX Runtime 8; torch 1"


def test_a_profile_without_a_time_is_no_report() -> None:
    with pytest.raises(NoReportError, match="no ONNX time"):
        read_profile(text("ultralytics_profile.txt").replace("410.9±48.4", "0.0±0.0"))
    with pytest.raises(NoReportError, match="ends with: nothing"):
        read_profile("\n")


def test_yolo_benchmark_has_one_mean_over_the_images_of_a_data_set() -> None:
    report = read_yolo_benchmark(text("ultralytics_benchmark.txt"))
    assert (report.statistic, report.calls) == ("mean", 154)
    assert f"{report.time_s * 1e3:.2f}" in report.said
    assert report.said.startswith("| 1 ONNX")
    assert report.threads is not None


def test_yolo_benchmark_that_failed_says_why() -> None:
    row = "| 1   ONNX     ❌         0.0         -                       -                        -       |\n"
    failed = "Benchmark failure for ONNX: no module named onnx\n" + row
    with pytest.raises(NoReportError, match="no module named onnx"):
        read_yolo_benchmark(failed)


def test_torch_timer_has_a_median_and_a_warning() -> None:
    report = read_torch_timer(text("torch_timer.txt"))
    assert (report.statistic, report.calls, report.threads) == ("median", 32, "1")
    assert report.time_s == pytest.approx(62.00e-3)
    assert report.spread_s == pytest.approx(7.86e-3)
    assert "WARNING: Interquartile range is 12.7%" in report.said


@pytest.mark.parametrize(("unit", "second"), [("s", 62.0), ("us", 62e-6), ("ns", 62e-9)])
def test_torch_timer_in_other_units(unit: str, second: float) -> None:
    report = read_torch_timer(text("torch_timer.txt").replace("Median: 62.00 ms", f"Median: 62.00 {unit}"))
    assert report.time_s == pytest.approx(second)
