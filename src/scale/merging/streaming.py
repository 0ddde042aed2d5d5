"""Merging while a slide is still being looked at: what no later window can change is given out and forgotten."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from redline.core.errors import InputError
from redline.core.tensor import Array
from scale.merging.dependence import dependent_groups, reach_px
from scale.merging.found import Found, check
from scale.merging.merge import classes_of, merge_checked
from scale.merging.methods import Context
from scale.merging.nms_grid import Kernels, best_kernels
from scale.merging.ownership import Ownership, WindowGrid
from scale.merging.settings import MergeSettings, Method, check_method, settings_of


class Merger:
    """Takes rows of windows from the top to the bottom; all that it gives out is what :func:`merge` gives of them all.

    It holds the detections that reach into the next row, and those that depend on them: about two rows of windows,
    however large the slide is. A region that is united, and one group of ``legacy``, is held until it has ended.
    """

    def __init__(
        self,
        *,
        method: Method = "drop-cut",
        settings: MergeSettings | Mapping[int, MergeSettings] | None = None,
        grid: WindowGrid | None = None,
        processed: Sequence[bool] | Array | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        """See :func:`scale.merging.merge.merge` for the arguments."""
        check_method(method)
        if method == "owner" and grid is None:
            raise InputError("the merge method 'owner' needs the grid of windows; give it, or take 'drop-cut'")
        ownership = Ownership.of(grid, processed) if grid is not None and method == "owner" else None
        self._method: Method = method
        self._settings = MergeSettings() if settings is None else settings
        self._context = Context(kernels=kernels or best_kernels(), ownership=ownership)
        self._held = Found.empty()
        self._groups = np.zeros(0, np.int64)
        self._top_y0 = -math.inf

    @property
    def held(self) -> int:
        """How many detections wait for later rows."""
        return len(self._held)

    def add(self, found: Found, next_top_y0: float) -> Found:
        """Take a row of windows.

        Args:
            found: What its windows gave, in any order.
            next_top_y0: The top edge of the windows of the next row, in level-0 pixels; infinity after the last.

        Returns:
            The merged detections that no later row can change, from the top to the bottom.

        Raises:
            InputError: a detection begins above the top edge that the call before promised.
            DataError: a box or a score that is no number.
        """
        check(found)
        tops = found.detections.boxes[:, 1]
        if len(found) and tops.min() < self._top_y0:
            raise InputError(
                f"got a detection from y = {tops.min():.1f} on, expected none above {self._top_y0:.1f}: "
                "give rows of windows from the top to the bottom"
            )
        self._top_y0 = max(self._top_y0, next_top_y0)
        everything = Found.concatenate([self._held, found])
        groups, done = self._grouped(everything)
        self._held, self._groups = everything.take(~done), groups[~done]
        return merge_checked(everything.take(done), self._method, self._settings, self._context)

    def finish(self) -> Found:
        """The rest, after the last row; the next row may be of another slide."""
        rest, self._held, self._top_y0 = self._held, Found.empty(), -math.inf
        self._groups = np.zeros(0, np.int64)
        return merge_checked(rest, self._method, self._settings, self._context)

    def _grouped(self, found: Found) -> tuple[Array, Array]:
        """A label for each detection, and what is in no group with one that reaches down to the next row.

        Labels of what is finished mean nothing.
        """
        labels, done = np.arange(len(found)), np.ones(len(found), bool)
        for index, members, one in classes_of(found):
            settings = settings_of(self._settings, index)
            bottoms = one.detections.boxes[:, 3] + reach_px(self._method, settings)
            open_ = bottoms >= self._top_y0
            if open_.any():
                known = self._groups[members[members < len(self._groups)]]
                groups = dependent_groups(one, known, self._method, settings, self._context.kernels)
                labels[members] = members[groups]
                done[members] = ~np.isin(groups, groups[open_])
        return labels, done
