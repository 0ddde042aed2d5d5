from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.core.errors import DataError, InputError
from redline.detection.results import Detections, Polygons
from scale.domain import (
    Box,
    Coords,
    Polygon,
    Prediction,
    from_detections,
    predictions_from_json,
    predictions_to_json,
    to_detections,
)

TEXT = """\
{
    "Eosinophils": [
        {
            "box": {
                "start": {
                    "x": 10,
                    "y": 20.5
                },
                "end": {
                    "x": 30,
                    "y": 40
                }
            },
            "polygon": [
                {
                    "x": 10,
                    "y": 20.5
                },
                {
                    "x": 30,
                    "y": 20.5
                },
                {
                    "x": 30,
                    "y": 40
                }
            ],
            "conf": 0.9
        },
        {
            "box": {
                "start": {
                    "x": 0,
                    "y": 0
                },
                "end": {
                    "x": 1,
                    "y": 1
                }
            },
            "polygon": null,
            "conf": 0.25
        }
    ],
    "Plasma cells": []
}"""
TRIANGLE = Polygon([Coords(10, 20.5), Coords(30, 20.5), Coords(30, 40)])
PREDICTIONS = {
    "Eosinophils": [
        Prediction(Box(Coords(10, 20.5), Coords(30, 40)), TRIANGLE, 0.9),
        Prediction(Box(Coords(0, 0), Coords(1, 1)), None, 0.25),
    ],
    "Plasma cells": [],
}


def square(x: float, y: float, side: float, *, outline: bool = False, conf: float = 0.5) -> Prediction:
    box = Box(Coords(x, y), Coords(x + side, y + side))
    return Prediction(box, Polygon(box.corners) if outline else None, conf)


def test_json_has_the_layout_that_users_of_it_have() -> None:
    assert predictions_to_json(PREDICTIONS) == TEXT


def test_json_is_read_back_from_a_text_and_from_a_file(tmp_path: Path) -> None:
    assert predictions_from_json(TEXT) == PREDICTIONS
    assert predictions_to_json(PREDICTIONS, tmp_path / "out" / "x.json") == TEXT
    assert (tmp_path / "out" / "x.json").read_text() == TEXT
    assert predictions_from_json(str(tmp_path / "out" / "x.json")) == PREDICTIONS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "the text: Input data was truncated"),
        ('{"a": 3}', "Expected `array`, got `int`"),
        ('{"a": [{"polygon": null, "conf": 1}]}', "box"),
        (TEXT.replace("0.9", "null"), "Expected `float`, got `null`"),
        (TEXT.replace("20.5", '"20.5"'), "Expected `float`, got `str`"),
        (TEXT.replace('"x": 1,', '"x": -1,'), "upper left"),
    ],
)
def test_other_json_is_refused_with_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        predictions_from_json(text)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        predictions_from_json(tmp_path / "absent.json")
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="not a text file"):
        predictions_from_json(tmp_path / "x.json")


@pytest.mark.parametrize("end", [(-1, 5), (5, -1), (math.nan, 5)])
def test_a_box_that_ends_before_it_starts_is_refused(end: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="upper left"):
        Box(Coords(0, 0), Coords(*end))


def test_a_polygon_of_two_points_is_refused() -> None:
    with pytest.raises(InputError, match="2 points"):
        Polygon([Coords(0, 0), Coords(1, 1)])


@pytest.mark.parametrize("outline", [False, True])
def test_squares_that_share_a_quarter(*, outline: bool) -> None:
    first, second = square(0, 0, 4, outline=outline), square(2, 2, 4, outline=outline)
    assert first.iou_with(second) == pytest.approx(4 / 28)
    assert first.covered_by(second) == pytest.approx(4 / 16)
    inner = square(1, 1, 2, outline=outline)
    assert (inner.covered_by(first), first.covered_by(inner)) == (pytest.approx(1), pytest.approx(1 / 4))


def test_an_outline_counts_and_not_its_box() -> None:
    corner = Prediction(Box(Coords(0, 0), Coords(4, 4)), Polygon([Coords(0, 0), Coords(4, 0), Coords(0, 4)]), 0.5)
    assert corner.covered_by(square(0, 0, 4)) == pytest.approx(1)
    assert square(0, 0, 4).covered_by(corner) == pytest.approx(0.5)
    assert corner.iou_with(square(3, 3, 1)) == 0


def test_merging_takes_the_box_around_both_the_union_and_the_higher_confidence() -> None:
    both = square(0, 0, 4, outline=True, conf=0.3).merge_with(square(2, 2, 4, outline=True, conf=0.7))
    assert (both.box, both.conf) == (Box(Coords(0, 0), Coords(6, 6)), 0.7)
    assert both.polygon is not None
    assert both.polygon.area == pytest.approx(28)
    assert both.polygon.box == both.box


def test_merging_boxes_gives_no_outline_and_one_outline_is_joined_with_the_others_box() -> None:
    assert square(0, 0, 4).merge_with(square(2, 2, 4)).polygon is None
    mixed = square(0, 0, 4).merge_with(square(2, 2, 4, outline=True))
    assert mixed.polygon is not None
    assert mixed.polygon.area == pytest.approx(28)


def test_of_a_union_in_two_parts_the_larger_remains() -> None:
    apart = square(0, 0, 4, outline=True).merge_with(square(100, 0, 2, outline=True))
    assert apart.box == Box(Coords(0, 0), Coords(102, 4))
    assert apart.polygon is not None
    assert apart.polygon.area == pytest.approx(16)


def test_an_outline_that_crosses_itself_counts_as_its_repaired_part() -> None:
    crossed = Polygon([Coords(0, 0), Coords(4, 4), Coords(4, 0), Coords(0, 4)])
    assert crossed.shape.is_valid
    assert crossed.area == pytest.approx(4)
    assert crossed.points[1] == Coords(4, 4)


def test_an_outline_without_an_area_overlaps_nothing() -> None:
    flat = Prediction(Box(Coords(0, 0), Coords(4, 4)), Polygon([Coords(0, 0), Coords(2, 2), Coords(4, 4)]), 0.5)
    assert (flat.area, flat.iou_with(flat), flat.covered_by(square(0, 0, 4))) == (0, 0, 0)
    assert flat.merge_with(flat).polygon is None


def test_a_prediction_travels_to_another_process_and_keys_a_set() -> None:
    first = PREDICTIONS["Eosinophils"][0]
    assert pickle.loads(pickle.dumps(first)) == first
    assert len({first, pickle.loads(pickle.dumps(first))}) == 1


sides = st.integers(1, 20)
places = st.integers(-20, 20)


@given(places, places, sides, sides, st.booleans())
def test_overlap_is_symmetric_and_at_most_one(x: int, y: int, one_side: int, other_side: int, outline: bool) -> None:
    first, second = square(0, 0, one_side), square(x, y, other_side, outline=outline)
    iou = first.iou_with(second)
    assert iou == pytest.approx(second.iou_with(first))
    assert 0 <= iou <= min(first.covered_by(second), second.covered_by(first)) + 1e-9
    assert first.iou_with(first) == pytest.approx(1)


def some_detections() -> Detections:
    return Detections(
        boxes=np.array([[0.1, 0.2, 3.3, 4.4], [5, 6, 7, 8], [1, 1, 2, 2]], np.float32),
        scores=np.array([0.9, 0.5, 1e-5], np.float32),
        classes=np.array([2, 0, 2], np.int32),
        polygons=Polygons.of([[[0.1, 0.2], [3.3, 0.2], [3.3, 4.4]], [], [[1, 1], [2, 2]]]),
    )


def test_arrays_become_predictions_with_the_shortest_numbers() -> None:
    found = from_detections(some_detections(), ("A", "B", "C"))
    assert list(found) == ["A", "B", "C"]
    assert [len(several) for several in found.values()] == [1, 0, 2]
    first = found["C"][0]
    assert first == Prediction(
        Box(Coords(0.1, 0.2), Coords(3.3, 4.4)), Polygon([Coords(0.1, 0.2), Coords(3.3, 0.2), Coords(3.3, 4.4)]), 0.9
    )
    assert [found["A"][0].polygon, found["C"][1].polygon] == [None, None]
    assert '"conf": 1e-05' in predictions_to_json(found)


def test_predictions_become_the_same_arrays_again() -> None:
    names = ("A", "B", "C")
    detections, got_names = to_detections(from_detections(some_detections(), names))
    assert got_names == names
    expected = some_detections().take(np.array([1, 0, 2]))
    np.testing.assert_array_equal(detections.boxes, expected.boxes)
    np.testing.assert_array_equal(detections.scores, expected.scores)
    np.testing.assert_array_equal(detections.classes, expected.classes)
    assert detections.polygons is not None
    np.testing.assert_array_equal(detections.polygons.offsets, [0, 0, 3, 3])
    assert from_detections(detections, names) == from_detections(some_detections(), names)


def test_nothing_found_is_empty_both_ways() -> None:
    assert from_detections(Detections.empty(), ("A",)) == {"A": []}
    detections, names = to_detections({"A": []})
    assert (len(detections), names, detections.polygons) == (0, ("A",), None)
    assert predictions_to_json({}) == "{}"


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = {"shapely", "pyarrow", "cv2", "torch", "onnxruntime", "orjson"}
    program = "import sys, json, scale.domain; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not heavy & set(json.loads(done.stdout))
