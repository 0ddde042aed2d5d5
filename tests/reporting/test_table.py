"""The table of a grid: order, words, and dashes for what was not measured."""

from __future__ import annotations

import pytest
from rich.console import Console
from tests.reporting.grids import changed, usual

from redline.findings.conclusions import found_in
from redline.reporting.table import for_machines, table_lines, tally, why_not
from redline.reporting.terminal import study_table


def test_every_cell_of_a_size_is_a_line_in_the_order_of_the_grid() -> None:
    study = usual()
    lines = table_lines(study, "net", "224x224")
    assert [line.row for line in lines] == list(study.at(model="net", size="224x224"))
    assert sum(line.begins for line in lines) == 3 * 2 * 2


def test_asked_and_found_are_both_said() -> None:
    lines = [line for line in table_lines(usual(), "net", "224x224") if line.row.variant == "torch-eager-fp16"]
    line = next(line for line in lines if line.row.outcome == "measured")
    assert (line.asked, line.found, line.share) == ("fp16", "fp32", "20 of 21 layers")
    assert "not as asked" in line.flags


def test_a_cell_without_numbers_says_why_and_shows_none() -> None:
    lines = table_lines(usual(), "net", "224x224")
    failed = next(line for line in lines if line.row.outcome == "failed")
    assert failed.reason == "failed while measuring: the worker was killed: out of memory"
    numbers = (failed.median_ms, failed.p90_ms, failed.throughput, failed.memory_mb, failed.speedup, failed.found)
    assert set(numbers) == {"–"}
    assert failed.flags == ()
    measured = next(line for line in lines if line.row.outcome == "measured")
    assert measured.reason == ""


def test_on_cuda_the_time_is_the_devices_with_the_hosts_below() -> None:
    rows = {line.row.cell: line for line in table_lines(usual(), "net", "224x224")}
    cuda, cpu = (rows[f"net/torch-eager-fp32/{device}/dummy/4x224x224"] for device in ("cuda", "cpu"))
    assert float(cuda.host_ms) > float(cuda.median_ms)
    assert cpu.host_ms == ""
    assert cuda.memory_mb == "516"
    assert cpu.memory_mb == "216"


@pytest.mark.parametrize(
    ("image", "shape"), [(["batch", 3, 224, 224], "4×3×224×224"), (["batch", 5, 224, 224], "4×5×224×224")]
)
def test_a_shape_names_the_channels(image: list[object], shape: str) -> None:
    def say(record):
        if record["kind"] == "run":
            record["models"][0]["signature"]["inputs"][0]["shape"] = image
        return record

    study = changed(say, devices=("cpu",), loaders=("dummy",), variants=("torch-eager-fp32",))
    assert {line.shape for line in table_lines(study, "net", "224x224") if line.row.batch == 4} == {shape}


def test_tally_and_reasons() -> None:
    study = usual()
    assert sum(int(part.split()[0]) for part in tally(study.rows).split(", ")) == len(study.rows)
    assert why_not(study.at(variant="onnxruntime-int8-static", device="cuda")[0]).startswith("skipped: ")


def test_for_machines_leaves_the_samples_out() -> None:
    document = for_machines(usual(), found_in(usual()))
    assert len(document["rows"]) == len(usual().rows)
    assert "processes" not in document["rows"][0]
    assert document["conclusions"]["recommendations"]


def test_the_terminal_says_each_reason_once() -> None:
    console = Console(width=100, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(study_table(usual()))
    text = " ".join(console.export_text().split())
    assert "cuda 4×3×224×224 real" in text
    assert text.count("out of memory") == 1
    assert "torch-eager-fp16 on cuda was asked for fp16 and ran in fp32 (20 of 21 layers)" in text
    assert "fp32!" in text
