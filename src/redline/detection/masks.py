"""Masks of a model that segments, as polygons: prototypes mixed, cropped to the box, enlarged, outlined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from redline.core.tensor import Array
from redline.detection.letterbox import opencv
from redline.detection.results import Polygons


def polygons_of(prototypes: Array, shares: Array, boxes: Array, input_hw: tuple[int, int]) -> tuple[Polygons, Array]:
    """The outline of the largest part of each mask, in pixels of the input; and which boxes have a mask at all.

    A mask is cropped at the resolution of the prototypes and enlarged after that (bilinear), as Ultralytics does it
    by default. Only the box is enlarged, as the rest is zero.

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
    scale_y, scale_x = mixed.shape[1] / input_hw[0], mixed.shape[2] / input_hw[1]
    scaled = boxes * np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
    rings = [_ring(cv2, mixed, share, box, input_hw) for share, box in zip(shares, scaled, strict=True)]
    has = np.array([ring is not None for ring in rings], np.bool_)
    return Polygons.of([ring for ring in rings if ring is not None]), has


def _ring(cv2: Any, prototypes: Array, share: Array, box: Array, input_hw: tuple[int, int]) -> Array | None:
    height, width = prototypes.shape[1:]
    x0, y0, x1, y1 = (min(max(math.ceil(side), 0), limit) for side, limit in zip(box, (width, height) * 2, strict=True))
    if x1 <= x0 or y1 <= y0:
        return None
    # One pixel of zeros around it, where there is something around it: the edge of the crop is enlarged too.
    left, top, right, bottom = max(x0 - 1, 0), max(y0 - 1, 0), min(x1 + 1, width), min(y1 + 1, height)
    logits = np.zeros((bottom - top, right - left), np.float32)
    inside = prototypes[:, y0:y1, x0:x1].reshape(len(share), -1)
    logits[y0 - top : y1 - top, x0 - left : x1 - left] = (share @ inside).reshape(y1 - y0, x1 - x0)
    from_x, to_x = round(left * input_hw[1] / width), round(right * input_hw[1] / width)
    from_y, to_y = round(top * input_hw[0] / height), round(bottom * input_hw[0] / height)
    enlarged = cv2.resize(logits, (to_x - from_x, to_y - from_y), interpolation=cv2.INTER_LINEAR)
    # The logistic function is above a half where its argument is above zero.
    mask = (enlarged > 0).astype(np.uint8)
    contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return None
    largest = max(contours, key=lambda contour: (cv2.contourArea(contour), len(contour))).reshape(-1, 2)
    ring = largest if len(largest) >= 3 else _corners_of(largest)
    points: Array = ring.astype(np.float32) + np.array([from_x, from_y], np.float32)
    return points


def _corners_of(points: Array) -> Array:
    """The corners of a mask of a pixel or a line, whose outline is no ring."""
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0) + 1
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
