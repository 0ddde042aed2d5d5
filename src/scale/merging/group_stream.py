"""Merging row by row where a detection may grow: whole groups are held to their end."""

from __future__ import annotations

import numpy as np

from redline.core.tensor import Array
from scale.merging.found import Found
from scale.merging.geometry import components, match
from scale.merging.methods import Context, merge_class
from scale.merging.order import by_score
from scale.merging.pair_stream import new_pairs
from scale.merging.regions import closed_groups
from scale.merging.settings import MergeSettings, Method


class GroupStream:
    """Regions, and ``legacy``: what becomes of a detection depends on nothing outside its group, an upper bound."""

    def __init__(self, method: Method, settings: MergeSettings, context: Context) -> None:
        self._method, self._settings, self._context = method, settings, context
        self._held = Found.empty()
        self._groups = np.zeros(0, np.int64)

    @property
    def held(self) -> int:
        """How many detections wait for later rows."""
        return len(self._held)

    def add(self, found: Found, top_y0: float) -> Found:
        """Take a row of one class; give what is in no group with one that reaches down to the next row."""
        everything = Found.concatenate([self._held, found])
        bottoms = everything.detections.boxes[:, 3] + self._reach_px()
        groups = self._groups_of(everything)
        wait = np.isin(groups, groups[bottoms >= top_y0])
        self._held, self._groups = everything.take(wait), groups[wait]
        done = everything.take(~wait)
        return merge_class(done.take(by_score(done)), self._method, self._settings, self._context)

    def _reach_px(self) -> float:
        """How far below a detection another one may begin and still have a say."""
        return 0.0 if self._method == "legacy" else self._settings.seam_px

    def _groups_of(self, found: Found) -> Array:
        """Labels of groups: boxes of which one covers enough of the other, and pieces at an edge.

        Merely to touch is not enough, or all of a dense tissue would be one group. What is held is not compared again:
        of a crowd that goes down a whole slide, each row would compare all that is above it.
        """
        boxes = found.detections.boxes.astype(np.float64)
        kernels = self._context.kernels
        if self._method == "legacy":
            return closed_groups(boxes, kernels)
        i, j = new_pairs(found, len(self._groups), self._settings.seam_px, kernels)
        if found.detections.polygons is None:
            linked = match(boxes[i], boxes[j], threshold=self._least_share(), of_smaller=True)
            linked |= (found.cuts[i] != 0) & (found.cuts[j] != 0) & (found.windows[i] != found.windows[j])
            i, j = i[linked], j[linked]
        _, firsts, groups = np.unique(self._groups, return_index=True, return_inverse=True)
        known = np.arange(len(self._groups))
        return components(len(found), np.concatenate([known, i]), np.concatenate([firsts[groups], j]))

    def _least_share(self) -> float:
        """Boxes that share less of the smaller one than this do not meet."""
        share = self._settings.smaller if self._settings.coverage is None else self._settings.coverage
        return min(self._settings.contained, share)
