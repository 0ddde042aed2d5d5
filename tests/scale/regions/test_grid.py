"""Windows: full size, no slivers, everything no larger than the overlap whole in one; which edges are inner."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.core.errors import InputError
from scale.regions.grid import BOTTOM, LEFT, RIGHT, TOP, Grid, Region, Window, inner_edges, offsets, overlap_px

SIDES = st.integers(1, 24)


@st.composite
def axes(draw: st.DrawFn, longest: int = 3000) -> tuple[int, int, int]:
    window = draw(st.integers(1, 600))
    return draw(st.integers(1, longest)), window, draw(st.integers(0, window - 1))


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    window = draw(st.integers(4, 12))
    region = Region(
        name="drawn",
        x0=draw(st.integers(-5, 5)),
        y0=draw(st.integers(-5, 5)),
        width_px=draw(SIDES),
        height_px=draw(SIDES),
    )
    return Grid(region=region, window_px=window, overlap_px=draw(st.integers(0, window - 1)))


@pytest.mark.parametrize(
    ("overlap", "window", "expected"),
    [
        (0, 640, 0),
        (0.0, 640, 0),
        (0.2, 640, 128),
        (0.8, 514, 412),  # 411.2: a share is what there is at least
        (0.9, 100, 90),
        (0.07, 100, 7),  # the product is a little more than 7
        (1, 640, 1),
        (128, 514, 128),
        (128.0, 514, 128),
    ],
)
def test_overlap_is_a_share_below_one_and_pixels_from_one_on(overlap: float, window: int, expected: int) -> None:
    assert overlap_px(overlap, window) == expected


@pytest.mark.parametrize("overlap", [-0.1, -1, 1.5, 100, 512, 0.9999, math.nan, math.inf])
def test_overlaps_that_leave_no_stride_or_are_no_number_are_refused(overlap: float) -> None:
    with pytest.raises(InputError, match="got an overlap of"):
        overlap_px(overlap, 100)


@pytest.mark.parametrize(("length", "window", "overlap"), [(10, 5, 5), (10, 5, 6), (10, 5, -1), (0, 5, 1), (10, 0, 0)])
def test_axes_that_cannot_be_covered_are_refused(length: int, window: int, overlap: int) -> None:
    with pytest.raises(InputError, match="expected"):
        offsets(length, window, overlap)


@settings(deadline=None)
@given(axes())
def test_every_pixel_is_in_a_full_window_and_the_number_is_the_least(axis: tuple[int, int, int]) -> None:
    length, window, overlap = axis
    starts = offsets(length, window, overlap)
    assert starts == tuple(sorted(set(starts)))
    assert starts[0] == 0
    assert starts[-1] == max(0, length - window)
    assert all(later - earlier <= window - overlap for earlier, later in pairwise(starts))
    assert len(starts) == max(1, math.ceil((length - window) / (window - overlap)) + 1)


@settings(deadline=None)
@given(axes(), st.data())
def test_every_interval_no_longer_than_the_overlap_is_whole_in_a_window(
    axis: tuple[int, int, int], data: st.DataObject
) -> None:
    length, window, overlap = axis
    size = data.draw(st.integers(0, min(overlap, length)))
    start = data.draw(st.integers(0, length - size))
    assert any(first <= start and start + size <= first + window for first in offsets(length, window, overlap))


@settings(deadline=None)
@given(grids(), st.data())
def test_every_rectangle_no_larger_than_the_overlap_is_whole_in_a_window(grid: Grid, data: st.DataObject) -> None:
    region = grid.region
    width = data.draw(st.integers(0, min(grid.overlap_px, region.width_px)))
    height = data.draw(st.integers(0, min(grid.overlap_px, region.height_px)))
    x = region.x0 + data.draw(st.integers(0, region.width_px - width))
    y = region.y0 + data.draw(st.integers(0, region.height_px - height))
    assert any(
        w.x0 <= x and x + width <= w.x0 + w.size_px and w.y0 <= y and y + height <= w.y0 + w.size_px for w in grid
    )


@settings(deadline=None)
@given(grids())
def test_windows_are_numbered_row_by_row_and_leave_the_region_only_where_it_is_smaller(grid: Grid) -> None:
    windows = list(grid)
    assert [window.index for window in windows] == list(range(len(grid)))
    assert windows == [grid.window(w.row, w.column) for w in windows]
    assert windows == [w for row in range(grid.rows) for w in grid.row(row)]
    region = grid.region
    for window in windows:
        assert region.x0 <= window.x0
        assert region.y0 <= window.y0
        assert window.size_px == grid.window_px
        assert window.x0 + window.size_px <= region.x0 + max(region.width_px, grid.window_px)
        assert window.y0 + window.size_px <= region.y0 + max(region.height_px, grid.window_px)


def test_a_region_smaller_than_a_window_has_one_that_starts_with_it() -> None:
    (window,) = Grid(region=region_of(30, 20, x0=7, y0=9), window_px=64, overlap_px=16)
    assert (window.x0, window.y0, window.size_px) == (7, 9, 64)


@pytest.mark.parametrize(("row", "column"), [(-1, 0), (0, -1), (2, 0), (0, 3)])
def test_windows_that_are_not_there_are_refused(row: int, column: int) -> None:
    with pytest.raises(InputError, match="there is no window"):
        Grid(region=region_of(300, 200), window_px=100, overlap_px=0).window(row, column)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-1, 5)])
def test_empty_regions_are_refused(width: int, height: int) -> None:
    with pytest.raises(InputError, match="expected 1 or more"):
        region_of(width, height)


def test_edges_are_inner_where_the_next_window_was_processed() -> None:
    grid = Grid(region=region_of(325, 250), window_px=100, overlap_px=25)
    processed = np.ones((3, 4), bool)
    processed[1, 1] = False
    assert inner_edges(grid, processed).reshape(3, 4).tolist() == [
        [RIGHT | BOTTOM, LEFT | RIGHT, LEFT | RIGHT | BOTTOM, LEFT | BOTTOM],
        [TOP | BOTTOM, 0, TOP | RIGHT | BOTTOM, LEFT | TOP | BOTTOM],
        [TOP | RIGHT, LEFT | RIGHT, LEFT | TOP | RIGHT, LEFT | TOP],
    ]
    assert inner_edges(grid, processed).dtype == np.uint8


def test_flags_must_fit_the_grid() -> None:
    with pytest.raises(InputError, match="got 3 flags for a grid of 4 windows"):
        inner_edges(Grid(region=region_of(200, 200), window_px=100, overlap_px=0), [True, True, True])


@settings(deadline=None, max_examples=400)
@given(grids(), st.data())
def test_of_every_object_no_larger_than_the_overlap_one_view_stays(grid: Grid, data: st.DataObject) -> None:
    """Whichever windows were left out, and also where the object reaches beyond the region."""
    drawn = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    processed = drawn.random(len(grid)) < data.draw(st.sampled_from([0.3, 0.6, 0.9]))
    box = object_of(grid, data)
    inner = inner_edges(grid, processed)
    views = [window for window in grid if processed[window.index] and sees(window, box)]
    kept = [window for window in views if not cuts(window, box) & int(inner[window.index])]
    assert kept or not views
    assert all(window in kept for window in views if not cuts(window, box))


@settings(deadline=None, max_examples=400)
@given(grids(), st.data())
def test_where_every_window_was_processed_only_whole_views_stay_and_those_at_the_border(
    grid: Grid, data: st.DataObject
) -> None:
    box = object_of(grid, data)
    inner = inner_edges(grid, [True] * len(grid))
    region = grid.region
    outside = Region(
        name="windows",
        x0=region.x0,
        y0=region.y0,
        width_px=max(region.width_px, grid.window_px),
        height_px=max(region.height_px, grid.window_px),
    )
    for window in grid:
        edges = cuts(window, box)
        if sees(window, box) and edges and not edges & int(inner[window.index]):
            assert beyond(outside, box)


def region_of(width_px: int, height_px: int, x0: int = 0, y0: int = 0) -> Region:
    return Region(name="region", x0=x0, y0=y0, width_px=width_px, height_px=height_px)


Box = tuple[int, int, int, int]


def object_of(grid: Grid, data: st.DataObject) -> Box:
    """A box no larger than the overlap that some window sees at least a part of, also where it leaves the region."""
    window = grid.window(data.draw(st.integers(0, grid.rows - 1)), data.draw(st.integers(0, grid.columns - 1)))
    width, height = (data.draw(st.integers(min(1, grid.overlap_px), grid.overlap_px)) for _ in "xy")
    x = window.x0 + data.draw(st.integers(-width, window.size_px))
    y = window.y0 + data.draw(st.integers(-height, window.size_px))
    return x, y, x + width, y + height


def sees(window: Window, box: Box) -> bool:
    """Whether the window shows a part of the box."""
    left, top, right, bottom = box
    end_x, end_y = window.x0 + window.size_px, window.y0 + window.size_px
    return left < end_x and right > window.x0 and top < end_y and bottom > window.y0


def cuts(window: Window, box: Box) -> int:
    """Which edges of the window have a part of the box beyond them."""
    left, top, right, bottom = box
    end_x, end_y = window.x0 + window.size_px, window.y0 + window.size_px
    cut = (left < window.x0, top < window.y0, right > end_x, bottom > end_y)
    return sum(bit for bit, is_cut in zip((LEFT, TOP, RIGHT, BOTTOM), cut, strict=True) if is_cut)


def beyond(region: Region, box: Box) -> bool:
    left, top, right, bottom = box
    end_x, end_y = region.x0 + region.width_px, region.y0 + region.height_px
    return left < region.x0 or top < region.y0 or right > end_x or bottom > end_y
