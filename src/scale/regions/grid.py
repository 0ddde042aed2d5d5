"""Windows over a region: all of full size, the last one of each axis shifted back so that none is a sliver.

Neighbours lie at most ``window - overlap`` apart, so that every rectangle no larger than the overlap is whole in some
window: along one axis, the last window that starts at or before such a rectangle starts less than one stride before
it, so that at least the overlap is left of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from redline.core.errors import InputError
from redline.core.tensor import Array

LEFT, TOP, RIGHT, BOTTOM = 1, 2, 4, 8
_ROUNDING = 1e-9


def overlap_px(overlap: float, window_px: int) -> int:
    """How many pixels two neighbouring windows share at least.

    Args:
        overlap: Below 1 a share of the window, rounded up to a pixel; from 1 on a number of pixels.
        window_px: The side of a window.

    Raises:
        InputError: it is negative, a broken number of pixels, or leaves no pixel to go on by.

    >>> overlap_px(0.2, 640), overlap_px(0.8, 514), overlap_px(128, 514)
    (128, 412, 128)
    """
    if window_px < 1:
        raise InputError(f"got windows of {window_px} pixels, expected 1 or more")
    if not 0 <= overlap < math.inf:
        raise InputError(f"got an overlap of {overlap}, expected a share of the window (0 to below 1) or pixels")
    if overlap >= 1 and overlap != int(overlap):
        raise InputError(f"got an overlap of {overlap} pixels, expected a whole number of them, or a share below 1")
    # A share is a promise, so it is rounded up; but 0.07 of 100 pixels are 7, though the product is a little more.
    shared = int(overlap) if overlap >= 1 else math.ceil(window_px * overlap - _ROUNDING)
    _refuse_overlap(shared, window_px, f"{overlap}")
    return shared


def _refuse_overlap(shared_px: int, window_px: int, given: str) -> None:
    if not 0 <= shared_px < window_px:
        raise InputError(
            f"got an overlap of {given} ({shared_px} of {window_px} pixels), expected less than the window: "
            "take a smaller overlap or larger windows"
        )


def offsets(length_px: int, window_px: int, overlap_px: int) -> tuple[int, ...]:
    """Where along one axis the windows start.

    Args:
        length_px: How long the axis is.
        window_px: The side of a window.
        overlap_px: How many pixels two neighbours share at least; the last two may share more.

    Returns:
        Ascending from 0; only 0 where the axis is no longer than a window.

    >>> offsets(1000, 400, 100), offsets(1001, 400, 100), offsets(300, 400, 100)
    ((0, 300, 600), (0, 300, 600, 601), (0,))
    """
    if length_px < 1 or window_px < 1:
        raise InputError(f"got windows of {window_px} pixels on {length_px} pixels, expected 1 or more of both")
    _refuse_overlap(overlap_px, window_px, f"{overlap_px}")
    last = length_px - window_px
    if last <= 0:
        return (0,)
    return (*range(0, last, window_px - overlap_px), last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A named rectangle of a slide, in its level-0 pixels.

    Attributes:
        name: Fit for a file's name.
    """

    name: str
    x0: int
    y0: int
    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        if self.width_px < 1 or self.height_px < 1:
            raise InputError(
                f"region {self.name!r} has {self.width_px}x{self.height_px} pixels, expected 1 or more on each side"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One square of a grid, in the slide's level-0 pixels.

    Attributes:
        index: Its place in the grid, row by row.
    """

    index: int
    row: int
    column: int
    x0: int
    y0: int
    size_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """All windows over a region, row by row.

    Where the region is smaller than a window along an axis, its single window reaches beyond it; what of that lies
    outside the slide is read as white.

    Attributes:
        columns_x0: Left edges of the columns, in level-0 pixels.
        rows_y0: Top edges of the rows, in level-0 pixels.

    >>> region = Region(name="slide", x0=0, y0=50, width_px=1000, height_px=300)
    >>> grid = Grid(region=region, window_px=400, overlap_px=100)
    >>> len(grid), grid.rows, grid.columns, grid.window(0, 2).x0, grid.window(0, 2).y0
    (3, 1, 3, 600, 50)
    """

    region: Region
    window_px: int
    overlap_px: int
    columns_x0: tuple[int, ...] = field(init=False, repr=False)
    rows_y0: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        region, size, shared = self.region, self.window_px, self.overlap_px
        columns = tuple(region.x0 + offset for offset in offsets(region.width_px, size, shared))
        rows = tuple(region.y0 + offset for offset in offsets(region.height_px, size, shared))
        object.__setattr__(self, "columns_x0", columns)
        object.__setattr__(self, "rows_y0", rows)

    @property
    def rows(self) -> int:
        """How many rows of windows there are."""
        return len(self.rows_y0)

    @property
    def columns(self) -> int:
        """How many windows a row has."""
        return len(self.columns_x0)

    def __len__(self) -> int:
        return self.rows * self.columns

    def __iter__(self) -> Iterator[Window]:
        for row in range(self.rows):
            yield from self.row(row)

    def window(self, row: int, column: int) -> Window:
        """The window in a row and a column, both counted from 0.

        Raises:
            InputError: the grid has no such row or column.
        """
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            raise InputError(f"there is no window {row}, {column} in a grid of {self.rows} rows x {self.columns}")
        return Window(
            index=row * self.columns + column,
            row=row,
            column=column,
            x0=self.columns_x0[column],
            y0=self.rows_y0[row],
            size_px=self.window_px,
        )

    def row(self, row: int) -> tuple[Window, ...]:
        """All windows of a row, from left to right."""
        return tuple(self.window(row, column) for column in range(self.columns))


def inner_edges(grid: Grid, processed: Sequence[bool] | Array) -> Array:
    """Which edges of each window have a processed window beyond them.

    An object that such an edge cuts is seen better from beyond it, so that what is detected of it here may go. Beyond
    means the very next window in the same row or column, also where the last window was shifted back and lies only
    few pixels further. That suffices, though with an overlap of more than half an object may be whole only some
    windows on: the next window sees everything of the object that this one sees past the edge and, because neighbours
    are at most a stride apart, the edge opposite cannot cut it; where an edge cuts it there too, the same holds again
    one window on. So of every object no larger than the overlap one view stays: whole, or cut only by edges beyond
    which nothing was processed.

    Args:
        grid: The windows.
        processed: For each window in the order of the grid whether it was looked at; or rows x columns of that.

    Returns:
        uint8, one value per window in the order of the grid: the sum of 1 left, 2 top, 4 right, 8 bottom. 0 where the
        window itself was not processed.

    >>> row = Region(name="row", x0=0, y0=0, width_px=400, height_px=100)
    >>> inner_edges(Grid(region=row, window_px=100, overlap_px=0), [True, True, True, False]).tolist()
    [4, 5, 1, 0]
    """
    seen = np.asarray(processed, dtype=bool)
    if seen.size != len(grid):
        raise InputError(f"got {seen.size} flags for a grid of {len(grid)} windows, expected one for each")
    seen = seen.reshape(grid.rows, grid.columns)
    edges = np.zeros(seen.shape, dtype=np.uint8)
    edges[:, 1:] |= np.where(seen[:, :-1], LEFT, 0).astype(np.uint8)
    edges[:, :-1] |= np.where(seen[:, 1:], RIGHT, 0).astype(np.uint8)
    edges[1:, :] |= np.where(seen[:-1, :], TOP, 0).astype(np.uint8)
    edges[:-1, :] |= np.where(seen[1:, :], BOTTOM, 0).astype(np.uint8)
    edges[~seen] = 0
    return edges.reshape(-1)
