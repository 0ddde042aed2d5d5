from __future__ import annotations

import numpy as np
import pytest

from scale.viewer.index import BoxIndex


def boxes_of(number: int, seed: int) -> np.ndarray:
    """Most are cells, some as large as half the slide, some points, some at the same place."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-50, 10_000, (number, 2))
    size = rng.uniform(0, 60, (number, 2))
    size[::97] *= 90
    size[::53] = 0
    corner[::11] = corner[:1]
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


@pytest.mark.parametrize("number", [0, 1, 63, 64, 65, 4097])
def test_finds_what_a_look_at_every_box_finds(number: int) -> None:
    boxes = boxes_of(number, seed=number)
    index = BoxIndex(boxes)
    rng = np.random.default_rng(1)
    for side in (0.0, 3.0, 80.0, 900.0, 30_000.0):
        for x0, y0 in rng.uniform(-200, 10_000, (20, 2)):
            x1, y1 = x0 + side, y0 + side / 2
            wanted = (boxes[:, 0] <= x1) & (boxes[:, 2] >= x0) & (boxes[:, 1] <= y1) & (boxes[:, 3] >= y0)
            found = index.touching((x0, y0, x1, y1))
            np.testing.assert_array_equal(np.sort(found), np.flatnonzero(wanted))


def test_boxes_that_only_share_an_edge_touch() -> None:
    index = BoxIndex(np.array([[0, 0, 10, 10]], np.float32))
    assert index.touching((10, 10, 20, 20)).tolist() == [0]
    assert index.touching((10.01, 0, 20, 20)).tolist() == []


def test_large_boxes_do_not_stretch_the_leaves_of_small_ones() -> None:
    boxes = boxes_of(20_000, seed=3)
    index = BoxIndex(boxes)
    sides = (index._boxes[:, 2:] - index._boxes[:, :2]).max(axis=1)
    starts = index._starts
    smallest, largest = np.minimum.reduceat(sides, starts), np.maximum.reduceat(sides, starts)
    mixed = (smallest < 60) & (largest > 1000)
    assert mixed.sum() <= 1  # where one size ends and the next begins
    widths = index._bounds[:, 2] - index._bounds[:, 0]
    assert np.quantile(widths, 0.9) < 3000
