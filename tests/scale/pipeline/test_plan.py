from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.core.errors import InputError
from redline.core.tensor import Array
from scale.pipeline.plan import ModelShape, Plan, PlanOptions, SlideShape, bands, make_plan, reading_order
from scale.regions.grid import Grid, Region
from scale.slides.base import levels_of


def region(width_px: int = 1000, height_px: int = 800, *, x0: int = 0, y0: int = 0, name: str = "slide") -> Region:
    return Region(name=name, x0=x0, y0=y0, width_px=width_px, height_px=height_px)


def shape(name: str = "a", window_px: int = 100, batch: int = 4, form: str = "f") -> ModelShape:
    return ModelShape(name=name, window_px=window_px, batch=batch, input_hw=(64, 64), form=form)


def flat(mpp: float | None = None) -> SlideShape:
    return SlideShape(levels=levels_of([(40000, 40000), (10000, 10000), (2500, 2500)]), mpp=mpp)


def plan_of(*models: ModelShape, options: PlanOptions | None = None, regions: list[Region] | None = None) -> Plan:
    return make_plan(flat(), regions or [region()], models or (shape(),), options or PlanOptions())


def windows_of(plan: Plan) -> Counter[tuple[int, int, int]]:
    return Counter(
        (strip.layout, row, column)
        for strip in plan.strips
        for row, column in zip(strip.rows.tolist(), strip.columns.tolist(), strict=True)
    )


plans = st.builds(
    lambda width, height, windows, batch, least, overlap: plan_of(
        *(shape(str(n), window, batch) for n, window in enumerate(windows)),
        options=PlanOptions(overlap=overlap, strip_windows=least),
        regions=[region(width, height, x0=5, y0=7), region(height, width, name="other")],
    ),
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.lists(st.sampled_from([40, 90, 250, 700]), min_size=1, max_size=3, unique=True),
    st.integers(1, 9),
    st.sampled_from([1, 5, 20, None]),
    st.sampled_from([0.0, 0.2, 0.5]),
)


@settings(max_examples=60, deadline=None)
@given(plans)
def test_every_window_is_in_one_strip_and_read_once(plan: Plan) -> None:
    expected = Counter(
        (number, row, column)
        for number, layout in enumerate(plan.layouts)
        for row in range(layout.grid.rows)
        for column in range(layout.grid.columns)
    )
    assert windows_of(plan) == expected
    owner, within = reading_order(plan, plan.strips)
    assert Counter(zip(owner.tolist(), within.tolist(), strict=True)) == Counter(
        (number, position) for number, strip in enumerate(plan.strips) for position in range(len(strip))
    )


@settings(max_examples=60, deadline=None)
@given(plans)
def test_each_group_has_at_most_one_batch_that_waits_for_windows(plan: Plan) -> None:
    # What the number of permits of the pipeline relies on.
    waiting: dict[int, tuple[int, int]] = {}
    for owner, within in zip(*(array.tolist() for array in reading_order(plan, plan.strips)), strict=True):
        strip = plan.strips[owner]
        group, batch = plan.layouts[strip.layout].group, plan.group_of(strip).batch
        if within % batch == 0:
            assert group not in waiting
            waiting[group] = (owner, within)
        assert waiting[group] == (owner, within - within % batch)
        if within % batch == batch - 1 or within == len(strip) - 1:
            del waiting[group]
    assert not waiting


@settings(max_examples=60, deadline=None)
@given(plans)
def test_only_the_last_batch_of_a_layout_may_need_padding(plan: Plan) -> None:
    for number in range(len(plan.layouts)):
        strips = [strip for strip in plan.strips if strip.layout == number]
        assert all(len(strip) % plan.group_of(strip).batch == 0 for strip in strips[:-1])


def test_models_of_one_window_batch_and_form_share_their_windows() -> None:
    plan = plan_of(shape("a"), shape("b"), shape("wide", 300), shape("other", form="gray"), shape("one", batch=1))
    assert [group.models for group in plan.groups] == [(0, 1), (2,), (3,), (4,)]
    seen = plan.inferences_of()
    assert seen["a"] == seen["b"] == len(plan.layouts[0])
    assert plan.inferences == sum(seen.values())
    assert plan.windows == sum(len(layout) for layout in plan.layouts)


def test_a_strip_has_eight_batches_where_there_are_enough_windows() -> None:
    plan = plan_of(shape(batch=32), options=PlanOptions(overlap=0.5))
    assert len(plan.strips) == 1
    assert {len(strip) for strip in plan_of(shape(batch=2), options=PlanOptions(overlap=0.5)).strips[:-1]} == {128}


@dataclass(frozen=True)
class Left:
    """A mask of what lies to the left of an edge."""

    x0: int

    def touching(self, grid: Grid) -> Array:
        return np.array([window.x0 < self.x0 for window in grid])


def test_windows_without_tissue_are_left_out_and_the_edges_towards_them_are_no_inner_edges() -> None:
    plan = make_plan(flat(), [region()], [shape()], PlanOptions(overlap=0.25), mask=Left(300))
    layout = plan.layouts[0]
    columns = sum(x < 300 for x in layout.grid.columns_x0)
    assert layout.kept.sum(axis=1).tolist() == [columns] * layout.grid.rows
    assert (layout.edges[:, columns - 1] & 4 == 0).all()
    assert (layout.edges[:, columns - 2] & 4 == 4).all()
    assert plan.windows == len(layout) == columns * layout.grid.rows


def test_a_slide_without_tissue_has_no_strip() -> None:
    plan = make_plan(flat(), [region()], [shape()], PlanOptions(), mask=Left(-1))
    assert (plan.strips, plan.windows, plan.inferences) == ((), 0, 0)
    assert len(reading_order(plan, plan.strips)[0]) == 0


def test_a_target_resolution_makes_windows_larger_on_finer_slides() -> None:
    plan = make_plan(flat(mpp=0.25), [region()], [shape()], PlanOptions(mpp=0.5, overlap=0.25))
    group = plan.groups[0]
    assert (group.window_px, group.overlap_px, group.level, group.read_px, group.scale) == (200, 50, 0, 200, 1)
    group = make_plan(flat(mpp=0.1), [region()], [shape()], PlanOptions(mpp=0.5)).groups[0]
    assert (group.window_px, group.level, group.read_px, group.scale) == (500, 1, 125, 4)


def test_a_slide_that_does_not_say_its_resolution_is_taken_as_it_is_and_that_is_said() -> None:
    plan = make_plan(flat(), [region()], [shape()], PlanOptions(mpp=0.5))
    assert plan.groups[0].window_px == 100
    assert "does not say its micrometres" in plan.notes[0]
    assert make_plan(flat(mpp=0.5), [region()], [shape()], PlanOptions(mpp=0.5)).notes == ()


def test_large_windows_come_from_the_pyramid_only_where_that_is_asked_for() -> None:
    large = shape(window_px=3084)
    assert plan_of(large).groups[0].level == 0
    group = plan_of(large, options=PlanOptions(pyramid=True)).groups[0]
    assert (group.level, group.read_px) == (2, 193)  # 3084 / 64 allows a downsample of 48, of which 16 is there


def test_what_is_kept_of_the_slide_does_not_grow_with_it() -> None:
    sizes = [plan_of(shape(window_px=640), regions=[region(side, side)]).cache_bytes for side in (5000, 10000, 40000)]
    assert max(sizes) <= 64 << 20
    assert plan_of(shape(window_px=3084), regions=[region(40000, 40000)]).cache_bytes < 300 << 20


@pytest.mark.parametrize(("windows", "most"), [((640,), 1.05), ((514, 3084), 1.3)])
def test_nearly_every_source_tile_is_decoded_once(windows: tuple[int, ...], most: float) -> None:
    width, height, tile = 30_000, 16_000, 256
    models = [shape(str(window), window) for window in windows]
    plan = plan_of(*models, options=PlanOptions(overlap=0.25), regions=[region(width, height)])
    room = plan.cache_bytes // (tile * tile * 3)
    kept: OrderedDict[tuple[int, int], None] = OrderedDict()
    decoded = 0
    for owner, within in zip(*(array.tolist() for array in reading_order(plan, plan.strips)), strict=True):
        strip = plan.strips[owner]
        grid, size = plan.layouts[strip.layout].grid, plan.group_of(strip).window_px
        x0, y0 = grid.columns_x0[strip.columns[within]], grid.rows_y0[strip.rows[within]]
        for y in range(y0 // tile, (y0 + size - 1) // tile + 1):
            for x in range(x0 // tile, (x0 + size - 1) // tile + 1):
                decoded += (x, y) not in kept
                kept[x, y] = None
                kept.move_to_end((x, y))
                if len(kept) > room:
                    kept.popitem(last=False)
    assert decoded <= most * (-(-width // tile) * -(-height // tile))


def test_bands_have_every_row_once_in_order() -> None:
    plan = plan_of(shape(window_px=640), regions=[region(40000, 40000, y0=123)])
    found = list(bands(plan, plan.layouts[0]))
    assert len(found) > 1
    assert [row for start, end in found for row in range(start, end)] == list(range(plan.layouts[0].grid.rows))


@pytest.mark.parametrize(
    ("models", "options", "told"),
    [
        ([], {}, "got no model"),
        ([shape("a"), shape("a")], {}, "two models are called 'a'"),
        ([shape(window_px=0)], {}, "window 0 px"),
        ([shape()], {"overlap": 1.5}, "overlap"),
        ([shape()], {"overlap": 100}, "less than the window"),
        ([shape()], {"mpp": 0}, "micrometres"),
        ([shape()], {"mpp": float("inf")}, "micrometres"),
        ([shape(window_px=40_000)], {}, "a: got windows of 40,000 px of the slide, expected at most 32,768"),
        ([shape()], {"strip_windows": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_planned_is_refused(models: list[ModelShape], options: dict[str, float], told: str) -> None:
    with pytest.raises(InputError, match=told):
        make_plan(flat(), [region()], models, PlanOptions(**options))  # type: ignore[arg-type]
