"""Non-maximum suppression of one image's boxes: greedy, by class, as Ultralytics has it."""

from __future__ import annotations

import numpy as np

from redline.core.tensor import Array

MAX_CANDIDATES = 30_000
MAX_DETECTIONS = 300
# Classes are moved this far apart, so that boxes of different ones never meet. Adding it rounds the boxes of high
# classes to a sixteenth of a pixel in float32, which Ultralytics' answers show too.
_APART_PX = 7680


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
    x0, y0, x1, y1 = np.ascontiguousarray(apart.T)
    areas = (x1 - x0) * (y1 - y0)
    left = np.arange(len(order))
    kept: list[int] = []
    with np.errstate(divide="ignore", invalid="ignore"):  # of two boxes without an area neither hides the other
        while len(left) and len(kept) < max_detections:
            best, left = left[0], left[1:]
            kept.append(int(best))
            width = np.minimum(x1[best], x1[left]) - np.maximum(x0[best], x0[left])
            height = np.minimum(y1[best], y1[left]) - np.maximum(y0[best], y0[left])
            shared = np.maximum(width, 0) * np.maximum(height, 0)
            overlap = shared / (areas[best] + areas[left] - shared)
            left = left[~(overlap > iou)]
    chosen: Array = order[kept] if kept else order[:0]
    return chosen
