"""Non-maximum suppression compiled by numba, which other threads of this process go on beside."""

from __future__ import annotations

import numba
import numpy as np

from redline.core.tensor import Array
from redline.detection.nms import APART_PX, MAX_CANDIDATES, MAX_DETECTIONS

_APART_PX = np.float32(APART_PX)
_ZERO = np.float32(0)


def nms_by_numba(
    boxes: Array,
    scores: Array,
    classes: Array,
    *,
    iou: float,
    images: Array | None = None,
    max_candidates: int = MAX_CANDIDATES,
    max_detections: int = MAX_DETECTIONS,
) -> Array:
    """The answers of :func:`redline.detection.nms.nms`; compiled at the first call, then read from the disk."""
    count = len(scores)
    starts = np.zeros(min(count, 1), np.int64) if images is None else np.flatnonzero(np.diff(images, prepend=-1))
    kept: Array = _nms(
        np.ascontiguousarray(boxes, np.float32),
        np.ascontiguousarray(scores, np.float32),
        np.ascontiguousarray(classes, np.float32),
        np.append(starts, count),
        np.float32(iou),
        max_candidates,
        max_detections,
    )
    return kept


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _nms(boxes, scores, classes, borders, iou, max_candidates, max_detections):  # type: ignore[no-untyped-def]
    # All in float32, each step as NumPy's: the answers are the same to the bit.
    chosen = np.empty(len(boxes), np.int64)
    sides = np.empty((len(boxes), 5), np.float32)
    total = 0
    for image in range(len(borders) - 1):
        start, end = borders[image], borders[image + 1]
        order = np.argsort(-scores[start:end], kind="mergesort")
        first = total
        for rank in range(min(end - start, max_candidates)):
            if total - first == max_detections:
                break
            i = start + order[rank]
            moved = classes[i] * _APART_PX
            x0, y0, x1, y1 = boxes[i, 0] + moved, boxes[i, 1] + moved, boxes[i, 2] + moved, boxes[i, 3] + moved
            area = (x1 - x0) * (y1 - y0)
            hidden = False
            for j in range(first, total):
                width = min(x1, sides[j, 2]) - max(x0, sides[j, 0])
                height = min(y1, sides[j, 3]) - max(y0, sides[j, 1])
                if width > _ZERO and height > _ZERO:
                    shared = width * height
                    if shared / (sides[j, 4] + area - shared) > iou:
                        hidden = True
                        break
            if not hidden:
                sides[total, 0], sides[total, 1], sides[total, 2], sides[total, 3] = x0, y0, x1, y1
                sides[total, 4] = area
                chosen[total] = i
                total += 1
    return chosen[:total]
