"""CSV for a spreadsheet."""

from __future__ import annotations

import csv
from pathlib import Path

from redline.measurement.summary import Study
from redline.reporting.csv import write_csv


def test_one_line_per_variant_and_batch(study: Study, tmp_path: Path) -> None:
    write_csv(study, tmp_path / "run.csv")
    with (tmp_path / "run.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(study.rows) == 24
    best = lines[0]
    assert (best["variant"], best["batch"], best["samples"], best["recommended"]) == (
        "openvino-int8",
        "1",
        "120",
        "True",
    )
    assert float(best["p50_s"]) == study.rows[9].p50_s
    assert float(best["p99_s"]) > float(best["p90_s"])


def test_what_was_not_measured_is_empty(study: Study, tmp_path: Path) -> None:
    write_csv(study, tmp_path / "run.csv")
    with (tmp_path / "run.csv").open(newline="") as file:
        lines = {(line["variant"], line["batch"]): line for line in csv.DictReader(file)}
    assert lines["openvino-fp16", "1"]["p50_s"] == ""
    assert lines["openvino-int8", "8"]["p99_s"] == ""
