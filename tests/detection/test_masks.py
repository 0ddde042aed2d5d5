"""Outlines are those of masks that torch enlarges, cut at a half and cropped."""

import numpy as np
import pytest

from redline.detection.masks import polygons_of

cv2 = pytest.importorskip("cv2")
INPUT = (64, 96)


def masks_by_torch(prototypes, shares, boxes):
    """The same by whole images, as it is described: mix, enlarge, cut, crop."""
    torch = pytest.importorskip("torch")
    mixed = np.tensordot(shares, prototypes, axes=1)
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(mixed.astype(np.float32))[None], INPUT, mode="bilinear", align_corners=False
    )
    masks = (enlarged[0] > 0).numpy().astype(np.uint8)
    columns, rows = np.arange(INPUT[1]), np.arange(INPUT[0])[:, None]
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask *= (columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1)
    return masks


@pytest.mark.parametrize("coarse", [(16, 24), (64, 96), (15, 23)])
def test_the_outline_is_that_of_the_mask(coarse):
    rng = np.random.default_rng(0)
    prototypes = cv2.GaussianBlur(rng.standard_normal((*coarse, 8)).astype(np.float32), (7, 7), 2).transpose(2, 0, 1)
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
        (outer,) = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
        if len(outer) >= 3:
            np.testing.assert_array_equal(ring, outer.reshape(-1, 2))


def test_a_mask_that_fills_its_box():
    prototypes = np.ones((1, 16, 24), np.float32)
    boxes = np.array([[8, 16, 40, 48]], np.float32)
    polygons, has = polygons_of(prototypes, np.ones((1, 1), np.float32), boxes, INPUT)
    assert has.all()
    ring = polygons.ring(0)
    assert ring.min(axis=0).tolist() == [8, 16]
    assert ring.max(axis=0).tolist() == [39, 47]


def test_a_box_may_reach_beyond_the_input():
    prototypes = np.ones((1, 16, 24), np.float32)
    polygons, _ = polygons_of(
        prototypes, np.ones((1, 1), np.float32), np.array([[-20, -20, 200, 200]], np.float32), INPUT
    )
    assert polygons.ring(0).min(axis=0).tolist() == [0, 0]
    assert polygons.ring(0).max(axis=0).tolist() == [95, 63]


def test_boxes_without_a_mask_are_told():
    prototypes = np.ones((1, 16, 24), np.float32)
    shares = np.array([[1], [-1], [1], [1]], np.float32)
    boxes = np.array([[8, 8, 20, 20], [8, 8, 20, 20], [200, 8, 300, 20], [9.1, 9, 9.5, 9.5]], np.float32)
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
