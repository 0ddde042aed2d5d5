"""The reader that has OpenSlide do the work gives OpenSlide's pixels at any level and place."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.scale.slides.truth import cut_out, nearest, openslide_level
from tests.scale.slides_tools import make_pyramid

from scale.slides.cache import TileCache
from scale.slides.opening import open_slide


@pytest.fixture(scope="module")
def halves(slides_folder):
    """Levels that are whole fractions of each other."""
    return make_pyramid(slides_folder / "halves.tif", 1600, 1200, levels=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2), st.integers(-500, 1900), st.integers(-500, 1900), st.integers(1, 900), st.integers(1, 900))
def test_any_rectangle_of_any_level(halves, level, x0, y0, width, height):
    with open_slide(halves, reader="openslide", cache=TileCache()) as slide:
        downsample = slide.levels[level].downsample
        window = slide.read(x0, y0, width, height, level=level)
    x, y = nearest(x0, downsample), nearest(y0, downsample)
    np.testing.assert_array_equal(window, cut_out(openslide_level(halves, level), x, y, width, height))


def test_levels_of_odd_sizes_are_shifted_by_less_than_half_a_pixel(pyramid):
    with open_slide(pyramid, reader="openslide", cache=TileCache()) as slide:
        level = slide.levels[1]
        found = slide.read(0, 0, level.width_px, level.height_px, level=1)
    truth = openslide_level(pyramid, 1).astype(int)
    assert np.abs(found - truth).mean() < np.abs(truth[:, 1:] - truth[:, :-1]).mean() / 2


def test_a_block_is_asked_for_once(halves):
    cache = TileCache()
    with open_slide(halves, reader="openslide", cache=cache) as slide:
        for x0 in range(0, 500, 50):
            slide.read(x0, 0, 512, 512)
        assert cache.stats().misses == 2
