"""Heads are told by their shapes, and each gives the same boxes."""

import numpy as np
import pytest

from redline.core.errors import InputError
from redline.core.preprocess import Detection
from redline.detection.heads import candidates_of, layout_of

SEGMENT = Detection(task="segment")


@pytest.mark.parametrize(
    ("shape", "classes", "head", "found"),
    [
        ((1, 84, 8400), 80, "v8", 80),
        ((1, 84, 8400), None, "v8", 80),
        ((1, 5, 8400), 1, "v8", 1),
        (("batch", 84, "cells"), 80, "v8", 80),
        ((1, 25200, 85), 80, "v5", 80),
        ((1, 25200, 85), None, "v5", 80),
        ((1, 25200, 6), 1, "v5", 1),
        ((1, 25200, 6), None, "v5", 1),
        ((1, 300, 6), 80, "end2end", None),
        ((1, 300, 6), None, "end2end", None),
        ((1, 300, 6), 1, "end2end", None),
        ((1, 6, 8400), 2, "v8", 2),
        ((1, 6, 6), 2, "end2end", None),
        ((1, 7, 84), 3, "v8", 3),
    ],
)
def test_the_shape_tells_the_head(shape, classes, head, found):
    layout = layout_of({"output0": shape}, class_count=classes)
    assert (layout.head, layout.class_count, layout.mask_count) == (head, found, 0)


@pytest.mark.parametrize(
    ("shape", "head", "found"),
    [((1, 116, 8400), "v8", 80), ((1, 25200, 117), "v5", 80), ((1, 300, 38), "end2end", None)],
)
def test_a_model_that_segments_has_prototypes(shape, head, found):
    layout = layout_of({"output0": shape, "output1": (1, 32, 160, 160)}, detection=SEGMENT, class_count=80)
    assert (layout.head, layout.class_count, layout.mask_count) == (head, found, 32)
    assert (layout.predictions, layout.prototypes) == ("output0", "output1")


def test_other_outputs_are_passed_over():
    shapes = {"grid": (1, 3, 80, 80, 85), "other": (1, 3, 9), "boxes": (1, 84, 8400)}
    assert layout_of(shapes, class_count=80).predictions == "boxes"


def test_a_head_that_is_named_is_believed():
    named = Detection(head="v5")
    assert layout_of({"boxes": (1, 300, 6)}, detection=named).head == "v5"
    assert layout_of({"boxes": (1, 40, 40)}, detection=named).class_count == 35


@pytest.mark.parametrize(
    ("shapes", "classes"),
    [({"y": (1, 1000)}, None), ({}, None), ({"y": (1, 84, 8400)}, 3), ({"y": (1, 40, 40)}, None)],
)
def test_what_is_no_detector_is_refused(shapes, classes):
    with pytest.raises(InputError, match="no detector that is known"):
        layout_of(shapes, class_count=classes)


def test_segmentation_without_prototypes_is_refused():
    with pytest.raises(InputError, match="has prototypes"):
        layout_of({"y": (1, 116, 8400)}, detection=SEGMENT)


BOXES = np.array([[10, 20, 30, 60], [5, 5, 6, 7], [0, 0, 50, 50]], np.float32)
SCORES = np.array([[0.1, 0.8], [0.25, 0.2], [0.6, 0.5]], np.float32)
CENTRES = np.concatenate([(BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]], axis=1)


def check(found):
    np.testing.assert_array_equal(found.boxes, BOXES[[0, 2]])
    np.testing.assert_allclose(found.scores, [0.8, 0.6], rtol=1e-6)
    assert found.classes.tolist() == [1, 0]
    assert (found.boxes.dtype, found.scores.dtype, found.classes.dtype) == (np.float32, np.float32, np.int32)
    assert found.shares.tolist() == [[1, 2], [5, 6]]


SHARES = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
PROTOTYPES = {"p": (1, 2, 4, 4)}


def test_v8():
    values = np.concatenate([CENTRES, SCORES, SHARES], axis=1).T
    layout = layout_of({"y": (1, 8, 3), **PROTOTYPES}, detection=Detection(task="segment", head="v8"), class_count=2)
    # A score of exactly the threshold is not above it.
    check(candidates_of(values[None], layout, 0.25))
    assert len(candidates_of(values[None], layout, 0.8).scores) == 0


def test_v5_multiplies_by_the_objectness():
    objectness = np.array([[0.5], [1], [1]], np.float32)
    values = np.concatenate([CENTRES, objectness, SCORES, SHARES], axis=1)
    values[0, 5:7] *= 2
    layout = layout_of({"y": (1, 3, 9), **PROTOTYPES}, detection=Detection(task="segment", head="v5"))
    check(candidates_of(values[None], layout, 0.25))


def test_v5_leaves_out_what_is_no_object_however_sure_the_class():
    values = np.array([[5, 5, 2, 2, 0.3, 1.0], [5, 5, 2, 2, 0.2, 1.0]], np.float32)
    assert candidates_of(values[None], layout_of({"y": (1, 2000, 6)}), 0.25).scores.tolist() == [pytest.approx(0.3)]


def of_best_class():
    best = [CENTRES, SCORES.max(axis=1, keepdims=True), SCORES.argmax(axis=1)[:, None], SHARES]
    return np.concatenate(best, axis=1).T.astype(np.float32)


def test_the_best_class_alone():
    layout = layout_of({"y": (1, 8, 3), **PROTOTYPES}, detection=Detection(task="segment", head="best"))
    assert (layout.class_count, layout.mask_count) == (None, 2)
    check(candidates_of(of_best_class()[None], layout, 0.25))
    # A score of exactly the threshold is not above it.
    assert len(candidates_of(of_best_class()[None], layout, 0.8).scores) == 0


def test_the_best_class_is_never_told_by_the_shape_and_passes_other_outputs_over():
    shapes = {"other": (1, 84, 8400), "boxes": (1, 6, 8400)}
    assert layout_of(shapes, detection=Detection(head="best"), class_count=80).predictions == "boxes"
    assert layout_of({"boxes": (1, "rows", 8400)}, detection=Detection(head="best")).head == "best"
    assert layout_of({"boxes": (1, 6, 8400)}, class_count=2).head == "v8"
    with pytest.raises(InputError, match="no detector that is known"):
        layout_of({"boxes": (1, 6, 8400)}, class_count=80)
    with pytest.raises(InputError, match="no detector that is known"):
        layout_of({"boxes": (1, 84, 8400)}, detection=Detection(head="best"))


def test_end2end_has_corners():
    best = SCORES.max(axis=1, keepdims=True)
    values = np.concatenate([BOXES, best, SCORES.argmax(axis=1)[:, None], SHARES], axis=1)
    layout = layout_of({"y": (1, 300, 8), **PROTOTYPES}, detection=SEGMENT)
    check(candidates_of(values[None], layout, 0.25))


@pytest.mark.parametrize("head", ["v8", "v5", "best", "end2end"])
def test_a_batch_has_the_candidates_of_its_images_one_after_the_other(head):
    rng = np.random.default_rng(0)
    values = rng.random((4, 6, 50) if head in ("v8", "best") else (4, 50, 7 if head == "v5" else 6), np.float32)
    values[2] = 0
    layout = layout_of({"y": values.shape}, detection=Detection(head=head))
    found = candidates_of(values, layout, 0.5)
    assert set(found.images.tolist()) == {0, 1, 3}
    for image in range(4):
        own, alone = found.take(found.images == image), candidates_of(values[image : image + 1], layout, 0.5)
        np.testing.assert_array_equal(own.boxes, alone.boxes)
        np.testing.assert_array_equal(own.scores, alone.scores)
        np.testing.assert_array_equal(own.classes, alone.classes)
        assert set(alone.images.tolist()) <= {0}


def test_half_precision_becomes_single():
    values = np.concatenate([CENTRES, SCORES], axis=1).T.astype(np.float16)
    found = candidates_of(values[None], layout_of({"y": (1, 6, 8400)}), 0.3)
    assert found.boxes.dtype == found.scores.dtype == np.float32
    np.testing.assert_array_equal(found.boxes, BOXES[[0, 2]])


def test_boxes_of_no_finite_size_are_left_out():
    values = np.concatenate([CENTRES, SCORES], axis=1).T.copy()
    values[2, 0] = np.inf
    assert candidates_of(values[None], layout_of({"y": (1, 6, 8400)}), 0.3).classes.tolist() == [0]
