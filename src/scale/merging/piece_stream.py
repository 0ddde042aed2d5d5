"""Boxes cut by an inner edge of their window, row by row: which are explained, and which are pieces of one object."""

from __future__ import annotations

import numpy as np

from redline.core.tensor import Array
from scale.merging.found import Found
from scale.merging.geometry import components
from scale.merging.groups import enclosed
from scale.merging.nms_grid import Kernels
from scale.merging.order import by_score
from scale.merging.pair_stream import Pairs, among, new_pairs
from scale.merging.pieces import are_pieces_of_one, explained_by
from scale.merging.settings import MergeSettings


class PieceStream:
    """Holds pieces that a later row, or a whole box that is not decided, may explain; and pieces of the same objects.

    A piece leaves for good when a whole box explains it. So whole boxes need not wait for pieces.
    """

    def __init__(self, settings: MergeSettings, kernels: Kernels) -> None:
        self._settings, self._kernels = settings, kernels
        self._held = Found.empty()
        none = np.zeros(0, np.int64)
        self._pairs: Pairs = (none, none)
        # Which of those held no whole box will explain.
        self._settled = np.zeros(0, bool)

    @property
    def held(self) -> int:
        """How many pieces wait."""
        return len(self._held)

    def add(self, found: Found, top_y0: float, kept: Found, undecided: tuple[Array, Array]) -> Found:
        """Take the pieces of a row; give the objects that are put together.

        Args:
            found: The pieces.
            top_y0: No later row has a detection above it; infinity after the last.
            kept: The whole boxes that have been decided since the row before.
            undecided: Boxes, and their classes, in which all whole boxes lie that are not decided yet.
        """
        known = len(self._held)
        everything = Found.concatenate([self._held, found])
        i, j = new_pairs(everything, known, self._settings.seam_px, self._kernels)
        boxes = everything.detections.boxes.astype(np.float64)
        one = are_pieces_of_one(i, j, boxes, everything.windows, everything.cuts, self._settings)
        i, j = np.concatenate([self._pairs[0], i[one]]), np.concatenate([self._pairs[1], j[one]])
        settled = np.append(self._settled, np.zeros(len(found), bool))
        stay = np.ones(len(everything), bool)
        stay[~settled] = ~explained_by(kept, everything.take(~settled), self._settings, self._kernels)
        everything, boxes, settled = everything.take(stay), boxes[stay], settled[stay]
        i, j = among(stay, i, j)
        settled |= (boxes[:, 3] < top_y0) & ~self._touches(boxes, everything, settled, undecided)
        groups = components(len(everything), i, j)
        wait = np.isin(groups, groups[~settled | (boxes[:, 3] + self._settings.seam_px >= top_y0)])
        self._held, self._pairs, self._settled = everything.take(wait), among(wait, i, j), settled[wait]
        done, groups = everything.take(~wait), groups[~wait]
        order = by_score(done)
        return enclosed(done.take(order), groups[order], seam_px=self._settings.seam_px)

    def _touches(self, boxes: Array, pieces: Found, settled: Array, undecided: tuple[Array, Array]) -> Array:
        """Whether a whole box that is not decided may have a say in a piece that is not settled."""
        places = np.flatnonzero(~settled)
        touches = np.zeros(len(boxes), bool)
        if len(places):
            around, classes = undecided
            # Of a crowd that is undecided all the way up, only the lower end needs a look.
            low = np.flatnonzero(around[:, 3] >= boxes[places, 1].min())
            i, j = self._kernels.touching(boxes[places], around[low])
            touches[places[i[pieces.detections.classes[places][i] == classes[low][j]]]] = True
        return touches
