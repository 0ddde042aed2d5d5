"""Row by row gives what all at once gives, and holds no more than it must."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks.merge_simulation import rows_of, simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scale.merging.scenes import WINDOW_PX, content, crowd_row, crowds, found_of, grid_of, slides, with_outlines

from redline.core.errors import DataError, InputError
from redline.core.tensor import Array
from scale.merging import METHODS, RIGHT, Found, Merger, MergeSettings, Method, merge
from scale.merging.geometry import components
from scale.merging.nms_numpy import NumpyKernels
from scale.regions.grid import Grid, Region

KERNELS = NumpyKernels()


def tops_of(grid: Grid) -> list[float]:
    return [*map(float, grid.rows_y0[1:]), math.inf]


@given(
    slide=st.one_of(slides(), crowds()),
    method=st.sampled_from(METHODS),
    chosen=st.sampled_from(
        [
            MergeSettings(),
            MergeSettings(coverage=0.3),
            MergeSettings(iou=0.6, contained=0.8, cut_boxes="drop"),
            MergeSettings(iou=0.05, contained=0.1, smaller=0.1),
            MergeSettings(iou=None),
        ]
    ),
    outlines=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_row_by_row_gives_what_all_at_once_gives(
    slide: tuple[list[Found], Grid], method: Method, chosen: MergeSettings, outlines: bool
) -> None:
    rows, grid = slide
    rows = [with_outlines(row) for row in rows] if outlines else rows
    both = {0: chosen, 1: MergeSettings()}
    merger = Merger(method=method, settings=both, grid=grid, kernels=KERNELS)
    parts = [merger.add(row, top) for row, top in zip(rows, tops_of(grid), strict=True)]
    assert merger.held == 0
    parts.append(merger.finish())
    whole = merge(Found.concatenate(rows), method=method, settings=both, grid=grid, kernels=KERNELS)
    assert content(Found.concatenate(parts)) == content(whole)


@given(slide=slides(), method=st.sampled_from(METHODS))
@settings(max_examples=40, deadline=None)
def test_what_is_given_out_does_not_wait_for_the_end_of_an_unfinished_slide(
    slide: tuple[list[Found], Grid], method: Method
) -> None:
    """The last row's promise missing, finish gives the rest."""
    rows, grid = slide
    merger = Merger(method=method, grid=grid, kernels=KERNELS)
    parts = [merger.add(row, top) for row, top in zip(rows, [*tops_of(grid)[:-1], 0.0], strict=True)]
    parts.append(merger.finish())
    whole = merge(Found.concatenate(rows), method=method, grid=grid, kernels=KERNELS)
    assert content(Found.concatenate(parts)) == content(whole)


@pytest.mark.parametrize(("overlap", "side_px"), [(0.2, 4096), (0.8, 2560)])
def test_what_is_held_does_not_grow_with_the_slide(overlap: float, side_px: int) -> None:
    """At most what two rows of windows without overlap hold, on a slide of five and of eight of them."""
    scene = simulate(side_px=side_px, overlap=overlap, probability=1.0)
    merger = Merger(grid=scene.grid, kernels=KERNELS)
    held = []
    given_out = 0
    for row, top in rows_of(scene):
        given_out += len(merger.add(row, top))
        held.append(merger.held)
    assert held[-1] == 0
    assert max(held) <= 2 * 512 / side_px * len(scene.found)
    assert given_out == len(merge(scene.found, kernels=KERNELS))


@pytest.mark.parametrize("method", ["drop-cut", "owner", "nms", "wbf"])
def test_boxes_that_overlap_in_one_chain_are_not_held_to_the_end_of_the_slide(method: Method) -> None:
    """Random boxes so dense that all of a slide is one chain: no more than three rows of windows wait."""
    rng = np.random.default_rng(0)
    region = Region(name="slide", x0=0, y0=0, width_px=260, height_px=4000)
    grid = Grid(region=region, window_px=WINDOW_PX, overlap_px=20)
    rows = [crowd_row(grid, row, rng, each=40, side_px=50) for row in range(grid.rows)]
    assert len(np.unique(components(len(everything := Found.concatenate(rows)), *touching(everything)))) < grid.rows
    merger = Merger(method=method, grid=grid, kernels=KERNELS)
    held = []
    for row, top in zip(rows, tops_of(grid), strict=True):
        merger.add(row, top)
        held.append(merger.held)
    assert held[-1] == 0
    assert max(held) <= 3 * max(map(len, rows))


def test_a_piece_waits_for_a_mean_that_may_lie_where_none_of_its_boxes_does() -> None:
    wide, high = ([0, 0, 100, 40], 0.5, 0, 0, 0), ([0, 0, 40, 100], 0.5, 0, 1, 0)
    piece = ([60, 60, 69, 69], 0.9, 0, 2, RIGHT)
    given = found_of(wide, high, piece)
    merger = Merger(method="wbf", settings=MergeSettings(iou=0.2), kernels=KERNELS)
    assert len(merger.add(given, 90)) == 0
    rest = merger.finish()
    assert rest.detections.boxes.tolist() == [[0, 0, 70, 70]]
    assert content(rest) == content(merge(given, method="wbf", settings=MergeSettings(iou=0.2), kernels=KERNELS))


def touching(found: Found) -> tuple[Array, Array]:
    boxes = found.detections.boxes.astype(np.float64)
    return KERNELS.touching(boxes, boxes)


def test_a_row_above_what_was_promised_is_refused() -> None:
    merger = Merger()
    merger.add(found_of(([0, 0, 10, 10], 0.5, 0, 0, 0)), 75)
    with pytest.raises(InputError, match="from y = 70.0 on, expected none above 75.0"):
        merger.add(found_of(([0, 70, 10, 90], 0.5, 0, 5, 0)), 150)


def test_more_of_a_window_that_was_given_is_refused() -> None:
    merger = Merger()
    merger.add(found_of(([0, 0, 10, 10], 0.5, 0, 7, 0)), 5)
    with pytest.raises(InputError, match="got more of window 7"):
        merger.add(found_of(([0, 6, 10, 16], 0.5, 0, 7, 0)), 20)


def test_a_finished_merger_takes_the_next_slide() -> None:
    merger = Merger()
    assert len(merger.add(found_of(([0, 500, 10, 510], 0.5, 0, 0, 0)), 500)) == 0
    assert len(merger.finish()) == 1
    assert len(merger.add(found_of(([0, 0, 10, 10], 0.5, 0, 0, RIGHT)), 500)) == 1


def test_what_is_wrong_is_told_at_the_row_where_it_comes() -> None:
    with pytest.raises(DataError, match="expected finite"):
        Merger().add(found_of(([0, 0, math.nan, 10], 0.5, 0, 0, 0)), 75)
    with pytest.raises(InputError, match="needs the grid"):
        Merger(method="owner")
    with pytest.raises(InputError, match="no merge method"):
        Merger(method="sum")  # type: ignore[arg-type]
    assert len(Merger(method="owner", grid=grid_of(175, 25)).finish()) == 0


class CountingKernels(NumpyKernels):
    """Notes how many boxes were compared with others."""

    def __init__(self) -> None:
        self.compared: list[int] = []

    def touching(self, a: Array, b: Array, *, reach_px: float = 0.0) -> tuple[Array, Array]:
        self.compared.append(max(len(a), len(b)))
        return super().touching(a, b, reach_px=reach_px)


@pytest.mark.parametrize("method", ["drop-cut", "nms", "union"])
def test_what_is_held_of_a_crowd_is_not_compared_again_with_every_row(method: Method) -> None:
    """Each box overlaps the one before, so that all of the slide is one group until its end."""
    rows = [
        found_of(*(([0, y, 20, y + 20], 0.5 + y / 1e5, 0, y, 0) for y in (top, top + 8))) for top in range(0, 800, 16)
    ]
    kernels = CountingKernels()
    merger = Merger(method=method, kernels=kernels)
    parts = []
    for n, row in enumerate(rows, start=1):
        parts.append(merger.add(row, 16.0 * n))
        assert merger.held == 2 * n
    assert max(kernels.compared) <= 2 + 2
    parts.append(merger.finish())
    assert content(Found.concatenate(parts)) == content(merge(Found.concatenate(rows), method=method, kernels=KERNELS))
