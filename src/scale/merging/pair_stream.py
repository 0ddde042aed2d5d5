"""Boxes seen whole, row by row: pairs of the same object, and who of them is decided."""

from __future__ import annotations

import numpy as np

from redline.core.tensor import Array
from scale.merging.found import Found
from scale.merging.geometry import around, components, decide, ious, leaders_of, match
from scale.merging.nms_grid import Kernels
from scale.merging.order import by_score

Pairs = tuple[Array, Array]


class PairStream:
    """Holds the boxes that a later row may change, and those whose fate hangs on them.

    Of boxes that suppress each other, the fate of one hangs on better ones alone, so that a crowd is not held to its
    end: what waits is what a path of rising scores leads from down to the next row. Who is whose best match is decided
    when the later one comes, as a window comes whole; so the pairs are kept, not found again.

    Attributes:
        held: The boxes that wait, in any order.
    """

    def __init__(
        self,
        kernels: Kernels,
        *,
        threshold: float | None,
        of_smaller: bool = False,
        apart: bool = True,
        mutual: bool = False,
    ) -> None:
        """See :class:`scale.merging.nms_grid.Kernels` for what a pair is.

        Args:
            kernels: The loops over boxes.
            threshold: Share that the shared area must exceed; None where nothing is a pair.
            of_smaller: Of the smaller box's area, instead of the area of both together.
            apart: Boxes of the same window are no pair.
            mutual: Only boxes of which each is the other's best in its window are a pair.
        """
        self._kernels, self._threshold, self._of_smaller = kernels, threshold, of_smaller
        self._apart, self._mutual = apart, mutual
        self.held = Found.empty()
        none = np.zeros(0, np.int64)
        self._pairs: Pairs = (none, none)

    def add_best(self, found: Found, top_y0: float) -> Found:
        """Take a row; give the best of each object of which it is decided."""
        everything, (better, lesser), open_ = self._with_row(found, top_y0)
        kept, gone = decide(len(everything), better, lesser, open_)
        self._hold(everything, (better, lesser), ~kept & ~gone)
        return everything.take(kept)

    def add_all(self, found: Found, top_y0: float) -> tuple[Found, Array]:
        """Take a row; give all of each object of which no member is open, best first, and for each its best one."""
        everything, (better, lesser), open_ = self._with_row(found, top_y0)
        count = len(everything)
        groups = components(count, better, lesser)
        wait = np.isin(groups, groups[open_])
        self._hold(everything, (better, lesser), wait)
        done = everything.take(~wait)
        return done, leaders_of(len(done), *among(~wait, better, lesser))

    def around(self) -> tuple[Array, Array]:
        """Boxes (n, 4) around those held that are of one object, and their classes."""
        boxes = self.held.detections.boxes.astype(np.float64)
        firsts, groups = np.unique(components(len(boxes), *self._pairs), return_inverse=True)
        return around(boxes, groups), self.held.detections.classes[firsts]

    def _with_row(self, found: Found, top_y0: float) -> tuple[Found, Pairs, Array]:
        """What is held and the row, best first, their pairs, better one first, and who may have more to meet."""
        known = len(self.held)
        together = Found.concatenate([self.held, found])
        order = by_score(together)
        everything, pairs = together.take(order), self._pairs
        if self._threshold is not None:
            places = np.empty_like(order)
            places[order] = np.arange(len(order))
            i, j = (places[ends] for ends in new_pairs(together, known, 0.0, self._kernels))
            new = self._matched(everything, np.minimum(i, j), np.maximum(i, j), self._threshold)
            i, j = (places[ends] for ends in pairs)
            pairs = np.concatenate([i, new[0]]), np.concatenate([j, new[1]])
        return everything, pairs, everything.detections.boxes[:, 3] >= top_y0

    def _matched(self, found: Found, i: Array, j: Array, threshold: float) -> Pairs:
        if self._apart:
            apart = found.windows[i] != found.windows[j]
            i, j = i[apart], j[apart]
        boxes = found.detections.boxes.astype(np.float64)
        if not self._mutual:
            hit = match(boxes[i], boxes[j], threshold=threshold, of_smaller=self._of_smaller)
            return i[hit], j[hit]
        likeness = ious(boxes[i], boxes[j])
        hit = likeness > threshold
        i, j = i[hit], j[hit]
        both = self._kernels.mutual(i, j, likeness[hit], found.windows)
        return i[both], j[both]

    def _hold(self, everything: Found, pairs: Pairs, wait: Array) -> None:
        self.held, self._pairs = everything.take(wait), among(wait, *pairs)


def new_pairs(found: Found, known: int, reach_px: float, kernels: Kernels) -> Pairs:
    """Pairs of boxes of one class that touch, but for those among the first ones, which are known.

    Args:
        found: Of any classes.
        known: How many are known.
        reach_px: How far apart boxes may be that count as touching.
        kernels: The loops over boxes.
    """
    boxes = found.detections.boxes.astype(np.float64)
    new = boxes[known:]
    i, j = kernels.touching(new, new, reach_px=reach_px)
    i, j = i + known, j + known
    if known and len(new):
        # Most of what is known may lie above all that is new.
        low = np.flatnonzero(boxes[:known, 3] + reach_px >= new[:, 1].min())
        k, m = kernels.touching(boxes[low], new, reach_px=reach_px)
        i, j = np.concatenate([i, low[k]]), np.concatenate([j, m + known])
    classes = found.detections.classes
    same = classes[i] == classes[j]
    return (i, j) if same.all() else (i[same], j[same])


def among(chosen: Array, i: Array, j: Array) -> Pairs:
    """The pairs of which both are chosen, by their places among the chosen."""
    places = np.cumsum(chosen) - 1
    both = chosen[i] & chosen[j]
    return places[i[both]], places[j[both]]
