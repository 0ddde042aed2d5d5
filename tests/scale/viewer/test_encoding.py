from __future__ import annotations

import numpy as np
from tests.scale.viewer.made import COLORS, NAMES, diamond, marks
from tests.scale.viewer.unpacked import unpack

from redline.detection.results import Polygons
from scale.viewer.encoding import encode
from scale.viewer.marks import Filter, Marks

VIEW = (200.0, 200.0, 900.0, 700.0)


def test_everything_in_view_is_there_and_nothing_else() -> None:
    found = marks()
    told = unpack(encode(found, VIEW, Filter(least=0.3), most=1000))
    wanted = found.select(VIEW, Filter(least=0.3))
    assert told.total == len(wanted) == len(told.ids) > 50
    assert sorted(told.ids) == sorted(wanted)
    assert told.counts == found.counts(wanted).tolist()
    np.testing.assert_array_equal(told.boxes, found.boxes[told.ids])
    np.testing.assert_array_equal(told.scores, found.scores[told.ids])
    np.testing.assert_array_equal(told.classes, found.classes[told.ids])
    assert (np.diff(told.classes.astype(int)) >= 0).all()
    assert told.offsets is None


def test_of_too_many_the_surest_are_told_and_how_many_there_are() -> None:
    found = marks()
    told = unpack(encode(found, VIEW, Filter(), most=20))
    wanted = found.select(VIEW, Filter())
    assert (len(told.ids), told.total, sum(told.counts)) == (20, len(wanted), len(wanted))
    np.testing.assert_array_equal(np.sort(told.scores), np.sort(found.scores[wanted])[-20:])


def test_none_wanted_and_none_there() -> None:
    none = unpack(encode(marks(), VIEW, Filter(), most=0))
    assert len(none.ids) == 0 < none.total
    assert unpack(encode(marks(0, polygons=True), VIEW, Filter(), most=10)).total == 0


def test_outlines_belong_to_their_boxes() -> None:
    found = marks(polygons=True)
    told = unpack(encode(found, VIEW, Filter(), most=30))
    assert told.offsets is not None
    assert told.points is not None
    for number, box in enumerate(told.boxes):
        ring = told.points[told.offsets[number] : told.offsets[number + 1]]
        np.testing.assert_array_equal(ring, diamond(*box))


def test_points_that_cannot_be_told_apart_are_left_out() -> None:
    found = marks(polygons=True)
    told = unpack(encode(found, VIEW, Filter(), most=30, step_px=1000))
    assert told.offsets is not None
    assert told.points is not None
    lengths = np.diff(told.offsets)
    assert (lengths >= 1).all()
    assert lengths.max() <= 4
    assert len(told.points) < 30 * 4
    np.testing.assert_array_equal(told.points[told.offsets[:-1]][:, 1], told.boxes[:, 1])  # each begins where it began


def test_a_step_to_the_side_alone_is_a_step() -> None:
    square = np.array([[0, 0], [8, 0], [8, 8], [0, 8]], np.float32)
    found = Marks(
        np.array([[0, 0, 8, 8]], np.float32),
        np.ones(1, np.float32),
        np.zeros(1, np.int32),
        names=NAMES,
        colors=COLORS,
        polygons=Polygons.of([square]),
    )
    told = unpack(encode(found, (0, 0, 9, 9), Filter(), most=5, step_px=2))
    assert told.points is not None
    np.testing.assert_array_equal(told.points, square)
