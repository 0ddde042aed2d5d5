"""Every rectangle of every level has OpenSlide's pixels, and is white outside the slide."""

import os
import threading

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.scale.slides.truth import cut_out, nearest, openslide_level
from tests.scale.slides_tools import REAL_DICOM, REAL_SVS, mirrored

from redline.core.errors import InputError
from scale.slides.cache import TileCache
from scale.slides.opening import open_slide
from scale.slides.tiled import TiffTiles

SLIDES = ["svs", "dicom", "pyramid", "aperio", "ome"]
SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=SLIDES)
def path(request):
    given_paths = {"svs": REAL_SVS, "dicom": REAL_DICOM}
    return given_paths.get(request.param) or request.getfixturevalue(request.param)


@pytest.fixture
def slide(path):
    with open_slide(path, cache=TileCache()) as opened:
        yield opened


@pytest.fixture(scope="session")
def ome_level():
    """Levels below the first of an OME-TIFF, which OpenSlide does not see."""
    return lambda path, level: tifffile.imread(path, series=0, level=level)


def test_whole_levels_are_equal(slide, path, ome_level):
    for number, level in enumerate(slide.levels):
        whole = slide.read(0, 0, level.width_px, level.height_px, level=number)
        assert whole.dtype == np.uint8
        assert whole.flags.c_contiguous
        truth = ome_level if number and path.name.endswith(".ome.tif") else openslide_level
        np.testing.assert_array_equal(whole, truth(path, number))


def test_levels_are_those_of_openslide(slide, path):
    import openslide

    with openslide.OpenSlide(path) as truth:
        count = truth.level_count
        assert [(level.width_px, level.height_px) for level in slide.levels][:count] == list(truth.level_dimensions)
        assert [level.downsample for level in slide.levels][:count] == pytest.approx(list(truth.level_downsamples))
    assert len(slide.levels) == (3 if path.name.endswith(".ome.tif") else count)


@SHARED
@given(data=st.data())
def test_any_rectangle_is_equal(slide, path, ome_level, data):
    number = data.draw(st.integers(0, len(slide.levels) - 1), "level")
    level, first = slide.levels[number], slide.levels[0]
    width, height = data.draw(st.integers(1, 700), "width"), data.draw(st.integers(1, 700), "height")
    x0 = data.draw(st.integers(-900, first.width_px + 300), "x0")
    y0 = data.draw(st.integers(-900, first.height_px + 300), "y0")
    truth = ome_level if number and path.name.endswith(".ome.tif") else openslide_level
    x, y = nearest(x0, level.downsample), nearest(y0, level.downsample)
    window = slide.read(x0, y0, width, height, level=number)
    assert window.shape == (height, width, 3)
    assert window.flags.c_contiguous
    assert window.flags.writeable
    np.testing.assert_array_equal(window, cut_out(truth(path, number), x, y, width, height))


@SHARED
@given(x=st.integers(0, 600), level=st.integers(0, 3))
def test_a_pixel_of_a_level_is_found_again(pyramid, x, level):
    with open_slide(pyramid, cache=TileCache()) as slide:
        chosen = slide.levels[level]
        x %= chosen.width_px
        found = slide.read(round(x * chosen.downsample), 0, 1, 1, level=level)
    np.testing.assert_array_equal(found[0, 0], openslide_level(pyramid, level)[0, x])


def test_outside_is_white(slide):
    first = slide.levels[0]
    for x0, y0 in [(-600, 0), (0, -600), (first.width_px, 0), (0, first.height_px), (10**9, 10**9), (-(10**9), 0)]:
        assert slide.read(x0, y0, 512, 512).min() == 255


def test_what_is_read_is_the_callers(slide):
    window = slide.read(300, 300, 64, 64)
    kept = window.copy()
    window[:] = 0
    np.testing.assert_array_equal(slide.read(300, 300, 64, 64), kept)


def test_a_rectangle_or_level_that_is_not_there_is_refused(slide):
    for width, height in [(0, 5), (5, 0), (-1, 5)]:
        with pytest.raises(InputError, match=f"{width}x{height} pixels; expected at least 1x1"):
            slide.read(0, 0, width, height)
    for level in (-1, 9):
        with pytest.raises(InputError, match=f"got level {level}; expected 0 to"):
            slide.read(0, 0, 5, 5, level=level)


def test_many_threads_read_what_one_reads(slide, path):
    # So small a cache that tiles come and go while others wait for them.
    whole = openslide_level(path, 0)
    rng = np.random.default_rng(0)
    with open_slide(path, cache=TileCache(3_000_000)) as shared:
        failures = []

        def read(places):
            for x, y in places:
                if not np.array_equal(shared.read(x, y, 300, 300), cut_out(whole, x, y, 300, 300)):
                    failures.append((x, y))

        places = rng.integers(-100, 1300, (4, 40, 2)).tolist()
        threads = [threading.Thread(target=read, args=(each,)) for each in places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_overlapping_windows_decode_each_tile_once(aperio):
    cache = TileCache()
    with open_slide(aperio, cache=cache) as slide:
        for y0 in range(0, 600, 100):
            for x0 in range(0, 1000, 100):
                slide.read(x0, y0, 500, 500)
    assert cache.stats().misses == 6 * 4
    assert cache.stats().decode_s > 0
    assert cache.stats().tiles == 0, "a slide that is closed leaves its tiles behind"


def test_a_closed_slide_says_so(slide, path):
    slide.close()
    slide.close()
    with pytest.raises(InputError, match="is closed; open it again"):
        slide.read(0, 0, 10, 10)
    assert path.name in repr(slide)


def test_a_read_that_is_under_way_survives_closing(aperio, monkeypatch):
    decoding, go_on, found = threading.Event(), threading.Event(), []
    load = TiffTiles.load

    def slow(self, *where):
        decoding.set()
        assert go_on.wait(20)
        return load(self, *where)

    monkeypatch.setattr(TiffTiles, "load", slow)
    slide = open_slide(aperio, cache=TileCache())
    descriptor = slide._source._file._descriptor
    thread = threading.Thread(target=lambda: found.append(slide.read(0, 0, 100, 100)))
    thread.start()
    assert decoding.wait(20)
    slide.close()
    assert os.fstat(descriptor).st_size == aperio.stat().st_size
    go_on.set()
    thread.join(20)
    np.testing.assert_array_equal(found[0], openslide_level(aperio, 0)[:100, :100])
    del thread
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_thumbnail_is_the_smallest_level_that_is_wide_enough(pyramid):
    with open_slide(pyramid, cache=TileCache()) as slide:
        for least, level in [(1501, 0), (1024, 0), (750, 1), (300, 2), (1, 3), (5000, 0)]:
            small, downsample = slide.thumbnail(least)
            np.testing.assert_array_equal(small, openslide_level(pyramid, level))
            assert downsample == slide.levels[level].downsample
        with pytest.raises(InputError, match="thumbnail of 0"):
            slide.thumbnail(0)


def test_thumbnail_of_a_huge_level_is_averaged_in_bands(pyramid, monkeypatch):
    monkeypatch.setattr("scale.slides.blocks._LARGEST_THUMBNAIL_PX", 1000)
    with open_slide(pyramid, cache=TileCache()) as slide:
        small, downsample = slide.thumbnail(800)
        assert (small.shape, downsample) == ((1103, 1501, 3), 1.0)
        monkeypatch.setattr("scale.slides.blocks._BAND_PX", 96)
        slide.levels = slide.levels[:1]
        small, downsample = slide.thumbnail(300)
    assert (small.shape, downsample) == ((220, 300, 3), 5.0)
    squares = openslide_level(pyramid, 0)[:1100, :1500].reshape(220, 5, 300, 5, 3).mean(axis=(1, 3))
    assert np.abs(small - squares).max() <= 0.51


def test_made_pyramids_hold_the_real_tissue(aperio):
    with open_slide(aperio, cache=TileCache()) as slide:
        difference = slide.read(0, 0, 1500, 1100).astype(int) - mirrored(0, 0, 1500, 1100)
    assert np.abs(difference).mean() < 5
