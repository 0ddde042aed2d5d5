"""Suppression gives what a plain loop over all pairs gives."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.detection import nms as suppression
from redline.detection.nms import nms


def plain(boxes, scores, classes, iou):
    """The definition, one pair at a time."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(classes[i] != classes[j] or overlap(boxes[i], boxes[j]) <= iou for j in kept):
            kept.append(i)
    return kept


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.sampled_from([0.3, 0.45, 0.7]))
def test_it_keeps_what_the_definition_keeps(seed, count, iou):
    check(seed, count, iou)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.sampled_from([0.3, 0.45, 0.7]))
def test_crowds_go_another_way_to_the_same_boxes(seed, count, iou):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suppression, "_MOST_PAIRS", 0)
        check(seed, count, iou)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 40), max_size=6),
    st.sampled_from([0, 30, 200_000]),
    st.sampled_from([1.0, 2.0**30]),
)
def test_each_image_keeps_what_it_keeps_alone(seed, counts, most_pairs, widest_px):
    boxes, scores, classes = random_boxes(seed, sum(counts))
    images = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum([0, *counts]).tolist()
    alone = []
    for start, end in pairwise(ends):
        kept = nms(
            boxes[start:end], scores[start:end], classes[start:end], iou=0.45, max_candidates=30, max_detections=9
        )
        alone += (start + kept).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suppression, "_MOST_PAIRS", most_pairs)
        patch.setattr(suppression, "_WIDEST_PX", widest_px)
        found = nms(boxes, scores, classes, iou=0.45, images=images, max_candidates=30, max_detections=9)
    assert found.tolist() == alone


def check(seed, count, iou):
    boxes, scores, classes = random_boxes(seed, count)
    assert nms(boxes, scores, classes, iou=iou).tolist() == plain(boxes.tolist(), scores, classes, iou)


def random_boxes(seed, count):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 40, (count, 2))
    # Whole pixels, so that moving classes apart rounds nothing.
    boxes = np.concatenate([corners, corners + rng.integers(5, 20, (count, 2))], axis=1).astype(np.float32)
    scores = rng.integers(1, 20, count).astype(np.float32) / 20
    return boxes, scores, rng.integers(0, 3, count)


def test_classes_do_not_suppress_one_another():
    boxes = np.array([[0, 0, 10, 10]] * 3, np.float32)
    kept = nms(boxes, np.array([0.5, 0.9, 0.8], np.float32), np.array([0, 0, 79]), iou=0.5)
    assert kept.tolist() == [1, 2]


def test_limits():
    count = 50
    boxes = np.arange(count, dtype=np.float32)[:, None] * 20 + np.array([0, 0, 10, 10], np.float32)
    scores = np.linspace(0.1, 0.9, count, dtype=np.float32)
    classes = np.zeros(count, np.int32)
    assert nms(boxes, scores, classes, iou=0.5, max_detections=3).tolist() == [49, 48, 47]
    assert nms(boxes, scores, classes, iou=0.5, max_candidates=2).tolist() == [49, 48]
    assert nms(boxes[:0], scores[:0], classes[:0], iou=0.5).tolist() == []


@pytest.mark.parametrize("size", [0.0, -5.0])
def test_boxes_without_an_area_stay_apart(size):
    boxes = np.array([[5, 5, 5 + size, 5 + size], [0, 0, 10, 10]], np.float32)
    assert nms(boxes, np.array([0.9, 0.8], np.float32), np.zeros(2), iou=0.5).tolist() == [0, 1]
