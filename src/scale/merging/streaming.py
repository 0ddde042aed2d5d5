"""Merging while a slide is still being looked at: what no later window can change is given out and forgotten."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from redline.core.errors import InputError
from redline.core.tensor import Array
from scale.merging.class_streams import ClassStream, by_class, stream_of
from scale.merging.found import Found, check
from scale.merging.methods import Context
from scale.merging.nms_grid import Kernels, best_kernels
from scale.merging.order import as_read
from scale.merging.ownership import Ownership, WindowGrid
from scale.merging.settings import MergeSettings, Method, check_method, settings_of

#: Settings, and the class where a stream must have one alone.
_Key = tuple[MergeSettings, int | None]


class Merger:
    """Takes rows of windows from the top to the bottom; all that it gives out is what :func:`merge` gives of them all.

    It holds the detections that reach into the next row, and those whose fate hangs on these: of boxes seen whole, as
    far as a path of rising scores leads up from there; about two rows of windows, however large the slide is. A region
    that is united, and one group of ``legacy`` with a coverage, is held until it has ended.
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
        self._streams: dict[_Key, ClassStream] = {}
        self._windows = np.zeros(0, np.int64)
        self._top_y0 = -math.inf

    @property
    def held(self) -> int:
        """How many detections wait for later rows."""
        return sum(stream.held for stream in self._streams.values())

    def add(self, found: Found, next_top_y0: float) -> Found:
        """Take a row of windows.

        Args:
            found: What its windows gave, in any order; all that a window gave at once.
            next_top_y0: The top edge of the windows of the next row, in level-0 pixels; infinity after the last.

        Returns:
            The merged detections that no later row can change, from the top to the bottom.

        Raises:
            InputError: a detection begins above the top edge that the call before promised, or is of a window of the
                call before.
            DataError: a box or a score that is no number.
        """
        check(found)
        tops = found.detections.boxes[:, 1]
        if len(found) and tops.min() < self._top_y0:
            raise InputError(
                f"got a detection from y = {tops.min():.1f} on, expected none above {self._top_y0:.1f}: "
                "give rows of windows from the top to the bottom"
            )
        windows = np.unique(found.windows)
        again = np.intersect1d(windows, self._windows)
        if len(again):
            raise InputError(f"got more of window {again[0]}, of which the last row had some: give a window at once")
        self._windows, self._top_y0 = windows, max(self._top_y0, next_top_y0)
        return self._decided(found)

    def finish(self) -> Found:
        """The rest, after the last row; the next row may be of another slide."""
        self._top_y0 = math.inf
        rest = self._decided(Found.empty())
        self._streams, self._windows, self._top_y0 = {}, np.zeros(0, np.int64), -math.inf
        return rest

    def _decided(self, found: Found) -> Found:
        """What is decided by all that is known, of every class."""
        parts = dict.fromkeys(self._streams, Found.empty()) | self._by_stream(found)
        done = []
        for key, part in parts.items():
            if key not in self._streams:
                self._streams[key] = stream_of(self._method, key[0], self._context)
            done.append(self._streams[key].add(part, self._top_y0))
            if not self._streams[key].held:
                del self._streams[key]
        merged = Found.concatenate(done)
        return merged.take(as_read(merged))

    def _by_stream(self, found: Found) -> dict[_Key, Found]:
        """Detections by the stream that they go to: where it may have several classes, those of equal settings."""
        classes: dict[_Key, list[int]] = {}
        for index in np.unique(found.detections.classes).tolist():
            settings = settings_of(self._settings, index)
            classes.setdefault((settings, index if by_class(self._method, settings) else None), []).append(index)
        if len(classes) == 1:
            return dict.fromkeys(classes, found)
        return {key: found.take(np.isin(found.detections.classes, some)) for key, some in classes.items()}
