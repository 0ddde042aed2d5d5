from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redline.core.errors import DataError
from scale.outputs.reading import read_detections, read_info

SQUARE = [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]
TRIANGLE = [[10, 0], [14, 0], [14, 4], [10, 0]]


def feature(geometry: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def polygon(*rings: list[list[float]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def saved(value: object, path: Path) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_what_qupath_itself_writes_is_read(tmp_path: Path) -> None:
    features = [
        feature(polygon(SQUARE), objectType="annotation"),
        feature(polygon(TRIANGLE), classification={"names": ["Tumor", "Positive"], "color": [1, 2, 3]}),
        feature(polygon(SQUARE), classification={"name": "Stroma", "colorRGB": -1}, measurements={"Confidence": 0.25}),
        feature(polygon(SQUARE), classification="Stroma", measurements=[{"name": "Confidence", "value": 0.5}]),
        feature(
            {"type": "MultiPolygon", "coordinates": [[[[0, 0], [1, 0], [1, 1], [0, 0]]], [TRIANGLE, [[11, 1]] * 4]]}
        ),
    ]
    for value in (features, {"type": "FeatureCollection", "features": features}):
        found, names = read_detections(saved(value, tmp_path / "x.geojson"))
        assert names == ("Unclassified", "Tumor: Positive", "Stroma")
        assert found.classes.tolist() == [0, 1, 2, 2, 0]
        assert found.scores.tolist() == [1, 1, 0.25, 0.5, 1]
        assert found.boxes[[0, 1, 4]].tolist() == [[0, 0, 4, 4], [10, 0, 14, 4], [10, 0, 14, 4]]
        assert found.polygons is not None
        assert found.polygons.offsets.tolist() == [0, 0, 3, 3, 3, 6]
    assert read_info(tmp_path / "x.geojson") is None


def test_a_single_feature_is_a_file_too(tmp_path: Path) -> None:
    found, names = read_detections(saved(feature(polygon(SQUARE)), tmp_path / "x.geojson"))
    assert (len(found), names, found.polygons) == (1, ("Unclassified",), None)


@pytest.mark.parametrize("ring", [[[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]], [[0, 0], [4, 0], [0, 0], [0, 4], [0, 0]]])
def test_a_ring_on_a_rectangles_corners_need_not_be_one(ring: list[list[float]], tmp_path: Path) -> None:
    found, _ = read_detections(saved(feature(polygon(ring)), tmp_path / "x.geojson"))
    assert found.polygons is not None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([feature({"type": "Point", "coordinates": [1, 2]})], "got a Point, expected a Polygon"),
        ([feature(polygon(SQUARE[:-1]))], "open ring of 4 points"),
        ([feature(polygon([[0, 0], [1, 1], [0, 0]]))], "3 points"),
        ([feature(polygon())], "IndexError"),
        ([{"type": "Feature", "properties": {}}], "geometry"),
        ([feature(polygon([["a", 0], [1, 1], [2, 2], ["a", 0]]))], "not detections"),
        ({"type": "FeatureCollection"}, "features"),
        ({"A": [{"box": None}]}, "not detections"),
        ({"A": 3}, "not detections"),
        (3, "not detections"),
    ],
)
def test_what_is_not_detections_is_refused(value: object, reason: str, tmp_path: Path) -> None:
    name = "x.json" if isinstance(value, dict) and "A" in value else "x.geojson"
    with pytest.raises(DataError, match=reason):
        read_detections(saved(value, tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.json", b"", "not JSON"),
        ("x.json", b'{"a": [', "not JSON"),
        ("x.csv", b"class,model\n", "expected .parquet, .geojson or .json"),
        ("x.geojson.gz", b"not compressed", "cannot be read"),
        ("x.geojson.gz", b"\x1f\x8b\x08", "cannot be read"),
    ],
)
def test_broken_files_are_refused(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (read_detections, read_info):
        with pytest.raises(DataError, match=reason):
            read(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_detections(tmp_path / "absent.geojson")


def test_a_broken_word_on_the_slide_is_refused(tmp_path: Path) -> None:
    path = saved({"type": "FeatureCollection", "slide": {"name": "a"}, "features": []}, tmp_path / "x.geojson")
    with pytest.raises(DataError, match="width_px"):
        read_info(path)
