"""Masks of a model that segments, as polygons: prototypes mixed, enlarged, cropped to the box, outlined."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.core.tensor import Array
from redline.detection.letterbox import opencv
from redline.detection.results import Polygons


def polygons_of(prototypes: Array, shares: Array, boxes: Array, input_hw: tuple[int, int]) -> tuple[Polygons, Array]:
    """The outline of the largest part of each mask, in pixels of the input; and which boxes have a mask at all.

    A mask is enlarged to the input (bilinear), cut at a half and cropped to its box. Only what the box covers is
    enlarged.

    Args:
        prototypes: (count, height, width), usually a quarter of the input's sides.
        shares: (n, count), how much of each prototype a box has.
        boxes: (n, 4), x0, y0, x1, y1 in pixels of the input.
        input_hw: Height and width of the input in pixels.

    Returns:
        Polygons of those boxes that have one, and a mask of booleans of shape (n,) that says which these are.
    """
    cv2 = opencv()
    mixed = prototypes.astype(np.float32, copy=False)
    rings = [_ring(cv2, mixed, share, box, input_hw) for share, box in zip(shares, boxes.tolist(), strict=True)]
    has = np.array([ring is not None for ring in rings], np.bool_)
    return Polygons.of([ring for ring in rings if ring is not None]), has


def _ring(cv2: Any, prototypes: Array, share: Array, box: list[float], input_hw: tuple[int, int]) -> Array | None:
    columns = _Span.of(box[0], box[2], input_hw[1], prototypes.shape[2])
    rows = _Span.of(box[1], box[3], input_hw[0], prototypes.shape[1])
    if columns.end <= columns.start or rows.end <= rows.start:
        return None
    coarse = prototypes[:, rows.first : rows.last, columns.first : columns.last]
    logits = (share @ coarse.reshape(len(share), -1)).reshape(coarse.shape[1:])
    enlarged = cv2.resize(logits, (columns.size, rows.size), interpolation=cv2.INTER_LINEAR)
    inside = enlarged[rows.start - rows.offset : rows.end - rows.offset]
    # The logistic function is above a half where its argument is above zero.
    mask = (inside[:, columns.start - columns.offset : columns.end - columns.offset] > 0).astype(np.uint8)
    contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return None
    largest = max(contours, key=lambda contour: (cv2.contourArea(contour), len(contour))).reshape(-1, 2)
    ring = largest if len(largest) >= 3 else _corners_of(largest)
    points: Array = ring.astype(np.float32) + np.array([columns.start, rows.start], np.float32)
    return points


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """What a box covers of one axis, and which pixels of the prototypes that takes.

    Attributes:
        start: First pixel of the input whose index is within the box.
        end: First pixel behind it.
        first: First pixel of the prototypes that these are mixed from.
        last: First one behind these.
        offset: Where ``first`` begins in the input.
        size: How many pixels of the input ``first`` to ``last`` become.
    """

    start: int
    end: int
    first: int
    last: int
    offset: int
    size: int

    @classmethod
    def of(cls, low: float, high: float, length_px: int, coarse_px: int) -> _Span:
        start, end = (min(max(math.ceil(side), 0), length_px) for side in (low, high))
        factor, rest = divmod(length_px, coarse_px)
        if rest:  # no part of it falls on whole pixels
            return cls(start=start, end=end, first=0, last=coarse_px, offset=0, size=length_px)
        # Bilinear: a pixel is mixed from the two whose middles are nearest.
        first = max(math.floor((start + 0.5) / factor - 0.5), 0)
        last = min(math.floor((end - 0.5) / factor - 0.5) + 2, coarse_px)
        return cls(start=start, end=end, first=first, last=last, offset=first * factor, size=(last - first) * factor)


def _corners_of(points: Array) -> Array:
    """The corners of a mask of a pixel or a line, whose outline is no ring."""
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0) + 1
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
