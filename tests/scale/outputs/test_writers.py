from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tests.scale.outputs.samples import INFO, detections, in_pieces, one

from redline.core.errors import DataError, InputError, MissingDependencyError
from redline.detection.results import Detections
from scale.outputs import FORMATS, SlideInfo, base, open_writer

each_format = pytest.mark.parametrize("name", FORMATS)


def written(name: str, folder: Path, pieces: list[Detections], info: SlideInfo = INFO) -> dict[str, bytes]:
    """The files of one format by name."""
    with open_writer(name, folder / FORMATS[name].file_name, info) as writer:
        for piece in pieces:
            writer.add(piece)
    assert writer.count == sum(map(len, pieces))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@each_format
def test_bytes_do_not_depend_on_the_pieces_or_the_run(name: str, tmp_path: Path) -> None:
    found = detections()
    whole = written(name, tmp_path / "whole", [found])
    assert FORMATS[name].file_name in whole
    assert written(name, tmp_path / "pieces", in_pieces(found, 37)) == whole
    assert written(name, tmp_path / "empty", [Detections.empty(), found, Detections.empty()]) == whole
    assert written(name, tmp_path / "other", [found.take(np.arange(1, 500))]) != whole


@each_format
def test_a_large_piece_is_written_bit_by_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = written(name, tmp_path / "whole", [detections()])
    monkeypatch.setattr(base, "_PIECE", 7)
    assert written(name, tmp_path / "bits", [detections()]) == whole


@each_format
def test_nothing_found_and_no_classes_are_whole_files(name: str, tmp_path: Path) -> None:
    assert written(name, tmp_path / "nothing", [])
    bare = SlideInfo(name="a.png", width_px=1, height_px=1, class_names=())
    assert written(name, tmp_path / "bare", [], bare)


@each_format
def test_the_file_is_there_after_close_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / FORMATS[name].file_name
    writer = open_writer(name, path, INFO)
    writer.add(detections())
    assert not path.exists()
    writer.close()
    writer.close()
    content = path.read_bytes()
    writer.abort()
    assert path.read_bytes() == content
    with pytest.raises(InputError, match="after"):
        writer.add(detections())


@each_format
def test_an_abort_leaves_the_old_file_and_nothing_else(name: str, tmp_path: Path) -> None:
    path = tmp_path / FORMATS[name].file_name
    path.write_bytes(b"old")
    writer = open_writer(name, path, INFO)
    writer.add(detections())
    writer.abort()
    writer.abort()
    with pytest.raises(ZeroDivisionError), open_writer(name, path, INFO) as writer:
        writer.add(detections())
        raise ZeroDivisionError
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [(path.name, b"old")]


@each_format
def test_a_failure_at_the_end_leaves_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(name, tmp_path / FORMATS[name].file_name, INFO)

    def fail() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "_finish", fail)
    with pytest.raises(OSError, match="No space"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


@each_format
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"classes": np.array([3], np.int32)}, "classes from 3 to 3, expected 0 to 2"),
        ({"classes": np.array([-1], np.int32)}, "classes from -1"),
        ({"scores": np.array([np.nan], np.float32)}, "not finite"),
        ({"boxes": np.array([[0, 0, np.inf, 1]], np.float32)}, "not finite"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    name: str, bad: dict[str, np.ndarray], reason: str, tmp_path: Path
) -> None:
    good = one((0, 0, 5, 5))
    fields = {"boxes": good.boxes, "scores": good.scores, "classes": good.classes} | bad
    with (
        pytest.raises(DataError, match=reason),
        open_writer(name, tmp_path / FORMATS[name].file_name, INFO) as writer,
    ):
        writer.add(Detections(**fields))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean geojson"):
        open_writer("geojsn", tmp_path / "x", INFO)


def test_a_missing_package_is_told_with_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "scale.outputs.parquet", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pyarrow is not installed; .*\[scale\]"):
        open_writer("parquet", tmp_path / "x.parquet", INFO)
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_formats_loads_nothing_heavy() -> None:
    heavy = {"shapely", "pyarrow", "tifffile", "PIL", "cv2", "orjson"}
    program = "import sys, json, scale.outputs; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not heavy & set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("width_px", 0, "size of 0 x 30000"),
        ("mpp", -0.5, "-0.5 micrometres"),
        ("mpp", float("nan"), "nan micrometres"),
        ("models", ("a",), "1 models of 3 classes"),
    ],
)
def test_a_slide_that_cannot_be_is_refused(field: str, value: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        SlideInfo(
            **{**{key: getattr(INFO, key) for key in ("name", "width_px", "height_px", "class_names")}, field: value}
        )


def test_what_is_known_of_a_slide_survives_json() -> None:
    assert SlideInfo.from_json(json.loads(json.dumps(INFO.to_json()))) == INFO
    bare = SlideInfo(name="a", width_px=1, height_px=2, class_names=())
    assert SlideInfo.from_json(bare.to_json()) == bare


@pytest.mark.parametrize("name", ["json", "geojson", "csv", "coco"])
def test_memory_does_not_grow_with_the_slide(name: str, tmp_path: Path) -> None:
    piece = detections(1000)

    def peak(pieces: int) -> int:
        tracemalloc.start()
        with open_writer(name, tmp_path / "x", INFO) as writer:
            for _ in range(pieces):
                writer.add(piece)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(1)
    assert peak(12) < 1.3 * peak(3)
