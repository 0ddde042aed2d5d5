"""Non-maximum suppression of one image's boxes: greedy, by class, as Ultralytics has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.core.tensor import Array

MAX_CANDIDATES = 30_000
MAX_DETECTIONS = 300
# Classes are moved this far apart, so that boxes of different ones never meet. Adding it rounds the boxes of high
# classes to a sixteenth of a pixel in float32, which Ultralytics' answers show too.
_APART_PX = 7680
_MOST_PAIRS = 200_000


def nms(
    boxes: Array,
    scores: Array,
    classes: Array,
    *,
    iou: float,
    max_candidates: int = MAX_CANDIDATES,
    max_detections: int = MAX_DETECTIONS,
) -> Array:
    """Positions of the boxes to keep, best first: none overlaps a better one of its class by more than ``iou``.

    Args:
        boxes: float32 of shape (n, 4): x0, y0, x1, y1.
        scores: Of shape (n,); of equal ones the first is the better.
        classes: Of shape (n,).
        iou: Intersection over union above which the lesser box goes.
        max_candidates: Only the best so many are looked at.
        max_detections: No more are kept.
    """
    order = np.argsort(-scores, kind="stable")[:max_candidates]
    apart = boxes[order].astype(np.float32) + (classes[order].astype(np.float32) * np.float32(_APART_PX))[:, None]
    sides = _Sides.of(apart)
    better, worse = _meeting(sides)
    kept = (
        _one_by_one(sides, iou, max_detections)
        if better is None or worse is None
        else _by_pairs(sides, better, worse, iou)[:max_detections]
    )
    chosen: Array = order[kept]
    return chosen


@dataclass(frozen=True, slots=True, eq=False)
class _Sides:
    """Boxes by their sides, the best first."""

    x0: Array
    y0: Array
    x1: Array
    y1: Array
    areas: Array

    @classmethod
    def of(cls, boxes: Array) -> _Sides:
        x0, y0, x1, y1 = np.ascontiguousarray(boxes.T)
        return cls(x0, y0, x1, y1, (x1 - x0) * (y1 - y0))

    def overlaps(self, ones: Any, others: Array) -> Array:
        """Intersection over union; not a number where neither has an area."""
        width = np.minimum(self.x1[ones], self.x1[others]) - np.maximum(self.x0[ones], self.x0[others])
        height = np.minimum(self.y1[ones], self.y1[others]) - np.maximum(self.y0[ones], self.y0[others])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Array = shared / (self.areas[ones] + self.areas[others] - shared)
        return found


def _meeting(sides: _Sides) -> tuple[Array | None, Array | None]:
    """Every pair whose boxes share columns of pixels, the better box first; nothing where these are too many."""
    by_x = np.argsort(sides.x0, kind="stable")
    first = np.arange(len(by_x))
    counts = np.maximum(np.searchsorted(sides.x0[by_x], sides.x1[by_x], side="left") - first - 1, 0)
    total = int(counts.sum())
    if total > _MOST_PAIRS:
        return None, None
    left = np.repeat(first, counts)
    right = left + 1 + np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    ones, others = by_x[left], by_x[right]
    return np.minimum(ones, others), np.maximum(ones, others)


def _by_pairs(sides: _Sides, better: Array, worse: Array, iou: float) -> Array:
    """The greedy choice in few steps: at once all boxes that no better one is left to hide."""
    hiding = sides.overlaps(better, worse) > iou
    better, worse = better[hiding], worse[hiding]
    left = np.ones(len(sides.x0), np.bool_)
    kept = np.zeros(len(left), np.bool_)
    while len(better):
        free = left.copy()
        free[worse] = False
        kept |= free
        left[worse[free[better]]] = False
        left &= ~free
        open_still = left[better] & left[worse]
        better, worse = better[open_still], worse[open_still]
    return np.flatnonzero(kept | left)


def _one_by_one(sides: _Sides, iou: float, most: int) -> Array:
    """The greedy choice as it is defined; for crowds, where it ends early."""
    left = np.arange(len(sides.x0))
    kept: list[int] = []
    while len(left) and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[~(sides.overlaps(best, left) > iou)]
    return np.array(kept, np.int64)
