"""Which window a place on the slide belongs to: the one in whose middle it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from redline.core.errors import InputError
from redline.core.tensor import Array
from scale.merging.found import Found, Square


class WindowGrid(Protocol):
    """Windows in rows and columns, counted row by row."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        ...

    @property
    def columns(self) -> int:
        """How many windows a row has."""
        ...

    def window(self, row: int, column: int) -> Square:
        """The window in a row and a column."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Ownership:
    """Lines half way through the overlaps, which part a slide among its windows.

    Attributes:
        columns_x: Left borders of the columns but the first, in level-0 pixels.
        rows_y: Top borders of the rows but the first.
        processed: For each window whether it was looked at; None where all were.
    """

    columns_x: Array
    rows_y: Array
    processed: Array | None = None

    @classmethod
    def of(cls, grid: WindowGrid, processed: Sequence[bool] | Array | None = None) -> Ownership:
        """The lines of a grid."""
        columns = [grid.window(0, column).x0 for column in range(grid.columns)]
        rows = [grid.window(row, 0).y0 for row in range(grid.rows)]
        size = grid.window(0, 0).size_px
        looked = None if processed is None else np.asarray(processed, bool).reshape(-1)
        if looked is not None and len(looked) != len(rows) * len(columns):
            raise InputError(f"got {len(looked)} flags for a grid of {len(rows) * len(columns)} windows, one for each")
        return cls(_middles(columns, size), _middles(rows, size), looked)

    def owned(self, found: Found, *, margin_px: float) -> Array:
        """Whether each box's centre lies in its own window's part, or no further from it than the margin.

        What lies in the part of a window that nobody looked at belongs to whoever saw it.
        """
        boxes = found.detections.boxes.astype(np.float64)
        x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        width = len(self.columns_x) + 1
        if len(found) and not 0 <= found.windows.min() <= found.windows.max() < width * (len(self.rows_y) + 1):
            raise InputError(
                f"detections come from windows {found.windows.min()} to {found.windows.max()}, "
                f"expected windows of the grid of {len(self.rows_y) + 1} rows x {width}"
            )
        own = _inside(x, found.windows % width, self.columns_x, margin_px)
        own &= _inside(y, found.windows // width, self.rows_y, margin_px)
        if self.processed is not None:
            row, column = np.searchsorted(self.rows_y, y, "right"), np.searchsorted(self.columns_x, x, "right")
            own |= ~self.processed[row * width + column]
        return own


def _middles(starts: Sequence[int], size_px: int) -> Array:
    edges = np.array(starts, np.float64)
    middles: Array = (edges[1:] + edges[:-1] + size_px) / 2
    return middles


def _inside(values: Array, places: Array, borders: Array, margin_px: float) -> Array:
    bounds = np.concatenate([[-np.inf], borders, [np.inf]])
    inside: Array = (values >= bounds[places] - margin_px) & (values < bounds[places + 1] + margin_px)
    return inside
