"""The plots of a grid: what is in them, on which scales, and how lines are told apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.reporting.grids import changed, usual

from redline.reporting.panels import heat_map, limit_bars, loader_bars, memory_bars, time_bars
from redline.reporting.plots import batch_spec, lines_in_words, looks, size_spec
from redline.study.rows import Row


def rows_at(**fields: Any) -> list[Row]:
    """Without the control, which no plot shows."""
    return [row for row in usual().at(**fields) if not row.control]


def test_time_against_batch_has_a_point_for_every_cell_that_was_measured() -> None:
    rows = rows_at(device="cuda", loader="dummy", size="224x224")
    spec = batch_spec(rows, looks(rows), show="time")
    assert spec is not None
    measured = [row for row in rows if row.time_s]
    assert len(measured) == 3 * 3
    assert [(p["variant"], p["x"]) for p in spec["data"]["values"]] == [(r.variant, r.batch) for r in measured]
    times_ms = [1e3 * (row.time_s or 0) for row in measured]
    assert [point["y"] for point in spec["data"]["values"]] == pytest.approx(times_ms, rel=1e-4)
    assert spec["encoding"]["x"]["scale"]["type"] == spec["encoding"]["y"]["scale"]["type"] == "log"


def test_throughput_is_that_of_the_row() -> None:
    rows = rows_at(device="cpu", loader="dummy", size="224x224")
    spec = batch_spec(rows, looks(rows), show="throughput")
    assert spec is not None
    assert spec["data"]["values"][0]["y"] == float(f"{rows[0].throughput_per_s:.5g}")


def test_a_size_that_is_not_square_is_named_by_both_sides() -> None:
    rows = rows_at(device="cpu", loader="dummy", batch=4)
    spec = size_spec(rows, looks(rows))
    assert spec is not None
    assert "'50176': '224×224'" in spec["encoding"]["x"]["axis"]["labelExpr"]
    square = [row for row in rows if row.height == row.width]
    assert "'50176': '224'" in size_spec(square, looks(square))["encoding"]["x"]["axis"]["labelExpr"]  # type: ignore[index]


def test_one_batch_or_size_is_no_line() -> None:
    rows = rows_at(device="cpu", loader="dummy", batch=4, size="224x224")
    assert batch_spec(rows, looks(rows), show="time") is None
    assert size_spec(rows, looks(rows)) is None


def test_no_two_variants_look_alike() -> None:
    row = usual().at(device="cpu", loader="dummy", batch=4, size="224x224")[0]
    rows = [
        replace(row, variant=f"v{i}", precision=p, backend=b)
        for i, (p, b) in enumerate(6 * [("int8", "a"), ("fp16", "b")])
    ]
    drawn = looks(rows).values()
    assert len({(look.colour, look.shape, look.hollow) for look in drawn}) == len(rows)


def test_a_plot_is_also_said_in_words() -> None:
    rows = rows_at(device="cpu", loader="dummy", size="224x224")
    words = lines_in_words(rows, over="batch", at=lambda row: float(row.batch))
    assert words.startswith("at batch 1 from ")
    assert "(ONNX Runtime INT8 static) to" in words
    assert words.endswith("(PyTorch eager)")
    assert lines_in_words([], over="batch", at=lambda row: float(row.batch)) == ""


def test_the_heat_map_says_what_has_no_number() -> None:
    heat = heat_map(usual(), model="net", device="cpu", loader="dummy")
    assert heat is not None
    lines = {line.title: line.cells for line in heat.lines}
    assert {cell.look for cell in lines["PyTorch eager"]} == {"base"}
    assert [cell.look for cell in lines["OpenVINO FP32"][:3]][2] == "failed"
    assert lines["OpenVINO FP32"][2].told == "failed while measuring: the worker was killed: out of memory"
    absent = usual().at(device="cpu", variant="torch-eager-fp16")[0].title
    assert {(cell.look, cell.text) for cell in lines[absent]} == {("skipped", "○")}
    assert all(cell.look.startswith("faster-") for cell in lines["ONNX Runtime INT8 static"])
    assert all(len(cells) == len(heat.sizes) * len(heat.batches) for cells in lines.values())


def test_no_difference_is_no_number_in_the_heat_map() -> None:
    def twin(cell):
        return 0.01 * cell.images

    study = changed(lambda record: record, time=twin, devices=("cpu",), loaders=("dummy",))
    heat = heat_map(study, model="net", device="cpu", loader="dummy")
    assert heat is not None
    same = next(line for line in heat.lines if line.title == "ONNX Runtime FP32")
    assert {(cell.look, cell.text) for cell in same.cells} == {("same", "=")}
    assert all("the same" in cell.told for cell in same.cells)


def test_bars_of_memory_name_the_weights_where_they_lie() -> None:
    rows = rows_at(device="cuda", loader="dummy", batch=4, size="224x224")
    device = memory_bars(rows, of=lambda row: row.device_bytes, with_weights=True)
    assert {bar.aside for bar in device} == {"weights 40.0 MB, allocator 66.0 MB"}
    assert all(0 < bar.part_percent < bar.percent <= 100 for bar in device)
    host = memory_bars(rows, of=lambda row: row.host_bytes, with_weights=False)
    assert {(bar.part_percent, bar.aside) for bar in host} == {(0.0, "")}


def test_bars_of_loaders_compare_the_model_alone_with_the_whole() -> None:
    groups = loader_bars(rows_at(device="cpu", batch=4, size="224x224"))
    assert len(groups) == 4
    for group in groups:
        rates = [float(bar.value.replace(",", "")) for bar in group.bars]
        assert [bar.title.split(",")[0] for bar in group.bars][2:] == ["loader working ahead", "loader in line"]
        assert rates[2] < max(rates[:2])
        assert group.aside.startswith("97")


def test_bars_of_limits_and_times_are_in_order() -> None:
    study = usual()
    rows = rows_at(device="cpu", loader="dummy", batch=4, size="224x224")
    limits = limit_bars(study, rows)
    assert [bar.percent for bar in limits] == sorted((bar.percent for bar in limits), reverse=True)
    assert any("1,600 GFLOP/s" in bar.aside for bar in limits)
    times = time_bars(rows)
    assert times[0].title == "ONNX Runtime INT8 static"
    assert [bar.recommended for bar in times] == [True, False, False, False]
