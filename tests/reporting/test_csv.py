"""CSV of a grid: one line a cell, each with its conditions."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

from tests.reporting.grids import changed, usual

from redline.reporting.csv import write_csv
from redline.study.rows import Study


def lines_of(study: Study, tmp_path: Path) -> list[dict[str, str]]:
    write_csv(study, tmp_path / "grid.csv")
    return list(csv.DictReader(io.StringIO((tmp_path / "grid.csv").read_text())))


def test_one_line_a_cell_with_its_figures(tmp_path: Path) -> None:
    study = usual()
    lines = {line["cell"]: line for line in lines_of(study, tmp_path)}
    assert list(lines) == [row.cell for row in study.rows]
    row = study.at(variant="onnxruntime-int8-static", device="cpu", loader="real", batch=4, size="224x224")[0]
    line = lines[row.cell]
    assert float(line["time_median_s"]) == row.time_s
    assert row.ratio is not None
    assert float(line["speedup_low_ratio"]) == row.ratio.low
    assert float(line["batch_with_loader_median_s"]) == row.pipeline_s
    assert int(line["host_memory_peak_bytes"]) == row.host_bytes
    assert (line["precision_asked"], line["precision_found"], line["speed_verdict"]) == ("int8", "int8", "faster")


def test_every_line_has_its_conditions(tmp_path: Path) -> None:
    for line in lines_of(usual(), tmp_path):
        assert line["device_name"] == {"cpu": "Some CPU", "cuda": "H100"}[line["device"]]
        assert (line["version_torch"], line["threads"], line["run_id"]) == ("2.6.0", "2", "0f" * 8)
        assert (line["gpu_driver"], line["gpu_cuda"]) == (("570.1", "12.8") if line["device"] == "cuda" else ("", ""))


def test_what_was_not_measured_is_empty_and_says_why(tmp_path: Path) -> None:
    for line in lines_of(usual(), tmp_path):
        assert (line["time_median_s"] == "") == (line["outcome"] != "measured")
        assert (line["reason"] != "") == (line["outcome"] != "measured")
    assert not re.search(r"\b(None|nan|inf)\b", (tmp_path / "grid.csv").read_text())


def test_units_are_in_the_names_of_all_columns_of_numbers(tmp_path: Path) -> None:
    units = ("_s", "_bytes", "_px", "_ratio", "_fraction", "_mhz", "_per_s")
    counts = {"model_parameters", "samples_verified", "batch", "calls", "cores_usable", "threads", "seed"}
    counts |= {"rounds", "repeats", "confirm", "speed_processes"}
    words = {"gpu_cuda", "gpu_driver", "gpu_compute_capability", "redline", "python"}
    for line in lines_of(usual(), tmp_path)[:40]:
        for name, value in line.items():
            if re.fullmatch(r"[\d.e+-]+", value) and not name.startswith(("version_", "run_id", "model_sha256")):
                assert name.endswith(units) or name in counts | words, name


def test_machines_with_other_packages_share_one_table(tmp_path: Path) -> None:
    def second_node(record):
        if record["kind"] == "cell" and record["batch"] == 4:
            return {**record, "node": "n1"}
        return record

    study = changed(second_node, devices=("cpu",), loaders=("dummy",))
    node = study.nodes["n0"]
    environment = replace(node.machine.environment, cpu="Other CPU", versions={"openvino": "2026.0"})
    other = replace(node, node="n1", machine=replace(node.machine, environment=environment))
    lines = lines_of(replace(study, nodes={**study.nodes, "n1": other}), tmp_path)
    assert {line["device_name"] for line in lines if line["batch"] == "4"} == {"Other CPU"}
    assert {(line["version_openvino"], line["version_torch"]) for line in lines} == {("2026.0", ""), ("", "2.6.0")}
