"""What models found in windows of a slide: where, in which window, and which boxes a window's edge cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from redline.core.errors import DataError, InputError
from redline.core.tensor import Array
from redline.detection.results import Detections

LEFT, TOP, RIGHT, BOTTOM = 1, 2, 4, 8
#: A box that ends this near to its window's edge is taken for cut by it.
CUT_TOLERANCE_PX = 1.5


class Square(Protocol):
    """A window of a grid, in the slide's level-0 pixels."""

    @property
    def index(self) -> int:
        """Its place in the grid, row by row."""
        ...

    @property
    def x0(self) -> int:
        """Its left edge."""
        ...

    @property
    def y0(self) -> int:
        """Its top edge."""
        ...

    @property
    def size_px(self) -> int:
        """Its side."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Detections of any number of windows.

    Attributes:
        detections: In level-0 pixels of the slide.
        windows: int64 of shape (n,): the window that each comes from.
        cuts: uint8 of shape (n,): the sum of 1 left, 2 top, 4 right, 8 bottom, for the edges of its window that a box
            touches and beyond which another window was processed. 0 is a box that was seen whole.
    """

    detections: Detections
    windows: Array
    cuts: Array

    def __post_init__(self) -> None:
        count = len(self.detections)
        if self.windows.shape != (count,) or self.cuts.shape != (count,):
            raise InputError(
                f"got {count} detections, windows of shape {self.windows.shape} and cuts of shape {self.cuts.shape}; "
                f"expected ({count},) for both"
            )

    def __len__(self) -> int:
        return len(self.detections)

    def take(self, index: Array) -> Found:
        """Those detections in that order; a mask of booleans keeps theirs."""
        chosen = np.flatnonzero(index) if index.dtype == np.bool_ else index
        return Found(self.detections.take(chosen), self.windows[chosen], self.cuts[chosen])

    @classmethod
    def empty(cls, *, polygons: bool = False) -> Found:
        """Nothing found."""
        return cls(Detections.empty(polygons=polygons), np.zeros(0, np.int64), np.zeros(0, np.uint8))

    @classmethod
    def concatenate(cls, parts: Sequence[Found]) -> Found:
        """One after the other; either all have polygons or none has, empty ones aside."""
        filled = [part for part in parts if len(part)]
        if len(filled) <= 1:
            return filled[0] if filled else (parts[0] if parts else cls.empty())
        return cls(
            Detections.concatenate([part.detections for part in filled]),
            np.concatenate([part.windows for part in filled]),
            np.concatenate([part.cuts for part in filled]),
        )

    @classmethod
    def in_window(
        cls, detections: Detections, window: Square, *, inner: int, tolerance_px: float = CUT_TOLERANCE_PX
    ) -> Found:
        """What one window gave; as :meth:`in_windows`."""
        count = len(detections)
        return cls.in_windows(
            detections,
            windows=np.full(count, window.index, np.int64),
            corners=np.tile([window.x0, window.y0], (count, 1)),
            size_px=window.size_px,
            inner=np.full(count, inner),
            tolerance_px=tolerance_px,
        )

    @classmethod
    def in_windows(
        cls,
        detections: Detections,
        *,
        windows: Array,
        corners: Array,
        size_px: int,
        inner: Array,
        tolerance_px: float = CUT_TOLERANCE_PX,
    ) -> Found:
        """What windows of one size gave.

        Args:
            detections: In level-0 pixels of the slide.
            windows: int64 of shape (n,): the window that each comes from.
            corners: (n, 2): left and upper edge of that window, in level-0 pixels.
            size_px: Side of the windows.
            inner: Of shape (n,): the sum of those of its window's edges beyond which another window was processed:
                1 left, 2 top, 4 right, 8 bottom.
            tolerance_px: How near to an edge a box counts as cut by it. Where a model sees the window smaller than it
                is, take as many times more.
        """
        boxes = detections.boxes
        low = boxes[:, :2] <= (corners + tolerance_px).astype(np.float32)
        high = boxes[:, 2:] >= (corners + (size_px - tolerance_px)).astype(np.float32)
        cuts = np.concatenate([low, high], axis=1) @ np.array([LEFT, TOP, RIGHT, BOTTOM], np.uint8)
        return cls(detections, windows, cuts & inner.astype(np.uint8))


def check(found: Found) -> None:
    """Refuse what cannot be compared: numbers that are no numbers, boxes that end before they begin.

    Raises:
        DataError: names the first such detection.
    """
    boxes, scores = found.detections.boxes, found.detections.scores
    sound = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    sound &= (boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1])
    if not sound.all():
        first = int(np.argmin(sound))
        raise DataError(
            f"detection {first} of {len(found)} (window {found.windows[first]}) has the box {boxes[first].tolist()} "
            f"and the score {scores[first]}; expected finite x0 <= x1, y0 <= y1 and a finite score"
        )
