"""Detections to write: seeded, of several classes, with and without outlines."""

from __future__ import annotations

import numpy as np

from redline.core.tensor import Array
from redline.detection.results import Detections, Polygons
from scale.outputs import SlideInfo

INFO = SlideInfo(
    name="CMU-1.svs",
    width_px=40_000,
    height_px=30_000,
    mpp=0.499,
    class_names=("Plasma cells", 'Größe, "x"', "Plasma cells"),
    models=("cells", "sizes", "cells-2"),
)


def detections(count: int = 500, *, seed: int = 0, outlines: bool = True, sure: float = 3.0) -> Detections:
    """Boxes of 5 to 60 px; of those with an odd number the outline is a hexagon, of the others there is none."""
    random = np.random.default_rng(seed)
    starts = random.random((count, 2)) * (INFO.width_px - 60, INFO.height_px - 60)
    boxes = np.hstack([starts, starts + 5 + random.random((count, 2)) * 55]).astype(np.float32)
    return Detections(
        boxes=boxes,
        scores=(random.random(count) ** sure).astype(np.float32),
        classes=random.integers(0, len(INFO.class_names), count).astype(np.int32),
        polygons=Polygons.of([hexagon(box) if index % 2 else [] for index, box in enumerate(boxes)])
        if outlines
        else None,
    )


def hexagon(box: Array) -> Array:
    """A hexagon that touches all sides of a box."""
    x0, y0, x1, y1 = box.tolist()
    x, width = (x0 + x1) / 2, x1 - x0
    return np.array(
        [[x0, (y0 + y1) / 2], [x - width / 4, y0], [x + width / 4, y0], [x1, (y0 + y1) / 2], [x, y1], [x0, y1 - 1]],
        np.float32,
    )


def one(box: tuple[float, float, float, float], outline: list[tuple[float, float]] | None = None) -> Detections:
    """A single object of the first class."""
    return Detections(
        boxes=np.array([box], np.float32),
        scores=np.array([0.9], np.float32),
        classes=np.zeros(1, np.int32),
        polygons=None if outline is None else Polygons.of([np.array(outline)]),
    )


def in_pieces(found: Detections, size: int) -> list[Detections]:
    """The same, cut."""
    return [found.take(np.arange(start, min(start + size, len(found)))) for start in range(0, len(found), size)]


def assert_same(got: Detections, expected: Detections, *, within_px: float = 0) -> None:
    """Equal in their order, outlines included."""
    np.testing.assert_allclose(got.boxes, expected.boxes, rtol=0, atol=within_px)
    np.testing.assert_array_equal(got.scores, expected.scores)
    np.testing.assert_array_equal(got.classes, expected.classes)
    assert (got.polygons is None) == (expected.polygons is None)
    if got.polygons is not None and expected.polygons is not None:
        np.testing.assert_array_equal(got.polygons.offsets, expected.polygons.offsets)
        np.testing.assert_allclose(got.polygons.points, expected.polygons.points, rtol=0, atol=within_px)
