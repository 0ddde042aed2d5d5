"""Non-maximum suppression of the boxes of a batch: greedy, by image and class, as Ultralytics has it.

All images are done together: a call of NumPy takes longer to begin than to compare the boxes of one image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from redline.core.tensor import Array

MAX_CANDIDATES = 30_000
MAX_DETECTIONS = 300
#: Classes are moved this far apart, so that boxes of different ones never meet. Adding it rounds the boxes of high
#: classes to a sixteenth of a pixel in float32, which Ultralytics' answers show too.
APART_PX = 7680
# An image with more is done box by box; images with no more than these in all are done together.
_MOST_PAIRS = 200_000
# Images whose boxes lie further apart than this, which only broken models give, are done one by one.
_WIDEST_PX = 2.0**30


class Suppression(Protocol):
    """What computes as :func:`nms` does."""

    def __call__(
        self,
        boxes: Array,
        scores: Array,
        classes: Array,
        /,
        *,
        iou: float,
        images: Array | None = None,
        max_candidates: int = MAX_CANDIDATES,
        max_detections: int = MAX_DETECTIONS,
    ) -> Array:
        """The positions that :func:`nms` gives."""
        ...


def nms(
    boxes: Array,
    scores: Array,
    classes: Array,
    *,
    iou: float,
    images: Array | None = None,
    max_candidates: int = MAX_CANDIDATES,
    max_detections: int = MAX_DETECTIONS,
) -> Array:
    """Positions of the boxes to keep, image by image, the best of each first.

    None overlaps a better one of its image and class by more than ``iou``.

    Args:
        boxes: float32 of shape (n, 4): x0, y0, x1, y1.
        scores: Of shape (n,); of equal ones the first is the better.
        classes: Of shape (n,).
        iou: Intersection over union above which the lesser box goes.
        images: The image that each is of, of shape (n,), rising; all are of one where it is None.
        max_candidates: Only the best so many of an image are looked at.
        max_detections: No more of an image are kept.
    """
    owners = np.zeros(len(boxes), np.int64) if images is None else images
    order = best_first(scores, owners, max_candidates)
    owners = owners[order]
    apart = boxes[order].astype(np.float32) + (classes[order].astype(np.float32) * np.float32(APART_PX))[:, None]
    kept = np.zeros(len(order), np.bool_)
    for part in _parts(_Sides.of(apart), owners):
        crowd = part.pairs > _MOST_PAIRS
        chosen = _one_by_one(part.sides, iou, max_detections) if crowd else _by_pairs(part, iou)
        kept[part.start + chosen] = True
    left = np.flatnonzero(kept)
    found: Array = order[left[_rank(owners[left]) < max_detections]]
    return found


def best_first(scores: Array, images: Array, most: int) -> Array:
    """Positions image by image, the best of each first, of equal ones the first; no more than so many of an image."""
    order = np.lexsort((-scores, images))
    found: Array = order[_rank(images[order]) < most]
    return found


def _rank(images: Array) -> Array:
    """How many of the same image are before each; ``images`` rises."""
    ranks: Array = np.arange(len(images)) - np.searchsorted(images, images)
    return ranks


@dataclass(frozen=True, slots=True, eq=False)
class _Sides:
    """Boxes by their sides, image by image, the best of each first."""

    x0: Array
    y0: Array
    x1: Array
    y1: Array
    areas: Array

    @classmethod
    def of(cls, boxes: Array) -> _Sides:
        x0, y0, x1, y1 = np.ascontiguousarray(boxes.T)
        return cls(x0, y0, x1, y1, (x1 - x0) * (y1 - y0))

    def part(self, start: int, end: int) -> _Sides:
        return _Sides(*(getattr(self, name)[start:end] for name in self.__slots__))

    def overlaps(self, ones: Any, others: Array) -> Array:
        """Intersection over union; not a number where neither has an area."""
        width = np.minimum(self.x1[ones], self.x1[others]) - np.maximum(self.x0[ones], self.x0[others])
        height = np.minimum(self.y1[ones], self.y1[others]) - np.maximum(self.y0[ones], self.y0[others])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Array = shared / (self.areas[ones] + self.areas[others] - shared)
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """Some images, or one that has many pairs.

    Attributes:
        start: Position of the first box among all.
        sides: Of its boxes.
        by_x: Positions of its boxes by image and left edge.
        met: Of each in that order, how many of those that follow it share columns of pixels with it.
    """

    start: int
    sides: _Sides
    by_x: Array
    met: Array

    @property
    def pairs(self) -> int:
        return int(self.met.sum())

    def meeting(self) -> tuple[Array, Array]:
        """Every pair whose boxes share pixels, the better box first."""
        first = np.arange(len(self.by_x))
        left = np.repeat(first, self.met)
        right = left + 1 + np.arange(len(left)) - np.repeat(np.cumsum(self.met) - self.met, self.met)
        y0, y1 = self.sides.y0[self.by_x], self.sides.y1[self.by_x]
        share_rows = np.flatnonzero((y0[left] < y1[right]) & (y0[right] < y1[left]))
        ones, others = self.by_x[left[share_rows]], self.by_x[right[share_rows]]
        return np.minimum(ones, others), np.maximum(ones, others)


def _parts(sides: _Sides, images: Array) -> Iterator[_Part]:
    """All boxes, in parts that have few pairs or are of one image."""
    if not len(images):
        return
    starts = np.flatnonzero(np.diff(images, prepend=-1))
    reach = (min(sides.x0.min(), sides.x1.min()), max(sides.x0.max(), sides.x1.max()))
    step = float(reach[1]) - float(reach[0]) + 1.0
    if len(starts) > 1 and not step < _WIDEST_PX:
        for start, end in pairwise([*starts.tolist(), len(images)]):
            for part in _parts(sides.part(start, end), np.zeros(end - start, np.int64)):
                yield replace(part, start=start)
        return
    # Images side by side: a box meets those of its own only. What rounding adds is compared for nothing.
    moved = np.cumsum(np.diff(images, prepend=images[0]) > 0) * step
    x0, x1 = sides.x0 + moved, sides.x1 + moved
    by_x = np.argsort(x0, kind="stable")
    after = np.searchsorted(x0[by_x], x1[by_x], side="right")
    met = np.maximum(after - np.arange(len(by_x)) - 1, 0)
    for start, end in _together(starts.tolist(), np.add.reduceat(met, starts).tolist(), len(images)):
        yield _Part(start=start, sides=sides.part(start, end), by_x=by_x[start:end] - start, met=met[start:end])


def _together(starts: list[int], pairs: list[int], end: int) -> Iterator[tuple[int, int]]:
    """From where to where images have few pairs in all; one with many is alone."""
    first, total = starts[0], 0
    for start, count in zip(starts, pairs, strict=True):
        if start > first and total + count > _MOST_PAIRS:
            yield first, start
            first, total = start, 0
        total += count
    yield first, end


def _by_pairs(part: _Part, iou: float) -> Array:
    """The greedy choice in few steps: at once all boxes that no better one is left to hide."""
    better, worse = part.meeting()
    hiding = part.sides.overlaps(better, worse) > iou
    better, worse = better[hiding], worse[hiding]
    left = np.ones(len(part.by_x), np.bool_)
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
