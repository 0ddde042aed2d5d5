"""Tissue masks: nothing on glass, everything in tissue, no window with tissue ever left out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scale.fake_slide import FakeSlide, glass, stain

import scale
from redline.core.tensor import Array
from scale.regions.grid import Grid, Region
from scale.regions.tissue import TissueMask, tissue_mask, tissue_of
from scale.slides.opening import open_slide

REAL = Path(scale.__path__[0]) / "assets" / "cmu_small_region.svs"
WIDTH, HEIGHT = 1600, 1200


def noisy(array: Array, spread: float = 3.0) -> Array:
    grain = np.random.default_rng(1).normal(0, spread, array.shape)
    return np.clip(np.rint(array + grain), 0, 255).astype(np.uint8)


def share(array: Array, *, margin_px: int = 1) -> float:
    return tissue_mask(FakeSlide(array), margin_px=margin_px).share


@pytest.mark.parametrize(
    "array",
    [
        np.full((HEIGHT, WIDTH, 3), 255, np.uint8),
        np.zeros((HEIGHT, WIDTH, 3), np.uint8),
        glass(WIDTH, HEIGHT),
        noisy(glass(WIDTH, HEIGHT)),
        np.full((HEIGHT, WIDTH, 3), (246, 244, 238), np.uint8),
        np.full((8, 8, 3), 255, np.uint8),
    ],
    ids=["white", "black", "glass", "noise", "warm light", "tiny"],
)
def test_where_there_is_no_tissue_there_is_none(array: Array) -> None:
    mask = tissue_mask(FakeSlide(array))
    assert mask.share == 0
    assert not mask.touches(0, 0, WIDTH, HEIGHT)
    assert not mask.image().any()


def test_where_all_is_tissue_pale_parts_stay() -> None:
    array = np.full((HEIGHT, WIDTH, 3), (225, 190, 215), np.uint8)
    array[:, WIDTH // 2 :] = (130, 50, 120)
    assert share(noisy(array)) > 0.999


def test_drawn_tissue_is_found_with_its_border_and_little_else() -> None:
    array = noisy(glass(WIDTH, HEIGHT))
    stain(array, 400, 300, 500, 400)
    truth = array[:, :, 1] < 150
    mask = tissue_mask(FakeSlide(array), margin_px=20)
    assert mask.downsample == 1
    assert not (truth & ~mask.mask).any()
    assert 1 < mask.mask.sum() / truth.sum() < 1.3
    assert set(np.unique(mask.image())) == {0, 255}
    assert mask.image().dtype == np.uint8


def test_a_small_biopsy_on_a_large_glass_is_found() -> None:
    array = noisy(glass(4000, 1000))
    stain(array, 3000, 500, 40, 30, colour=(215, 160, 200))
    mask = tissue_mask(FakeSlide(array), margin_px=10)
    assert mask.touches(3015, 510, 5, 5)
    assert mask.share < 0.002


def test_black_padding_is_no_tissue_but_black_inside_tissue_is() -> None:
    array = glass(WIDTH, HEIGHT)
    array[:, :300] = array[:150] = 0
    stain(array, 500, 300, 1000, 850)
    stain(array, 650, 400, 700, 650, colour=(5, 5, 5))
    mask = tissue_mask(FakeSlide(array), margin_px=10).mask
    assert not mask[:, :300].any()
    assert not mask[:150].any()
    assert not mask[150:280, 300:].any()
    assert mask[500:950, 750:1250].all()


def test_black_padding_beside_averaged_pixels_leaves_no_line() -> None:
    array = glass(2400, 1800)
    array[:, :333] = 0
    slide = FakeSlide(array, levels=(1, 2))
    assert slide.levels[1].width_px == 1200
    assert tissue_mask(slide).share == 0


def test_gray_tissue_is_found_by_its_darkness() -> None:
    array = noisy(glass(WIDTH, HEIGHT))
    stain(array, 400, 300, 500, 400, colour=(150, 150, 150))
    truth = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stain(truth, 400, 300, 500, 400, colour=(1, 1, 1))
    mask = tissue_mask(FakeSlide(array), margin_px=5).mask
    assert not ((truth[:, :, 0] > 0) & ~mask).any()
    assert mask.sum() < 1.3 * truth[:, :, 0].sum()


@pytest.mark.parametrize("pen", [(20, 20, 25), (0, 120, 40), (30, 60, 200)], ids=["black", "green", "blue"])
def test_pen_marks_do_not_hide_tissue(pen: tuple[int, int, int]) -> None:
    array = noisy(glass(WIDTH, HEIGHT))
    stain(array, 400, 300, 500, 400, colour=(225, 185, 212))
    array[100:160] = array[:, 1400:1480] = pen
    mask = tissue_mask(FakeSlide(array), margin_px=5).mask
    assert mask[400:600, 600:700].all()
    assert not mask[800:1100, 100:1300].any()


def test_specks_go_and_small_holes_are_filled_large_ones_not() -> None:
    array = glass(WIDTH, HEIGHT)
    array[50:52, 50:52] = (200, 90, 160)
    array[300:1150, 300:1500] = (200, 90, 160)
    array[400:420, 400:420] = array[500:1100, 600:1400] = 244
    mask = tissue_mask(FakeSlide(array), margin_px=1).mask
    assert not mask[:200, :200].any()
    assert mask[400:420, 400:420].all()
    assert not mask[520:1080, 620:1380].any()


def test_thin_tissue_keeps_its_outline_and_gets_its_margin() -> None:
    array = glass(WIDTH, HEIGHT)
    array[500:900, 400:800] = (200, 90, 160)
    array[699:701, 800:1000] = (200, 90, 160)
    mask = tissue_mask(FakeSlide(array), margin_px=8).mask
    assert mask[700, 400:1000].all()
    assert mask[492:908, 402:798].all()
    assert not mask[:485].any()


def test_a_mask_is_made_once_per_margin() -> None:
    slide = FakeSlide(glass(WIDTH, HEIGHT))
    assert tissue_mask(slide) is tissue_mask(slide)
    assert tissue_mask(slide, margin_px=5) is not tissue_mask(slide)
    assert len(slide.reads) == 1


def test_a_slide_of_one_large_level_is_read_in_bounded_pieces() -> None:
    array = glass(5000, 4000)
    stain(array, 3500, 2800, 900, 700)
    slide = FakeSlide(array)
    mask = tissue_mask(slide)
    assert mask.mask.size <= 4_200_000
    assert len(slide.reads) > 1
    assert max(width * height for _, _, width, height, _ in slide.reads) <= 16_000_000
    assert mask.touches(3900, 3100, 10, 10)
    assert not mask.touches(1000, 500, 2000, 2000)


@settings(deadline=None)
@given(st.data())
def test_no_window_with_a_pixel_of_the_mask_is_left_out_and_far_ones_are(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    downsample = data.draw(st.sampled_from([1.0, 2.0, 3.7, 16.02]))
    bits = data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    mask = TissueMask(mask=np.reshape(bits, (rows, columns)), downsample=downsample)
    region = Region(
        name="slide",
        x0=0,
        y0=0,
        width_px=math.ceil(columns * downsample),
        height_px=math.ceil(rows * downsample),
    )
    window = data.draw(st.integers(1, 40))
    grid = Grid(region=region, window_px=window, overlap_px=data.draw(st.integers(0, window - 1)))
    touching = mask.touching(grid)
    assert touching.dtype == bool
    w = grid.window(data.draw(st.integers(0, grid.rows - 1)), data.draw(st.integers(0, grid.columns - 1)))
    found = bool(touching[w.index])
    assert found == mask.touches(w.x0, w.y0, window, window)
    assert found or not pixels_in(mask, w.x0, w.y0, window, 0.0).any()
    assert not found or pixels_in(mask, w.x0, w.y0, window, 2.0).any()


def pixels_in(mask: TissueMask, x0: int, y0: int, size: int, spare: float) -> Array:
    """The mask's pixels that a square overlaps, with some pixels around."""
    rows, columns = np.indices(mask.mask.shape)
    first_x, first_y = x0 / mask.downsample - spare, y0 / mask.downsample - spare
    last_x, last_y = (x0 + size) / mask.downsample + spare, (y0 + size) / mask.downsample + spare
    inside = (columns + 1 > first_x) & (columns < last_x) & (rows + 1 > first_y) & (rows < last_y)
    return mask.mask[inside]


def test_rectangles_outside_the_slide_touch_nothing() -> None:
    mask = TissueMask(mask=np.ones((10, 10), bool), downsample=4.0)
    assert mask.share == 1
    assert mask.touches(-100, -100, 101, 101)
    for x0, y0 in ((-200, 0), (0, -200), (60, 0), (0, 60)):
        assert not mask.touches(x0, y0, 10, 10)


def test_colour_decides_only_where_there_is_some() -> None:
    assert tissue_of(np.full((20, 20, 3), (200, 90, 160), np.uint8)).all()
    assert not tissue_of(glass(20, 20)).any()


def test_of_the_real_slide_the_glass_is_left_out() -> None:
    with open_slide(REAL) as slide:
        mask = tissue_mask(slide)
        assert 0.5 < mask.share < 0.7
        assert mask.touches(1000, 1500, 64, 64)
        assert mask.touches(300, 1080, 64, 64)  # a thread of tissue, 60 px thin
        for x0, y0 in ((300, 300), (200, 2000), (1950, 100), (2000, 2700)):
            assert not mask.touches(x0, y0, 150, 150)
