from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.scale.outputs.samples import INFO, detections

from scale.outputs import SlideInfo, open_writer


def written(path: Path, info: SlideInfo) -> list[dict[str, str]]:
    with open_writer("csv", path, info) as writer:
        writer.add(detections())
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_each_line_is_an_object_in_pixels_and_micrometres(tmp_path: Path) -> None:
    found = detections()
    lines = written(tmp_path / "x.csv", INFO)
    assert list(lines[0])[:3] == ["class", "model", "score"]
    assert len(lines) == 500
    for line, box, index, score in zip(lines, found.boxes.tolist(), found.classes, found.scores.tolist(), strict=True):
        assert (line["class"], line["model"]) == (INFO.class_names[index], INFO.models[index])
        assert float(line["score"]) == pytest.approx(score)
        for side, value in zip(("x0", "y0", "x1", "y1"), box, strict=True):
            assert np.float32(line[f"{side}_px"]) == value
            assert float(line[f"{side}_um"]) == pytest.approx(value * 0.499, abs=1e-3)


def test_numbers_are_short_and_unknown_units_have_no_columns(tmp_path: Path) -> None:
    line = written(tmp_path / "x.csv", replace(INFO, mpp=None, models=()))[0]
    assert list(line) == ["class", "model", "score", "x0_px", "y0_px", "x1_px", "y1_px"]
    assert line["model"] == ""
    assert all(len(line[name]) <= 11 for name in list(line)[2:])
