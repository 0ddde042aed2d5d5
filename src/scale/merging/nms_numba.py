"""The loops over boxes, compiled by numba."""

from __future__ import annotations

import numba
import numpy as np

from redline.core.tensor import Array
from scale.merging.cells import cells_over


class NumbaKernels:
    """What numba compiles at the first call, then reads from its cache on the disk."""

    name = "numba"

    def suppress(self, boxes: Array, windows: Array, *, threshold: float, of_smaller: bool, apart: bool) -> Array:
        """See :class:`scale.merging.nms_grid.Kernels`."""
        cells = cells_over(boxes)
        spans = np.stack(cells.spans(boxes), axis=1).astype(np.int32)
        held = int(((spans[:, 2] - spans[:, 0] + 1) * (spans[:, 3] - spans[:, 1] + 1)).sum())
        heads = np.full(cells.columns * cells.rows, -1, np.int32)
        boxes, windows = np.ascontiguousarray(boxes), np.ascontiguousarray(windows)
        leaders: Array = _suppress(boxes, windows, spans, cells.columns, heads, held, threshold, of_smaller, apart)
        return leaders

    def one_to_one(self, boxes: Array, windows: Array, *, threshold: float) -> Array:
        """See :class:`scale.merging.nms_grid.Kernels`."""
        cells = cells_over(boxes)
        spans = np.stack(cells.spans(boxes), axis=1).astype(np.int32)
        starts, members = _fill(spans, cells.columns, cells.columns * cells.rows)
        boxes, windows = np.ascontiguousarray(boxes), np.ascontiguousarray(windows)
        leaders: Array = _one_to_one(boxes, windows, spans, cells.columns, starts, members, threshold)
        return leaders

    def mutual(self, i: Array, j: Array, likeness: Array, windows: Array) -> Array:
        """See :class:`scale.merging.nms_grid.Kernels`."""
        if not len(i):
            return np.zeros(0, bool)
        both_ways = np.concatenate([i, j]), np.concatenate([j, i])
        first = int(windows.min())
        best = _bests(*both_ways, np.tile(likeness, 2), windows - first, int(windows.max()) - first + 1)
        both: Array = best[: len(i)] & best[len(i) :]
        return both

    def touching(self, a: Array, b: Array, *, reach_px: float = 0.0) -> tuple[Array, Array]:
        """See :class:`scale.merging.nms_grid.Kernels`."""
        if not len(a) or not len(b):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        margin = np.array([-reach_px, -reach_px, 0.0, 0.0])
        near_a, near_b = a + margin, b + margin
        cells = cells_over(near_b)
        spans_a = np.stack(cells.spans(near_a), axis=1).astype(np.int32)
        spans_b = spans_a if a is b else np.stack(cells.spans(near_b), axis=1).astype(np.int32)
        starts, members = _fill(spans_b, cells.columns, cells.columns * cells.rows)
        a, b, same = np.ascontiguousarray(a), np.ascontiguousarray(b), a is b
        none = np.zeros((0, 2), np.int64)
        count = _pairs(a, b, spans_a, spans_b, cells.columns, starts, members, reach_px, same, none)
        pairs = np.empty((count, 2), np.int64)
        _pairs(a, b, spans_a, spans_b, cells.columns, starts, members, reach_px, same, pairs)
        return pairs[:, 0], pairs[:, 1]


@numba.njit(cache=True, nogil=True)
def _suppress(boxes, windows, spans, columns, heads, held, threshold, of_smaller, apart):  # type: ignore[no-untyped-def]
    # Kept boxes stand in lists, one for each cell: heads, then links, of places in owners.
    count = len(boxes)
    links = np.empty(held, np.int32)
    owners = np.empty(held, np.int32)
    leaders = np.empty(count, np.int64)
    used = 0
    for i in range(count):
        x0, y0, x1, y1 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        area = (x1 - x0) * (y1 - y0)
        best = count
        for row in range(spans[i, 1], spans[i, 3] + 1):
            for column in range(spans[i, 0], spans[i, 2] + 1):
                place = heads[row * columns + column]
                while place >= 0:
                    j = owners[place]
                    place = links[place]
                    if j >= best or (apart and windows[j] == windows[i]):
                        continue
                    width = min(x1, boxes[j, 2]) - max(x0, boxes[j, 0])
                    height = min(y1, boxes[j, 3]) - max(y0, boxes[j, 1])
                    shared = max(width, 0.0) * max(height, 0.0)
                    other = (boxes[j, 2] - boxes[j, 0]) * (boxes[j, 3] - boxes[j, 1])
                    whole = min(area, other) if of_smaller else area + other - shared
                    if shared > threshold * whole:
                        best = j
        if best < count:
            leaders[i] = best
            continue
        leaders[i] = i
        for row in range(spans[i, 1], spans[i, 3] + 1):
            for column in range(spans[i, 0], spans[i, 2] + 1):
                owners[used] = i
                links[used] = heads[row * columns + column]
                heads[row * columns + column] = used
                used += 1
    return leaders


@numba.njit(cache=True, nogil=True)
def _iou(boxes, i, j):  # type: ignore[no-untyped-def]
    width = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
    height = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
    shared = max(width, 0.0) * max(height, 0.0)
    one = (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1])
    other = (boxes[j, 2] - boxes[j, 0]) * (boxes[j, 3] - boxes[j, 1])
    whole = one + other - shared
    return shared / whole if whole > 0 else 0.0


@numba.njit(cache=True, nogil=True)
def _best_in(i, window, boxes, windows, spans, columns, starts, members, threshold):  # type: ignore[no-untyped-def]
    """The box of a window that is most like box i, of equal ones the first; the number of boxes where there is none."""
    best, best_iou = len(boxes), threshold
    for row in range(spans[i, 1], spans[i, 3] + 1):
        for column in range(spans[i, 0], spans[i, 2] + 1):
            cell = row * columns + column
            for place in range(starts[cell], starts[cell + 1]):
                j = members[place]
                if windows[j] == window:
                    iou = _iou(boxes, i, j)
                    if iou > best_iou or (iou == best_iou and j < best < len(boxes)):
                        best, best_iou = j, iou
    return best


@numba.njit(cache=True, nogil=True)
def _one_to_one(boxes, windows, spans, columns, starts, members, threshold):  # type: ignore[no-untyped-def]
    leaders = np.arange(len(boxes))
    for i in range(len(boxes)):
        if leaders[i] != i:
            continue
        for row in range(spans[i, 1], spans[i, 3] + 1):
            for column in range(spans[i, 0], spans[i, 2] + 1):
                cell = row * columns + column
                for place in range(starts[cell], starts[cell + 1]):
                    j = members[place]
                    if j <= i or leaders[j] != j or windows[j] == windows[i] or _iou(boxes, i, j) <= threshold:
                        continue
                    if _best_in(i, windows[j], boxes, windows, spans, columns, starts, members, threshold) != j:
                        continue
                    if _best_in(j, windows[i], boxes, windows, spans, columns, starts, members, threshold) == i:
                        leaders[j] = i
    return leaders


@numba.njit(cache=True, nogil=True)
def _bests(i, j, likeness, windows, count):  # type: ignore[no-untyped-def]
    """Of the pairs (i, j), those whose j is the most like i of all in j's window; of equal ones the first."""
    starts = np.zeros(len(windows) + 1, np.int64)
    for pair in range(len(i)):
        starts[i[pair] + 1] += 1
    for box in range(len(windows)):
        starts[box + 1] += starts[box]
    ends = starts[:-1].copy()
    pairs = np.empty(len(i), np.int64)
    for pair in range(len(i)):
        pairs[ends[i[pair]]] = pair
        ends[i[pair]] += 1
    owners = np.full(count, -1, np.int64)
    bests = np.empty(count, np.int64)
    chosen = np.zeros(len(i), np.bool_)
    for box in range(len(windows)):
        for place in range(starts[box], starts[box + 1]):
            pair = pairs[place]
            window = windows[j[pair]]
            best = bests[window]
            if (
                owners[window] != box
                or likeness[pair] > likeness[best]
                or (likeness[pair] == likeness[best] and j[pair] < j[best])
            ):
                owners[window], bests[window] = box, pair
        for place in range(starts[box], starts[box + 1]):
            pair = pairs[place]
            chosen[pair] = bests[windows[j[pair]]] == pair
    return chosen


@numba.njit(cache=True, nogil=True)
def _fill(spans, columns, cells):  # type: ignore[no-untyped-def]
    """The boxes of each cell, one cell after the other."""
    starts = np.zeros(cells + 1, np.int64)
    for i in range(len(spans)):
        for row in range(spans[i, 1], spans[i, 3] + 1):
            for column in range(spans[i, 0], spans[i, 2] + 1):
                starts[row * columns + column + 1] += 1
    for cell in range(cells):
        starts[cell + 1] += starts[cell]
    members = np.empty(starts[cells], np.int32)
    next_place = starts[:cells].copy()
    for i in range(len(spans)):
        for row in range(spans[i, 1], spans[i, 3] + 1):
            for column in range(spans[i, 0], spans[i, 2] + 1):
                members[next_place[row * columns + column]] = i
                next_place[row * columns + column] += 1
    return starts, members


@numba.njit(cache=True, nogil=True)
def _pairs(a, b, spans_a, spans_b, columns, starts, members, reach, same, pairs):  # type: ignore[no-untyped-def]
    """How many pairs touch; they are written where there is room. A pair counts in the first cell that both lie in."""
    used = 0
    for i in range(len(a)):
        for row in range(spans_a[i, 1], spans_a[i, 3] + 1):
            for column in range(spans_a[i, 0], spans_a[i, 2] + 1):
                cell = row * columns + column
                for place in range(starts[cell], starts[cell + 1]):
                    j = members[place]
                    if same and j <= i:
                        continue
                    if max(spans_a[i, 0], spans_b[j, 0]) != column or max(spans_a[i, 1], spans_b[j, 1]) != row:
                        continue
                    gap_x = max(a[i, 0], b[j, 0]) - min(a[i, 2], b[j, 2])
                    gap_y = max(a[i, 1], b[j, 1]) - min(a[i, 3], b[j, 3])
                    if gap_x <= reach and gap_y <= reach:
                        if used < len(pairs):
                            pairs[used, 0] = i
                            pairs[used, 1] = j
                        used += 1
    return used
