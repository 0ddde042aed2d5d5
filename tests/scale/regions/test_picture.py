"""Pictures of slides: from the right level, bounded in size and in what is read at a time, with their way back."""

from __future__ import annotations

import numpy as np
import pytest
from tests.scale.fake_slide import FakeSlide, averages, glass, stain

from scale.regions.grid import Region
from scale.regions.picture import Picture, overview, picture_of, whole_slide


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_coarsest_level_that_is_wide_enough_is_read_whole() -> None:
    slide = FakeSlide(noise(4800, 1600), levels=(1, 4, 16))
    picture = overview(slide)
    assert slide.reads == [(0, 0, 1200, 400, 1)]
    assert picture.downsample == 4
    assert picture.region == whole_slide(slide)
    assert np.array_equal(picture.pixels, slide.read(0, 0, 1200, 400, level=1))


def test_it_is_read_once() -> None:
    slide = FakeSlide(noise(1200, 40))
    assert overview(slide) is overview(slide)
    assert len(slide.reads) == 1


def test_a_single_huge_level_is_averaged_band_by_band() -> None:
    array = noise(600, 400)
    slide = FakeSlide(array)
    picture = picture_of(slide, whole_slide(slide), most_px=600 * 400 // 25, band_px=12_000)
    assert picture.downsample == 5
    assert [read[3] for read in slide.reads] == [20] * 20
    assert np.abs(picture.pixels.astype(int) - averages(array, 5)).max() <= 1


def test_a_band_is_never_less_than_a_row_of_the_picture() -> None:
    slide = FakeSlide(noise(600, 400))
    picture_of(slide, whole_slide(slide), most_px=600 * 400 // 25, band_px=1)
    assert {read[3] for read in slide.reads} == {5}


def test_bands_of_a_coarse_level_follow_each_other() -> None:
    slide = FakeSlide(noise(1600, 1200), levels=(1, 4))
    picture = picture_of(slide, whole_slide(slide), least_width_px=400, most_px=30_000, band_px=8_000)
    assert slide.reads == [(0, y0, 400, 20, 1) for y0 in range(0, 1200, 80)]
    assert picture.downsample == 8
    expected = averages(slide.read(0, 0, 400, 300, level=1), 2)
    assert np.abs(picture.pixels.astype(int) - expected).max() <= 1


def test_sides_that_do_not_divide_keep_their_last_pixels() -> None:
    array = glass(601, 403)
    array[-3:, :] = array[:, -1:] = (10, 20, 30)
    picture = picture_of(FakeSlide(array), Region(name="all", x0=0, y0=0, width_px=601, height_px=403), most_px=9694)
    assert picture.downsample == 5
    assert picture.pixels.shape == (81, 121, 3)
    assert picture.pixels[-1, -1].tolist() == [10, 20, 30]


def test_a_part_is_read_from_a_level_that_shows_enough_of_it() -> None:
    slide = FakeSlide(noise(2400, 2700), levels=(1, 4))
    region = Region(name="part", x0=1000, y0=2000, width_px=1100, height_px=600)
    picture = picture_of(slide, region)
    assert slide.reads == [(1000, 2000, 1100, 600, 0)]
    assert picture.downsample == 1
    picture_of(slide, region, least_width_px=200)
    assert slide.reads[-1] == (1000, 2000, 275, 150, 1)


def test_levels_of_rounded_sizes_are_not_read_beyond_their_end() -> None:
    slide = FakeSlide(noise(4103, 2051), levels=(1, 4))
    overview(slide)
    assert slide.reads == [(0, 0, 1025, 512, 1)]


def test_pixels_stand_for_rectangles_of_level_0_and_the_last_reach_the_end() -> None:
    region = Region(name="part", x0=100, y0=200, width_px=1003, height_px=507)
    picture = Picture(pixels=glass(250, 126), region=region, downsample=4.0)
    inside = picture.region_of("piece", left=2, top=3, width=10, height=20)
    assert inside == Region(name="piece", x0=108, y0=212, width_px=40, height_px=80)
    end = picture.region_of("end", left=249, top=120, width=1, height=6)
    assert (end.x0 + end.width_px, end.y0 + end.height_px) == (1103, 707)
    assert (end.x0, end.y0) == (100 + 996, 200 + 480)


@pytest.mark.parametrize("downsample", [1.0, 2.5, 16.1])
def test_a_rectangle_lies_in_its_region_and_is_never_empty(downsample: float) -> None:
    region = Region(name="part", x0=5, y0=6, width_px=40, height_px=30)
    picture = Picture(pixels=glass(41, 31), region=region, downsample=downsample)
    for left, width in ((0, 1), (3, 10), (40, 1), (0, 41)):
        found = picture.region_of("piece", left=left, top=0, width=width, height=1)
        assert found.x0 >= 5
        assert found.x0 + found.width_px <= 45


def test_drawn_tissue_is_where_it_was_drawn() -> None:
    array = glass(3000, 2000)
    stain(array, 900, 600, 600, 400)
    picture = picture_of(
        FakeSlide(array), Region(name="all", x0=0, y0=0, width_px=3000, height_px=2000), most_px=60_000
    )
    rows, columns = np.nonzero(picture.pixels[:, :, 1] < 200)
    assert abs(columns.min() * picture.downsample - 900) <= picture.downsample
    assert abs((rows.max() + 1) * picture.downsample - 1000) <= picture.downsample
