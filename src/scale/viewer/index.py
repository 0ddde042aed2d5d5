"""Which boxes touch a rectangle, without looking at all of them."""

from __future__ import annotations

import numpy as np

from redline.core.tensor import Array

__all__ = ["BoxIndex", "Rectangle"]

#: x0, y0, x1, y1 in level-0 pixels.
Rectangle = tuple[float, float, float, float]

_LEAF = 64


class BoxIndex:
    """Boxes in leaves of 64 neighbours, each leaf with the rectangle around it.

    Sort-tile-recursive, with one level: a million boxes are 16,000 leaves, which NumPy compares in microseconds. Boxes
    are put into leaves with others of their size, so that one outline of a whole gland does not stretch the leaf of
    its cells.

    >>> boxes = np.array([[0, 0, 10, 10], [90, 90, 99, 99], [5, 5, 95, 95]], np.float32)
    >>> sorted(BoxIndex(boxes).touching((0, 0, 4, 4)).tolist())
    [0]
    >>> sorted(BoxIndex(boxes).touching((8, 8, 20, 20)).tolist())
    [0, 2]
    """

    def __init__(self, boxes: Array) -> None:
        self._order = _sorted_into_leaves(boxes)
        self._boxes = boxes[self._order]
        self._starts = np.arange(0, len(boxes), _LEAF)
        if len(boxes):
            low = np.minimum.reduceat(self._boxes[:, :2], self._starts, axis=0)
            high = np.maximum.reduceat(self._boxes[:, 2:], self._starts, axis=0)
            self._bounds = np.concatenate([low, high], axis=1)
        else:
            self._bounds = np.empty((0, 4), np.float32)

    def touching(self, rectangle: Rectangle) -> Array:
        """The positions of the boxes that share a point with ``rectangle``, in no order."""
        leaves = self._starts[_touch(self._bounds, rectangle)]
        if not len(leaves):
            return np.empty(0, np.int64)
        places = (leaves[:, None] + np.arange(_LEAF)).ravel()
        places = places[places < len(self._boxes)]  # the last leaf need not be full
        found: Array = self._order[places[_touch(self._boxes[places], rectangle)]]
        return found


def _touch(boxes: Array, rectangle: Rectangle) -> Array:
    x0, y0, x1, y1 = rectangle
    return (boxes[:, 0] <= x1) & (boxes[:, 2] >= x0) & (boxes[:, 1] <= y1) & (boxes[:, 3] >= y0)


def _sorted_into_leaves(boxes: Array) -> Array:
    """An order in which each 64 are neighbours of about one size."""
    if not len(boxes):
        return np.empty(0, np.int64)
    sides = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), 1.0)
    sizes = (np.log2(sides) / 2).astype(np.int32)  # fourfold steps
    x, y = boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    order = np.lexsort((x, sizes))
    slabs = np.empty(len(boxes), np.int64)
    begin = 0
    for number in np.bincount(sizes):
        tall = _LEAF * max(1, int(np.ceil(np.sqrt(number / _LEAF))))
        slabs[begin : begin + number] = begin + np.arange(number) // tall * tall
        begin += number
    return order[np.lexsort((y[order], slabs))]
