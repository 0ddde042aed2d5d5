from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image
from tests.scale.fake_slide import FakeSlide
from tests.scale.viewer.made import picture

from redline.core.errors import RequestError
from scale.viewer.tiles import TILE_PX, SlideTiles, blank_jpeg, max_level, tile_size

LEVELS = [(1,), (1, 2, 4, 8), (1, 4, 16), (1, 16)]


def decoded(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg))).astype(float)


def shrunk(array: np.ndarray, down: int) -> np.ndarray:
    """The whole slide as means of squares, white where there is none."""
    height, width = (math.ceil(side / down) for side in array.shape[:2])
    padded = np.full((height * down, width * down, 3), 255, np.float32)
    padded[: array.shape[0], : array.shape[1]] = array
    return padded.reshape(height, down, width, down, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("levels", LEVELS)
def test_every_tile_of_every_level_shows_its_part(levels: tuple[int, ...]) -> None:
    array = picture(1500, 1100)
    tiles = SlideTiles(FakeSlide(array, levels))
    assert max_level(1500, 1100) == 11
    for level in range(12):
        down = 2 ** (11 - level)
        whole = shrunk(array, down)
        for row in range(math.ceil(1100 / down / TILE_PX)):
            for column in range(math.ceil(1500 / down / TILE_PX)):
                got = decoded(tiles.tile(level, column, row))
                wanted = whole[row * TILE_PX :, column * TILE_PX :][:TILE_PX, :TILE_PX]
                assert got.shape == wanted.shape
                # The last row and column of a level may show more or less of the white around the slide; and in a few
                # pixels JPEG, which halves the resolution of colors, mixes those of both sides of the edge.
                inner = got[:-2, :-2] - wanted[:-2, :-2]
                if min(inner.shape[:2]) >= 32:
                    assert np.abs(inner).mean() < 4, (level, column, row)


def test_the_edge_in_the_middle_stays_where_it_is() -> None:
    """Half a pixel beside its place at any level would show as a shift of the edge when one zooms."""
    array = picture(2048, 1024)
    for levels in LEVELS:
        tiles = SlideTiles(FakeSlide(array, levels))
        for down in (1, 2, 4, 8):
            part = tiles.part(768, 0, 512 // down, 64, down).astype(float)[..., 2].mean(axis=0)
            left, right = part[: 256 // down], part[256 // down :]
            assert left.mean() > 195
            assert right.mean() < 25


def test_full_size_pixels_are_those_of_the_slide() -> None:
    array = picture(1500, 1100)
    np.testing.assert_array_equal(
        SlideTiles(FakeSlide(array, (1, 4))).part(512, 512, 512, 512, 1), array[512:1024, 512:1024]
    )


def test_the_coarsest_level_that_is_fine_enough_is_read() -> None:
    slide = FakeSlide(picture(1500, 1100), (1, 4))
    for down, level in ((8, 1), (4, 1), (2, 0), (3.9, 0)):
        slide.reads.clear()
        SlideTiles(slide).part(0, 0, 100, 100, down)
        assert {read[-1] for read in slide.reads} == {level}, down


def test_a_slide_without_levels_is_read_once_and_never_at_once() -> None:
    slide = FakeSlide(np.full((2300, 5000, 3), 200, np.uint8))
    tiles = SlideTiles(slide)
    tiles.tile(5, 0, 0)
    first = len(slide.reads)
    assert sum(width * height for *_, width, height, _ in slide.reads) == 5000 * 2300
    assert max(width * height for *_, width, height, _ in slide.reads) <= 2048 * 2048
    tiles.tile(4, 0, 0)
    tiles.thumbnail(200)
    assert len(slide.reads) == first


@pytest.mark.parametrize("place", [(12, 0, 0), (-1, 0, 0), (11, 3, 0), (11, 0, 3), (0, 1, 0), (11, -1, 0)])
def test_a_tile_that_there_is_not(place: tuple[int, int, int]) -> None:
    with pytest.raises(RequestError, match="there is no"):
        tile_size(1500, 1100, *place)


def test_thumbnails_keep_the_shape() -> None:
    thumbnail = decoded(SlideTiles(FakeSlide(picture(1500, 1100), (1, 4))).thumbnail(256))
    assert thumbnail.shape == (188, 256, 3)
    assert decoded(SlideTiles(FakeSlide(picture(40, 9), (1,))).thumbnail(256)).shape == (9, 40, 3)
    assert (decoded(blank_jpeg(7, 5)) == 255).all()
