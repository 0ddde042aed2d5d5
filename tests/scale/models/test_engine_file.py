"""Engine files with and without Ultralytics' description."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from redline.core.errors import ArtifactError
from redline.core.preprocess import Detection
from scale.models.engine_file import read_engine_file, with_description
from scale.models.engines import precision_of_header, usage_of_header

#: As Ultralytics 8 writes it.
HEADER = {
    "description": "Ultralytics YOLO11n model",
    "author": "Ultralytics",
    "date": "2026-01-05T10:11:12",
    "version": "8.3.40",
    "stride": 32,
    "task": "detect",
    "batch": 8,
    "imgsz": [640, 512],
    "names": {"0": "Meta", "1": "Other"},
    "args": {"batch": 8, "half": True, "int8": False, "dynamic": False, "nms": False},
}
PLAN = b"ftrt" + bytes(range(256)) * 4


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "m.engine"
    path.write_bytes(content)
    return path


def test_a_description_and_the_plan_behind_it(tmp_path: Path) -> None:
    file = read_engine_file(saved(tmp_path, with_description(PLAN, HEADER)))
    assert file.metadata == HEADER
    assert file.plan == PLAN


def test_the_length_is_four_bytes_little_endian() -> None:
    content = with_description(b"plan", {"a": 1})
    assert content == struct.pack("<i", 8) + b'{"a": 1}' + b"plan"


@pytest.mark.parametrize("plan", [PLAN, b"\x10\x00\x00\x00 no json here" + PLAN, b"\xff\xff\xff\xff" + PLAN])
def test_a_bare_plan_is_left_as_it_is(tmp_path: Path, plan: bytes) -> None:
    file = read_engine_file(saved(tmp_path, plan))
    assert file.metadata is None
    assert file.plan == plan


@pytest.mark.parametrize("size", [0, 3, 4, 5, 40, len(with_description(b"", HEADER))])
def test_a_file_that_ends_too_early_says_so(tmp_path: Path, size: int) -> None:
    with pytest.raises(ArtifactError, match=r"m\.engine .*build it again"):
        read_engine_file(saved(tmp_path, with_description(PLAN, HEADER)[:size]))


def test_a_description_that_is_no_json_says_so(tmp_path: Path) -> None:
    broken = with_description(PLAN, HEADER).replace(b'"task"', b'"task')
    with pytest.raises(ArtifactError, match="its description is not JSON"):
        read_engine_file(saved(tmp_path, broken))


def test_what_the_description_says_is_the_models_usage() -> None:
    usage = usage_of_header(HEADER)
    assert usage.class_names == ("Meta", "Other")
    assert usage.detection == Detection(task="detect", head=None, stride=32)
    assert usage.preprocess is not None
    assert (usage.preprocess.height_px, usage.preprocess.width_px, usage.preprocess.resize) == (640, 512, "letterbox")
    assert usage_of_header({**HEADER, "end2end": True}).detection == Detection(task="detect", head="end2end", stride=32)
    assert usage_of_header({**HEADER, "names": ["a", "b"]}).class_names == ("a", "b")


def test_precision_is_what_the_description_says_and_unknown_where_it_says_nothing() -> None:
    assert precision_of_header(HEADER) == "fp16"
    assert precision_of_header({**HEADER, "args": {"half": False, "int8": True}}) == "int8"
    assert precision_of_header({**HEADER, "args": {"half": False}}) == "fp32"
    assert precision_of_header({"half": True}) == "fp16"
    assert precision_of_header({}) == "unknown"
