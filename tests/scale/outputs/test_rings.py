from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st

from redline.detection.results import Polygons
from scale.outputs.rings import rounded_boxes, valid_rings

numbers = st.one_of(st.integers(0, 4), st.floats(0, 4, width=32), st.floats(0, 0.03125, width=32))
rings = st.lists(st.lists(st.tuples(numbers, numbers), max_size=9), max_size=5)


@given(rings)
def test_whatever_the_points_a_ring_is_one_that_qupath_takes(given_rings: list[list[tuple[float, float]]]) -> None:
    polygons = Polygons.of([np.array(ring, np.float32).reshape(-1, 2) for ring in given_rings])
    got = valid_rings(polygons)
    assert len(got) == len(given_rings)
    for ring, original in zip(got, polygons.rings(), strict=True):
        if ring is None:
            continue
        shape = shapely.Polygon(ring)
        assert shape.is_valid
        assert shapely.is_ccw(shape.exterior)
        assert ring[0].tolist() == ring[-1].tolist()
        # What QuPath 0.6 does with every outline: of no one may nothing remain.
        assert shapely.set_precision(shape, 0.01).area > 0.5 * shape.area
        assert (ring.min(axis=0) >= original.min(axis=0) - 0.0051).all()
        assert (ring.max(axis=0) <= original.max(axis=0) + 0.0051).all()


@given(st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1))
def test_no_box_is_flat(boxes: list[tuple[float, float, float, float]]) -> None:
    given_boxes = np.array(boxes, np.float32)
    given_boxes[:, 2:] += given_boxes[:, :2]
    got = rounded_boxes(given_boxes)
    assert (got[:, 2:] - got[:, :2] > 0.009).all()
    np.testing.assert_allclose(got, given_boxes, atol=0.0151)
    assert np.array_equal(got, np.round(got, 2))


def test_an_outline_that_the_grid_would_swallow_is_none() -> None:
    sliver, sound = [[0, 0], [0, 1], [0.0078125, 2]], [[0, 0], [4, 0], [0, 0.25]]
    got = valid_rings(Polygons.of([np.array(sliver), np.array(sound)]))
    assert [ring is None for ring in got] == [True, False]


def test_a_sound_outline_keeps_its_points() -> None:
    ring = [[0, 0], [4, 0], [4, 4], [1, 3]]
    (got,) = valid_rings(Polygons.of([np.array(ring)]))
    assert got is not None
    assert got.tolist() == [*ring, ring[0]]
