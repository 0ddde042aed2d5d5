"""Ragged polygons keep to their boxes, however these are taken, moved and joined."""

import numpy as np
import pytest

from redline.core.errors import InputError
from redline.detection.results import BatchDetections, Detections, Polygons

RINGS = [np.arange(6).reshape(3, 2), np.zeros((0, 2)), np.arange(8).reshape(4, 2) + 100]


def detections(count=3, *, polygons=True, start=0):
    boxes = np.arange(start, start + 4 * count, dtype=np.float32).reshape(count, 4)
    return Detections(
        boxes=boxes,
        scores=np.linspace(1, 0.5, count, dtype=np.float32),
        classes=np.arange(count, dtype=np.int32),
        polygons=Polygons.of(RINGS[:count]) if polygons else None,
    )


def rings(polygons):
    return [ring.tolist() for ring in polygons.rings()]


def test_polygons_are_ragged():
    polygons = Polygons.of(RINGS)
    assert len(polygons) == 3
    assert polygons.offsets.tolist() == [0, 3, 3, 7]
    assert (polygons.points.dtype, polygons.offsets.dtype) == (np.float32, np.int64)
    assert polygons.ring(2).tolist() == RINGS[2].tolist()


@pytest.mark.parametrize("index", [[2, 0], [1], [], [0, 0, 2, 1], [-1]])
def test_take_keeps_each_ring_with_its_box(index):
    taken = detections().take(np.array(index, np.int64))
    assert rings(taken.polygons) == [RINGS[i].tolist() for i in index]
    assert taken.classes.tolist() == [i % 3 for i in index]
    assert taken.boxes.shape == (len(index), 4)


def test_take_by_a_mask():
    taken = detections().take(np.array([True, False, True]))
    assert taken.classes.tolist() == [0, 2]
    assert len(taken.polygons) == 2


def test_shifted_and_scaled_move_boxes_and_points_alike():
    moved = detections().shifted(10, -2).scaled(2)
    np.testing.assert_array_equal(moved.boxes, (detections().boxes + np.array([10, -2, 10, -2])) * 2)
    np.testing.assert_array_equal(moved.polygons.ring(0), (RINGS[0] + [10, -2]) * 2)
    assert moved.boxes.dtype == moved.polygons.points.dtype == np.float32


def test_concatenate_joins_everything():
    joined = Detections.concatenate([detections(2), Detections.empty(), detections(3, start=100)])
    assert joined.classes.tolist() == [0, 1, 0, 1, 2]
    assert rings(joined.polygons) == [ring.tolist() for ring in [*RINGS[:2], *RINGS]]
    assert len(Detections.concatenate([])) == 0
    assert Detections.concatenate([Detections.empty(polygons=True)]).polygons is not None


def test_parts_with_and_without_polygons_do_not_mix():
    with pytest.raises(InputError, match="1 of 2 parts have polygons"):
        Detections.concatenate([detections(), detections(polygons=False)])


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(InputError, match="do not fit together"):
        Detections(boxes=np.zeros((2, 4)), scores=np.zeros(1), classes=np.zeros(2))
    with pytest.raises(InputError, match="do not fit together"):
        Detections(boxes=np.zeros((2, 4)), scores=np.zeros(2), classes=np.zeros(2), polygons=Polygons.of(RINGS))
    with pytest.raises(InputError, match="from 0 to 3"):
        Polygons(np.zeros((3, 2)), np.array([0, 2]))


def test_a_batch_is_the_detections_of_its_images():
    parts = [detections(2), detections(0), detections(3, start=50)]
    batch = BatchDetections.of(parts)
    assert (len(batch), batch.count, batch.images.tolist()) == (5, 3, [0, 0, 2, 2, 2])
    for one, other in zip(batch.split(), parts, strict=True):
        assert one.boxes.tolist() == other.boxes.tolist()
        assert rings(one.polygons) == rings(other.polygons)
    assert [one.classes.tolist() for one in batch.take(batch.detections.classes > 0).split()] == [[1], [], [1, 2]]
    assert [len(one) for one in BatchDetections.of([detections(0, polygons=False)] * 2).split()] == [0, 0]
    with pytest.raises(InputError, match="2 detections and images of shape"):
        BatchDetections(detections=detections(2), images=np.zeros(3, np.int64), count=1)


def test_each_is_moved_by_its_own():
    moved = detections().shifted(np.array([10, 20, 30]), np.array([1, 2, 3]))
    for index, (dx, dy) in enumerate([(10, 1), (20, 2), (30, 3)]):
        alone = detections().take(np.array([index])).shifted(dx, dy)
        assert moved.boxes[index].tolist() == alone.boxes[0].tolist()
        assert moved.polygons.ring(index).tolist() == alone.polygons.ring(0).tolist()
    assert moved.boxes.dtype == moved.polygons.points.dtype == np.float32
