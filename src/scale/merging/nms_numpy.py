"""The loops over boxes as operations on whole arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from redline.core.tensor import Array
from scale.merging.cells import Cells, cells_over
from scale.merging.geometry import ious, leaders_of, match

_BLOCK_PAIRS = 1 << 21


class NumpyKernels:
    """What is needed where there is no numba."""

    name = "numpy"

    def suppress(self, boxes: Array, windows: Array, *, threshold: float, of_smaller: bool, apart: bool) -> Array:
        """See :class:`scale.merging.nms_grid.Kernels`."""
        better, lesser = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
        for i, j in _blocks(boxes, boxes, 0.0):
            hit = match(boxes[i], boxes[j], threshold=threshold, of_smaller=of_smaller)
            if apart:
                hit &= windows[i] != windows[j]
            better.append(np.minimum(i[hit], j[hit]).astype(np.int32))
            lesser.append(np.maximum(i[hit], j[hit]).astype(np.int32))
        return leaders_of(len(boxes), np.concatenate(better), np.concatenate(lesser))

    def one_to_one(self, boxes: Array, windows: Array, *, threshold: float) -> Array:
        """See :class:`scale.merging.nms_grid.Kernels`."""
        firsts, seconds, alike = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], [np.zeros(0)]
        for i, j in _blocks(boxes, boxes, 0.0):
            likeness = ious(boxes[i], boxes[j])
            hit = (likeness > threshold) & (windows[i] != windows[j])
            firsts.append(i[hit].astype(np.int32))
            seconds.append(j[hit].astype(np.int32))
            alike.append(likeness[hit])
        i, j, likeness = np.concatenate(firsts), np.concatenate(seconds), np.concatenate(alike)
        chosen = self.mutual(i, j, likeness, windows)
        return leaders_of(len(boxes), i[chosen], j[chosen])

    def mutual(self, i: Array, j: Array, likeness: Array, windows: Array) -> Array:
        """See :class:`scale.merging.nms_grid.Kernels`."""
        both_ways = np.concatenate([i, j]), np.concatenate([j, i])
        best = _best_of_window(*both_ways, np.tile(likeness, 2), windows)
        both: Array = best[: len(i)] & best[len(i) :]
        return both

    def touching(self, a: Array, b: Array, *, reach_px: float = 0.0) -> tuple[Array, Array]:
        """See :class:`scale.merging.nms_grid.Kernels`."""
        blocks = list(_blocks(a, b, reach_px))
        none = np.zeros(0, np.int64)
        return np.concatenate([none, *(i for i, _ in blocks)]), np.concatenate([none, *(j for _, j in blocks)])


def _best_of_window(i: Array, j: Array, likeness: Array, windows: Array) -> Array:
    """Of the pairs (i, j), those whose j is the most like i of all in j's window; of equal ones the first."""
    if not len(i):
        return np.zeros(0, bool)
    names, local = np.unique(windows, return_inverse=True)
    groups = i * np.int64(len(names)) + local[j]
    order = np.argsort(groups)
    ranked = groups[order]
    starts = np.flatnonzero(np.insert(ranked[1:] != ranked[:-1], 0, True))
    sizes = np.diff(np.append(starts, len(ranked)))
    most = np.maximum.reduceat(likeness[order], starts)
    ones = np.where(likeness[order] == np.repeat(most, sizes), j[order], len(windows))
    best = np.zeros(len(order), bool)
    best[order] = ones == np.repeat(np.minimum.reduceat(ones, starts), sizes)
    return best


def _blocks(a: Array, b: Array, reach_px: float) -> Iterator[tuple[Array, Array]]:
    """Pairs that touch, a bounded number at a time; a pair counts in the first cell that both lie in."""
    if not len(a) or not len(b):
        return
    same = a is b
    margin = np.array([-reach_px, -reach_px, 0.0, 0.0])
    near_a = a + margin
    near_b = near_a if same else b + margin
    cells = cells_over(near_b)
    cell_a, index_a, corner_a = _spread(near_a, cells)
    cell_b, index_b, corner_b = (cell_a, index_a, corner_a) if same else _spread(near_b, cells)
    order = np.argsort(cell_b, kind="stable")
    cell_b, index_b, corner_b = cell_b[order], index_b[order], corner_b[order]
    first = np.searchsorted(cell_b, cell_a, side="left")
    counts = np.searchsorted(cell_b, cell_a, side="right") - first
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        end = max(int(np.searchsorted(ends, done + _BLOCK_PAIRS, side="right")), start + 1)
        chosen = np.repeat(np.arange(start, end), counts[start:end])
        steps = np.arange(len(chosen)) - (ends[chosen] - counts[chosen] - done)
        other = first[chosen] + steps
        i, j = index_a[chosen], index_b[other]
        # Bits 1 and 2: this is the first column, the first row, of one's own cells.
        good = (corner_a[chosen] | corner_b[other]) == 3
        if same:
            good &= i < j
        i, j = i[good], j[good]
        gap_x = np.maximum(a[i, 0], b[j, 0]) - np.minimum(a[i, 2], b[j, 2])
        gap_y = np.maximum(a[i, 1], b[j, 1]) - np.minimum(a[i, 3], b[j, 3])
        near = (gap_x <= reach_px) & (gap_y <= reach_px)
        yield i[near], j[near]
        start = end


def _spread(boxes: Array, cells: Cells) -> tuple[Array, Array, Array]:
    """Every cell that every box lies in: the cell, the box, and whether it is in the box's first column and row."""
    column0, row0, column1, row1 = cells.spans(boxes)
    wide = column1 - column0 + 1
    counts = wide * (row1 - row0 + 1)
    index = np.repeat(np.arange(len(boxes)), counts)
    place = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    column, row = place % wide[index], place // wide[index]
    cell = (row0[index] + row) * cells.columns + column0[index] + column
    return cell, index, (column == 0) + 2 * (row == 0)
