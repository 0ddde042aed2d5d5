"""Outlines are those of masks that torch crops, enlarges and cuts at a half."""

import numpy as np
import pytest

from redline.detection.masks import polygons_of

cv2 = pytest.importorskip("cv2")
INPUT = (64, 96)


def masks_by_torch(prototypes, shares, boxes):
    """The same by whole images, as it is described: mix, crop, enlarge, cut."""
    torch = pytest.importorskip("torch")
    height, width = prototypes.shape[1:]
    mixed = np.tensordot(shares, prototypes, axes=1)
    columns, rows = np.arange(width), np.arange(height)[:, None]
    for mask, (x0, y0, x1, y1) in zip(mixed, boxes * (width / INPUT[1]), strict=True):
        mask *= (columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1)
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(mixed.astype(np.float32))[None], INPUT, mode="bilinear", align_corners=False
    )
    return (enlarged[0] > 0).numpy().astype(np.uint8)


def filled(ring):
    mask = np.zeros(INPUT, np.uint8)
    return cv2.fillPoly(mask, [ring.astype(np.int32)], 1)


def test_the_outline_is_that_of_the_mask():
    rng = np.random.default_rng(0)
    prototypes = cv2.GaussianBlur(rng.standard_normal((16, 24, 8)).astype(np.float32), (7, 7), 2).transpose(2, 0, 1)
    shares = rng.standard_normal((20, 8)).astype(np.float32)
    corners = rng.uniform(-10, 60, (20, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 60, (20, 2))], axis=1).astype(np.float32)
    expected = masks_by_torch(prototypes, shares, boxes)
    polygons, has = polygons_of(prototypes, shares, boxes, INPUT)
    assert has.tolist() == expected.any(axis=(1, 2)).tolist()
    for ring, mask in zip(polygons.rings(), expected[has], strict=True):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        if count > 2 and np.sort(areas)[-2] > 0.8 * areas.max():
            continue  # two parts about as large: either may be the largest
        largest = (labels == 1 + areas.argmax()).astype(np.uint8)
        outer = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        np.testing.assert_array_equal(filled(ring), cv2.fillPoly(np.zeros(INPUT, np.uint8), outer, 1))


def test_a_mask_that_fills_its_box():
    prototypes = np.ones((1, 16, 24), np.float32)
    boxes = np.array([[8, 16, 40, 48]], np.float32)
    polygons, has = polygons_of(prototypes, np.ones((1, 1), np.float32), boxes, INPUT)
    assert has.all()
    ring = polygons.ring(0)
    # The enlarged edge fades out over a pixel of the prototypes, four of the input.
    assert ring.min(axis=0).tolist() == pytest.approx([8, 16], abs=2)
    assert ring.max(axis=0).tolist() == pytest.approx([40, 48], abs=2)


def test_at_the_edge_of_the_input_nothing_fades():
    prototypes = np.ones((1, 16, 24), np.float32)
    polygons, _ = polygons_of(
        prototypes, np.ones((1, 1), np.float32), np.array([[-20, -20, 200, 200]], np.float32), INPUT
    )
    assert polygons.ring(0).min(axis=0).tolist() == [0, 0]
    assert polygons.ring(0).max(axis=0).tolist() == [95, 63]


def test_boxes_without_a_mask_are_told():
    prototypes = np.ones((1, 16, 24), np.float32)
    shares = np.array([[1], [-1], [1], [1]], np.float32)
    boxes = np.array([[8, 8, 20, 20], [8, 8, 20, 20], [200, 8, 300, 20], [9, 9, 9.5, 9.5]], np.float32)
    polygons, has = polygons_of(prototypes, shares, boxes, INPUT)
    assert has.tolist() == [True, False, False, False]
    assert len(polygons) == 1


def test_the_largest_part_counts():
    prototypes = -np.ones((1, 16, 24), np.float32)
    prototypes[0, 2:4, 2:4] = 1
    prototypes[0, 8:14, 8:20] = 1
    polygons, _ = polygons_of(prototypes, np.ones((1, 1), np.float32), np.array([[0, 0, 96, 64]], np.float32), INPUT)
    assert polygons.ring(0).min(axis=0).tolist() == pytest.approx([32, 32], abs=2)


def test_a_mask_of_one_pixel_is_a_square():
    prototypes = -np.ones((1, 64, 96), np.float32)
    prototypes[0, 10, 20] = 1
    polygons, _ = polygons_of(prototypes, np.ones((1, 1), np.float32), np.array([[0, 0, 96, 64]], np.float32), INPUT)
    assert polygons.ring(0).tolist() == [[20, 10], [21, 10], [21, 11], [20, 11]]
