"""Detections for the tests of merging: by hand, and strategies for any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from redline.core.tensor import Array
from redline.detection.results import Detections, Polygons
from scale.merging import Found
from scale.regions.grid import Grid, Region, inner_edges

WINDOW_PX = 100


def found_of(*rows: tuple[Sequence[float], float, int, int, int], polygons: Sequence[Array] | None = None) -> Found:
    """Of rows of box, score, class, window and cuts."""
    detections = Detections(
        boxes=np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        scores=np.array([row[1] for row in rows], np.float32),
        classes=np.array([row[2] for row in rows], np.int32),
        polygons=None if polygons is None else Polygons.of(polygons),
    )
    return Found(detections, np.array([row[3] for row in rows], np.int64), np.array([row[4] for row in rows], np.uint8))


def boxes_of(found: Found) -> list[list[float]]:
    return found.detections.boxes.tolist()


def content(found: Found) -> list[tuple[object, ...]]:
    """All that is known of each detection, in an order of its own."""
    rings = found.detections.polygons.rings() if found.detections.polygons is not None else [None] * len(found)
    return sorted(
        (*box, score, index, window, cuts, None if ring is None else ring.tobytes())
        for box, score, index, window, cuts, ring in zip(
            found.detections.boxes.tolist(),
            found.detections.scores.tolist(),
            found.detections.classes.tolist(),
            found.windows.tolist(),
            found.cuts.tolist(),
            rings,
            strict=True,
        )
    )


def grid_of(side_px: int, overlap_px: int) -> Grid:
    region = Region(name="slide", x0=0, y0=0, width_px=side_px, height_px=side_px)
    return Grid(region=region, window_px=WINDOW_PX, overlap_px=overlap_px)


def seen(objects: Array, classes: Array, grid: Grid, *, chance: Array, jitter: Array) -> list[Found]:
    """What is found of objects in each row of windows, where ``chance`` (objects x windows) is true."""
    edges = inner_edges(grid, np.ones(len(grid), bool))
    rows = []
    for row in range(grid.rows):
        parts = []
        for window in grid.row(row):
            low = np.array([window.x0, window.y0] * 2)
            clipped = np.clip(objects + jitter[window.index], low, low + window.size_px)
            wide, high = clipped[:, 2] - clipped[:, 0], clipped[:, 3] - clipped[:, 1]
            visible = (wide > 2) & (high > 2) & chance[:, window.index]
            # Scores with ties: their order must come from elsewhere.
            scores = ((np.arange(len(objects)) * 7 + window.index * 3) % 10 + 1) / 10
            detections = Detections(
                boxes=clipped[visible].astype(np.float32),
                scores=scores[visible].astype(np.float32),
                classes=classes[visible].astype(np.int32),
            )
            parts.append(Found.in_window(detections, window, inner=int(edges[window.index])))
        rows.append(Found.concatenate(parts))
    return rows


def with_outlines(found: Found) -> Found:
    """The same with an octagon in each box."""
    x0, y0, x1, y1 = found.detections.boxes.T
    a, b = (x1 - x0) / 4, (y1 - y0) / 4
    xs = np.stack([x0 + a, x1 - a, x1, x1, x1 - a, x0 + a, x0, x0], 1)
    ys = np.stack([y0, y0, y0 + b, y1 - b, y1, y1, y1 - b, y0 + b], 1)
    polygons = Polygons.of(list(np.stack([xs, ys], axis=2)))
    old = found.detections
    detections = Detections(boxes=old.boxes, scores=old.scores, classes=old.classes, polygons=polygons)
    return Found(detections, found.windows, found.cuts)


@st.composite
def slides(draw: st.DrawFn) -> tuple[list[Found], Grid]:
    """Rows of windows over a small slide with objects of two classes, from tiny to larger than a window."""
    grid = grid_of(draw(st.sampled_from([100, 250, 320])), draw(st.sampled_from([0, 20, 60])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 60))
    sizes = rng.choice([8.0, 15.0, 30.0, 120.0], (count, 2), p=[0.3, 0.4, 0.2, 0.1])
    starts = rng.uniform(0, np.maximum(grid.region.width_px - sizes, 1))
    objects = np.concatenate([starts, starts + sizes], axis=1).round(draw(st.sampled_from([0, 3])))
    chance = rng.random((count, len(grid))) < draw(st.sampled_from([0.7, 1.0]))
    jitter = rng.normal(0, 1, (len(grid), count, 4)) * draw(st.sampled_from([0.0, 0.3]))
    jitter[..., 2:] = np.abs(jitter[..., 2:])
    jitter[..., :2] = -np.abs(jitter[..., :2])
    rows = seen(objects, rng.integers(0, 2, count), grid, chance=chance, jitter=jitter)
    return rows, grid


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[Found], Grid]:
    """Rows of windows in which boxes lie anywhere, over and over each other, as a model that is not trained gives."""
    grid = grid_of(draw(st.sampled_from([250, 400])), draw(st.sampled_from([0, 20, 60])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    each, side_px = draw(st.sampled_from([1, 4, 12])), draw(st.sampled_from([10, 40, 90]))
    return [crowd_row(grid, row, rng, each=each, side_px=side_px) for row in range(grid.rows)], grid


def crowd_row(grid: Grid, row: int, rng: np.random.Generator, *, each: int, side_px: int) -> Found:
    """So many boxes in each window of a row, of three classes, up to a side."""
    edges = inner_edges(grid, np.ones(len(grid), bool))
    parts = []
    for window in grid.row(row):
        low = np.array([window.x0, window.y0])
        starts = rng.integers(0, window.size_px, (each, 2)) + low
        ends = np.minimum(starts + rng.integers(1, side_px, (each, 2)), low + window.size_px)
        detections = Detections(
            boxes=np.concatenate([starts, ends], axis=1).astype(np.float32),
            scores=(rng.integers(1, 50, each) / 50).astype(np.float32),
            classes=rng.integers(0, 3, each).astype(np.int32),
        )
        parts.append(Found.in_window(detections, window, inner=int(edges[window.index])))
    return Found.concatenate(parts)
