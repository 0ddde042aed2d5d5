"""The iterator that users of whole slides know: names, windows, colours, where they start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.scale.fake_slide import FakeSlide, glass, stain

import scale
from redline.core.errors import DataError, InputError
from redline.core.tensor import Array
from scale.domain import Coords
from scale.wsi import WSI, WSIIterator


def two_sections() -> Array:
    """Sections at (100, 50) and (900, 100), each of two pieces."""
    array = glass(1500, 600)
    for x, y in ((100, 50), (900, 100)):
        array[y : y + 200, x : x + 330] = (200, 90, 160)
        array[y + 260 : y + 400, x : x + 400] = (190, 80, 150)
    return array


@pytest.fixture
def slide() -> FakeSlide:
    return FakeSlide(two_sections(), mpp=0.5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "slide.png"
    Image.fromarray(two_sections()).save(path)
    return path


def test_windows_are_bgr_of_full_size_and_say_where_they_start(slide: FakeSlide) -> None:
    windows = list(WSIIterator(slide, num_sections=2).iter_first_section_bgr(256, 0.25))
    assert [(start.x, start.y) for _, start in windows] == [(100, 50), (244, 50), (100, 194), (244, 194)]
    pixels = two_sections()
    for window, start in windows:
        assert isinstance(start, Coords)
        assert window.dtype == np.uint8
        assert window.flags.c_contiguous
        x, y = int(start.x), int(start.y)
        assert np.array_equal(window[:, :, ::-1], pixels[y : y + 256, x : x + 256])


def test_the_last_window_is_shifted_back_and_one_larger_than_the_region_reaches_beyond(slide: FakeSlide) -> None:
    wsi = WSIIterator(slide, num_sections=2)
    ((window, start),) = wsi.iter_section_bgr(1, 640, 0.2)
    assert (start.x, start.y) == (900, 100)
    assert window.shape == (640, 640, 3)
    assert (window[500:] == 255).all()  # the slide ends at 600
    assert (window[:90, :330] == (160, 90, 200)).all()


def test_cut_windows_start_at_each_stride_and_end_with_the_region(slide: FakeSlide) -> None:
    cut = WSIIterator(slide, num_sections=2, cut_windows=True)
    windows = [(start.x, start.y, *window.shape[1::-1]) for window, start in cut.iter_first_section_bgr(256, 0.5)]
    xs, ys = [(100, 256), (228, 256), (356, 144), (484, 16)], [(50, 256), (178, 256), (306, 144), (434, 16)]
    assert windows == [(x, y, width, height) for y, height in ys for x, width in xs]


@pytest.mark.parametrize(("window", "overlap", "stride"), [(514, 0.8, 102), (100, 0.9, 9), (100, 30, 70)])
def test_cut_windows_have_the_stride_of_the_earlier_programs(window: int, overlap: float, stride: int) -> None:
    array = glass(1200, 200)
    array[20:180, 50:1150] = (200, 90, 160)
    starts = [at.x for _, at in WSIIterator(FakeSlide(array), cut_windows=True).iter_first_section_bgr(window, overlap)]
    assert starts[1] - starts[0] == stride


def test_subsections_have_windows_of_their_own(slide: FakeSlide) -> None:
    wsi = WSIIterator(slide, num_sections=2)
    assert [(region.x0, region.y0) for region in wsi.subsections(1)] == [(900, 100), (900, 360)]
    starts = [(start.x, start.y) for _, start in wsi.iter_subsection_bgr(1, 1, 300, 100)]
    assert starts == [(900, 360), (1000, 360)]


def test_a_number_of_subsections_keeps_the_largest(slide: FakeSlide) -> None:
    (kept,) = WSIIterator(slide, num_sections=2, num_subsections=1).subsections(0)
    assert (kept.x0, kept.y0, kept.width_px, kept.height_px) == (100, 50, 330, 200)


def test_sections_are_counted(slide: FakeSlide) -> None:
    wsi = WSIIterator(slide, num_sections=2)
    assert wsi.num_sections == len(wsi.sections) == 2
    assert wsi.section(1) == wsi.sections[1]


@pytest.mark.parametrize("index", [-1, 2])
def test_sections_that_are_not_there_are_refused_when_asked_for(slide: FakeSlide, index: int) -> None:
    wsi = WSIIterator(slide, num_sections=2)
    with pytest.raises(InputError, match=rf"fake.tif: section {index} does not exist, expected 0 to 1"):
        wsi.iter_section_bgr(index, 256, 0.2)
    with pytest.raises(InputError, match=rf"fake.tif: subsection {index} does not exist, expected 0 to 1"):
        wsi.iter_subsection_bgr(0, index, 256, 0.2)


def test_impossible_overlaps_are_refused_when_asked_for(slide: FakeSlide) -> None:
    for cut in (False, True):
        with pytest.raises(InputError, match="overlap"):
            WSIIterator(slide, num_sections=2, cut_windows=cut).iter_first_section_bgr(256, 256)


def test_a_slide_without_tissue_has_no_first_section() -> None:
    wsi = WSIIterator(FakeSlide(glass(1200, 300)))
    assert wsi.num_sections == 0
    with pytest.raises(DataError, match=r"fake.tif: no tissue found"):
        wsi.iter_first_section_bgr(256, 0.2)


def test_the_thumbnail_is_rgb_with_its_downsample_and_the_callers_own() -> None:
    array = glass(2400, 400)
    stain(array, 100, 100, 200, 200)
    wsi = WSIIterator(FakeSlide(array, levels=(1, 2)))
    picture, downsample = wsi.thumbnail()
    assert (picture.shape, downsample) == ((200, 1200, 3), 2.0)
    assert picture[100, 100].tolist() == [200, 90, 160]
    picture[:] = 0
    assert wsi.thumbnail()[0].any()


def test_wsi_is_the_same_class_under_its_other_name(file: Path) -> None:
    assert WSI is WSIIterator
    with WSI(str(file), 2, 1) as wsi:
        assert wsi.num_sections == 2
        assert len(wsi.subsections(0)) == 1


def test_a_file_is_opened_at_first_use_and_closed_at_the_end(tmp_path: Path, file: Path) -> None:
    missing = WSIIterator(tmp_path / "none.svs")
    with pytest.raises(Exception, match=r"none\.svs"):
        missing.sections  # noqa: B018
    wsi = WSIIterator(file)
    with wsi:
        assert wsi.slide is wsi.slide
        first = wsi.slide
    with pytest.raises(InputError, match="closed"):
        first.read(0, 0, 8, 8)
    assert wsi.num_sections > 0  # opened again
    wsi.close()
    wsi.close()


def test_a_slide_that_was_given_stays_open(slide: FakeSlide) -> None:
    with WSIIterator(slide) as wsi:
        assert wsi.slide is slide
    assert slide.closed == 0


def test_a_real_slide_is_read_as_its_pixels_are() -> None:
    with WSIIterator(Path(scale.__path__[0]) / "assets" / "cmu_small_region.svs") as wsi:
        windows = list(wsi.iter_first_section_bgr(514, 0.2))
        section = wsi.section(0)
        assert len(windows) == 5 * 7
        window, start = windows[-1]
        x0, y0 = int(start.x), int(start.y)
        assert (x0 + 514, y0 + 514) == (section.x0 + section.width_px, section.y0 + section.height_px)
        assert np.array_equal(window[:, :, ::-1], wsi.slide.read(x0, y0, 514, 514))


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = ("torch", "onnxruntime", "cv2", "sklearn", "tifffile", "openslide", "shapely")
    code = f"import sys, scale.wsi; print([m for m in {heavy!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
