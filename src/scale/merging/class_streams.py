"""Merging row by row, of detections of classes with the same settings: what no later row can change leaves at once."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from scale.merging.found import Found
from scale.merging.group_stream import GroupStream
from scale.merging.groups import averaged, enclosed
from scale.merging.methods import Context, owned
from scale.merging.pair_stream import PairStream
from scale.merging.piece_stream import PieceStream
from scale.merging.settings import MergeSettings, Method


class ClassStream(Protocol):
    """What :class:`scale.merging.streaming.Merger` gives the rows to."""

    @property
    def held(self) -> int:
        """How many detections wait for later rows."""
        ...

    def add(self, found: Found, top_y0: float) -> Found:
        """Take a row of windows, all of each window at once; give what is decided, merged, in any order.

        Args:
            found: What the row gave.
            top_y0: No later row has a detection above it; infinity after the last.
        """
        ...


def stream_of(method: Method, settings: MergeSettings, context: Context) -> ClassStream:
    """The stream that gives what a method gives.

    Args:
        method: Of merging.
        settings: The same for all classes that the stream gets.
        context: For all classes.
    """
    if by_class(method, settings):
        return GroupStream(method, settings, context)
    if method in ("drop-cut", "wbf"):
        return _WholeAndCut(settings, context, mean=method == "wbf")
    if method == "owner":
        return _Owned(settings, context)
    if method == "nmm":
        return _Enclosed(settings, context)
    if method == "legacy":  # a threshold of zero means the same as none there
        return _Best(PairStream(context.kernels, threshold=settings.iou or None, apart=False))
    return _Best(PairStream(context.kernels, threshold=settings.iou))


def by_class(method: Method, settings: MergeSettings) -> bool:
    """Whether a stream must have detections of one class alone."""
    return method == "union" or settings.coverage is not None


class _Best:
    """``nms``: the best of each object."""

    def __init__(self, pairs: PairStream) -> None:
        self._pairs = pairs

    @property
    def held(self) -> int:
        return len(self._pairs.held)

    def add(self, found: Found, top_y0: float) -> Found:
        return self._pairs.add_best(found, top_y0)


class _Owned(_Best):
    """``owner``: the best of those that lie in their own window's part."""

    def __init__(self, settings: MergeSettings, context: Context) -> None:
        super().__init__(PairStream(context.kernels, threshold=settings.iou, mutual=True))
        self._settings, self._context = settings, context

    def add(self, found: Found, top_y0: float) -> Found:
        return super().add(owned(found, self._settings, self._context), top_y0)


class _Enclosed:
    """``nmm``: the box around the best and what it covers."""

    def __init__(self, settings: MergeSettings, context: Context) -> None:
        self._pairs = PairStream(context.kernels, threshold=settings.smaller, of_smaller=True)
        self._seam_px = settings.seam_px

    @property
    def held(self) -> int:
        return len(self._pairs.held)

    def add(self, found: Found, top_y0: float) -> Found:
        return enclosed(*self._pairs.add_all(found, top_y0), seam_px=self._seam_px)


class _WholeAndCut:
    """``drop-cut`` and ``wbf``: boxes that were seen whole, and what pieces of objects they do not explain."""

    def __init__(self, settings: MergeSettings, context: Context, *, mean: bool) -> None:
        self._whole = PairStream(context.kernels, threshold=settings.iou, mutual=True)
        self._pieces = PieceStream(settings, context.kernels) if settings.cut_boxes == "join" else None
        self._mean = mean

    @property
    def held(self) -> int:
        return len(self._whole.held) + (self._pieces.held if self._pieces else 0)

    def add(self, found: Found, top_y0: float) -> Found:
        cut = found.cuts != 0
        whole = found.take(~cut) if cut.any() else found
        if self._mean:
            kept = averaged(*self._whole.add_all(whole, top_y0))
        else:
            kept = self._whole.add_best(whole, top_y0)
        if self._pieces is None:
            return kept
        # A mean may lie where none of its boxes does, but not outside of all of them.
        held = self._whole.held.detections
        undecided = self._whole.around() if self._mean else (held.boxes.astype(np.float64), held.classes)
        return Found.concatenate([kept, self._pieces.add(found.take(cut), top_y0, kept, undecided)])
