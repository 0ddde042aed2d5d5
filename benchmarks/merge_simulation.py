"""Slides with known objects, what a detector finds of them in overlapping windows, and what a merge made of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from redline.core.tensor import Array
from redline.detection.results import Detections
from scale.merging.found import BOTTOM, CUT_TOLERANCE_PX, LEFT, RIGHT, TOP, Found
from scale.regions.grid import Grid, Region, inner_edges, overlap_px

LEAST_SIDE_PX = 8.0
WINDOW_PX = 512
#: A detector finds what is visible to more than this share, and is off by so many pixels (standard deviation).
VISIBLE = 0.4
JITTER_PX = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the objects of a slide are like.

    Attributes:
        density: Objects on a square pixel.
        side_px: Mean of their sides.
        spread_px: Standard deviation of their sides.
    """

    density: float
    side_px: float
    spread_px: float


#: As on two slides that were looked at.
CELLS = Kind(density=1.2e-4, side_px=33.0, spread_px=8.0)
#: Most are larger than a fifth of a window, so that no window may see them whole.
GLANDS = Kind(density=4e-6, side_px=150.0, spread_px=40.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A slide.

    Attributes:
        objects: float64 of shape (n, 4), the true boxes.
        found: What the detector gave; no two scores are equal.
        truth: The object that each detection is of.
        grid: The windows.
    """

    objects: Array
    found: Found
    truth: Array
    grid: Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a merge made of a scene.

    Attributes:
        boxes: How many it left.
        recall: Share of the objects with at least one box of their own.
        recall_half: The same, of boxes whose intersection over union with the object is at least a half.
        leftovers: Boxes beyond the first of each object.
    """

    boxes: int
    recall: float
    recall_half: float
    leftovers: int


def random_objects(rng: np.random.Generator, side_px: int, kind: Kind) -> Array:
    """Boxes anywhere on a square slide; they overlap as chance has it."""
    count = max(1, int(rng.poisson(kind.density * side_px**2)))
    sizes = np.maximum(rng.normal(kind.side_px, kind.spread_px, (count, 2)), LEAST_SIDE_PX)
    corners = rng.random((count, 2)) * (side_px - sizes)
    return np.concatenate([corners, corners + sizes], axis=1)


def simulate(
    *,
    side_px: int,
    overlap: float,
    probability: float,
    seed: int = 0,
    kind: Kind = CELLS,
    window_px: int = WINDOW_PX,
    jitter_px: float = JITTER_PX,
) -> Scene:
    """A slide and what is found on it.

    Args:
        side_px: Of the slide.
        overlap: Of windows, a share or pixels.
        probability: That one window finds an object which is visible in it.
        seed: Of everything random.
        kind: Of the objects.
        window_px: Side of a window.
        jitter_px: Standard deviation of every side of a box that is found.
    """
    rng = np.random.default_rng(seed)
    region = Region(name="slide", x0=0, y0=0, width_px=side_px, height_px=side_px)
    grid = Grid(region=region, window_px=window_px, overlap_px=overlap_px(overlap, window_px))
    truth = random_objects(rng, side_px, kind)
    index, row, column = _views(truth, grid)
    starts = np.stack([np.array(grid.columns_x0)[column], np.array(grid.rows_y0)[row]], axis=1).astype(np.float64)
    low, high = np.tile(starts, 2), np.tile(starts + window_px, 2)
    visible = _areas(np.clip(truth[index], low, high)) > VISIBLE * _areas(truth[index])
    seen = visible & (rng.random(len(index)) < probability)
    index, low, high, windows = index[seen], low[seen], high[seen], (row * grid.columns + column)[seen]
    boxes = np.clip(truth[index] + rng.normal(0, jitter_px, (len(index), 4)), low, high)
    boxes = np.stack([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], 1).reshape(-1, 4)
    scores = 0.25 + 0.75 * rng.permutation(len(index)) / max(len(index), 1)
    detections = Detections(
        boxes=boxes.astype(np.float32), scores=scores.astype(np.float32), classes=np.zeros(len(index), np.int32)
    )
    touched = np.zeros(len(index), np.uint8)
    for side, bit in enumerate((LEFT, TOP, RIGHT, BOTTOM)):
        edge = low if bit in (LEFT, TOP) else high
        touched |= np.where(np.abs(boxes[:, side] - edge[:, side]) <= CUT_TOLERANCE_PX, bit, 0).astype(np.uint8)
    inner = inner_edges(grid, np.ones(len(grid), bool))
    return Scene(objects=truth, found=Found(detections, windows, touched & inner[windows]), truth=index, grid=grid)


def judge(scene: Scene, boxes: Array, scores: Array) -> Outcome:
    """Compare what a merge left with the truth.

    Args:
        scene: The slide.
        boxes: That it left.
        scores: Of these: each the score of a detection, by which its object is known, or a mean of several (then the
            object that it overlaps most).
    """
    given = scene.found.detections.scores
    order = np.argsort(given)
    place = np.minimum(np.searchsorted(given[order], scores), len(given) - 1)
    exact = given[order][place] == scores
    owners = np.where(exact, scene.truth[order[place]], -1)
    # A mean may be another one's score by accident: then the boxes do not overlap.
    lost = _ious(boxes, scene.objects[owners]) <= 0
    owners[lost | ~exact] = _nearest(boxes[lost | ~exact], scene.objects)
    half = _ious(boxes, scene.objects[owners]) >= 0.5
    recalled = len(np.unique(owners))
    return Outcome(
        boxes=len(boxes),
        recall=recalled / len(scene.objects),
        recall_half=len(np.unique(owners[half])) / len(scene.objects),
        leftovers=len(boxes) - recalled,
    )


def rows_of(scene: Scene) -> list[tuple[Found, float]]:
    """What was found in each row of windows, and the top of the next one."""
    tops = [*scene.grid.rows_y0[1:], float("inf")]
    row = scene.found.windows // scene.grid.columns
    return [(scene.found.take(np.flatnonzero(row == index)), float(top)) for index, top in enumerate(tops)]


def _views(objects: Array, grid: Grid) -> tuple[Array, Array, Array]:
    """Every pair of an object and a window in which something of it lies: the object, the row, the column."""
    size = grid.window_px
    xs, ys = np.array(grid.columns_x0), np.array(grid.rows_y0)
    first_x, last_x = np.searchsorted(xs + size, objects[:, 0], "right"), np.searchsorted(xs, objects[:, 2], "left")
    first_y, last_y = np.searchsorted(ys + size, objects[:, 1], "right"), np.searchsorted(ys, objects[:, 3], "left")
    wide = last_x - first_x
    counts = wide * (last_y - first_y)
    index = np.repeat(np.arange(len(objects)), counts)
    place = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    return index, first_y[index] + place // wide[index], first_x[index] + place % wide[index]


def _areas(boxes: Array) -> Array:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _ious(a: Array, b: Array) -> Array:
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    return shared / np.maximum(_areas(a) + _areas(b) - shared, 1e-9)


def _nearest(boxes: Array, objects: Array) -> Array:
    """The object that each box overlaps most."""
    from scale.merging.nms_grid import best_kernels

    boxes = np.ascontiguousarray(boxes, np.float64)
    i, j = best_kernels().touching(boxes, objects)
    order = np.lexsort((-_ious(boxes[i], objects[j]), i))
    chosen = np.zeros(len(boxes), np.int64)
    chosen[i[order][::-1]] = j[order][::-1]
    return chosen
