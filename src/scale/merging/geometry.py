"""Arithmetic on pairs of boxes, in float64 so that every way to compute it rounds alike."""

from __future__ import annotations

import numpy as np

from redline.core.tensor import Array
from scale.merging.found import BOTTOM, LEFT, RIGHT, TOP


def areas(boxes: Array) -> Array:
    """Areas of boxes."""
    product: Array = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return product


def shared_areas(a: Array, b: Array) -> Array:
    """The area that each of ``a`` shares with its counterpart in ``b``."""
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    product: Array = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    return product


def ious(a: Array, b: Array) -> Array:
    """Intersection over union of each of ``a`` and its counterpart in ``b``; 0 where neither has an area."""
    shared = shared_areas(a, b)
    whole = areas(a) + areas(b) - shared
    ratio: Array = np.divide(shared, whole, out=np.zeros(len(shared)), where=whole > 0)
    return ratio


def match(a: Array, b: Array, *, threshold: float, of_smaller: bool) -> Array:
    """Whether the shared area exceeds a share of the two together, or of the smaller one."""
    shared, a_areas, b_areas = shared_areas(a, b), areas(a), areas(b)
    whole = np.minimum(a_areas, b_areas) if of_smaller else a_areas + b_areas - shared
    exceeded: Array = shared > threshold * whole
    return exceeded


def agree(a: Array, a_cuts: Array, b: Array, b_cuts: Array, *, threshold: float, reach_px: float) -> Array:
    """Whether two cut boxes agree on what both windows could see, so that they are pieces of one object.

    A box that its window's edge cuts ends there, which is all that must be known of the window: what the other box
    has beyond that edge is left out of the comparison.

    Args:
        a: The first of each pair.
        a_cuts: Its cut edges.
        b: The second.
        b_cuts: Its cut edges.
        threshold: Along both axes, the common length over the length of both together must exceed this.
        reach_px: Added to every length: where windows do not overlap, pieces only touch.
    """
    first, second = _within(a, b, b_cuts), _within(b, a, a_cuts)
    good = np.ones(len(a), bool)
    for low, high in ((0, 2), (1, 3)):
        common = np.minimum(first[:, high], second[:, high]) - np.maximum(first[:, low], second[:, low]) + reach_px
        both = np.maximum(first[:, high], second[:, high]) - np.minimum(first[:, low], second[:, low]) + reach_px
        good &= common > threshold * both
    return good


def _within(boxes: Array, others: Array, cuts: Array) -> Array:
    """What of boxes lies on the near side of the edges that cut the others."""
    inside = boxes.copy()
    for side, bit in enumerate((LEFT, TOP, RIGHT, BOTTOM)):
        nearer = np.maximum if bit in (LEFT, TOP) else np.minimum
        inside[:, side] = np.where(cuts & bit, nearer(boxes[:, side], others[:, side]), boxes[:, side])
    # Wholly on the far side: nothing is left, at the edge.
    np.minimum(inside[:, :2], inside[:, 2:], out=inside[:, :2])
    return inside


def decide(count: int, better: Array, lesser: Array, undecided: Array | None = None) -> tuple[Array, Array]:
    """Suppress in rounds: who has no undecided better one stays, its lesser ones go; as one after the other would.

    Args:
        count: How many boxes there are.
        better: Of each pair the one that suppresses the other, if it stays.
        lesser: The other.
        undecided: Those of which more may become known, which stay in no case; None where all is known.

    Returns:
        Who is kept, and who is gone.
    """
    kept, gone = np.zeros(count, bool), np.zeros(count, bool)
    never = np.zeros(count, bool) if undecided is None else undecided
    while True:
        waits = never.copy()
        waits[lesser] = True
        new = ~waits & ~gone & ~kept
        kept |= new
        going = lesser[kept[better]]
        if not len(going):
            return kept, gone
        gone[going] = True
        still = ~gone[better] & ~gone[lesser]
        better, lesser = better[still], lesser[still]


def leaders_of(count: int, better: Array, lesser: Array) -> Array:
    """For each that is suppressed, where all is known, the first kept one that does it; else itself."""
    _, gone = decide(count, better, lesser)
    by_kept = ~gone[better]
    best = np.full(count, count)
    np.minimum.at(best, lesser[by_kept], better[by_kept])
    return np.where(gone, best, np.arange(count))


def around(boxes: Array, groups: Array) -> Array:
    """The box around each group of boxes; groups are counted from 0, and none is empty."""
    hulls = np.empty((int(groups.max(initial=-1)) + 1, 4))
    hulls[:, :2], hulls[:, 2:] = np.inf, -np.inf
    np.minimum.at(hulls[:, :2], groups, boxes[:, :2])
    np.maximum.at(hulls[:, 2:], groups, boxes[:, 2:])
    return hulls


def components(count: int, i: Array, j: Array) -> Array:
    """The lowest number in each number's connected component, of pairs among ``count`` numbers.

    >>> components(5, np.array([4, 1]), np.array([2, 4])).tolist()
    [0, 1, 1, 3, 1]
    """
    labels = np.arange(count)
    while len(i):
        low = np.minimum(labels[i], labels[j])
        np.minimum.at(labels, labels[i], low)
        np.minimum.at(labels, labels[j], low)
        while not np.array_equal(shorter := labels[labels], labels):
            labels = shorter
        apart = labels[i] != labels[j]
        i, j = i[apart], j[apart]
    return labels
