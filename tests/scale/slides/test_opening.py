"""The reader that suits a file is found by what the file holds, and nothing is imported that is not needed."""

import subprocess
import sys

import numpy as np
import pytest
import tifffile
from tests.scale.slides_tools import REAL_DICOM, REAL_SVS, make_pyramid, region

from redline.core.errors import InputError
from scale.slides.base import level_for
from scale.slides.fingerprint import fingerprint_of
from scale.slides.opening import open_slide


def opened_without(package, path, reader="auto"):
    """What a process says that has no such package: the reader, or the error."""
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from scale.slides.opening import open_slide\n"
        f"try: print(open_slide({str(path)!r}, reader={reader!r}).reader)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_reader_is_found_by_the_content(tmp_path):
    assert open_slide(REAL_SVS).reader == "tiled"
    assert open_slide(REAL_DICOM).reader == "openslide"
    (tmp_path / "no_suffix").write_bytes(REAL_SVS.read_bytes())
    assert open_slide(str(tmp_path / "no_suffix")).reader == "tiled"


def test_the_reader_can_be_named():
    assert open_slide(REAL_SVS, reader="openslide").reader == "openslide"
    with pytest.raises(InputError, match="got reader 'fast'; expected one of auto, tiled, openslide, image, cucim"):
        open_slide(REAL_SVS, reader="fast")


def test_what_the_real_slide_says():
    with open_slide(REAL_SVS) as ours, open_slide(REAL_SVS, reader="openslide") as theirs:
        assert ours.path == REAL_SVS
        assert (ours.mpp, ours.magnification) == (theirs.mpp, theirs.magnification) == (0.499, 20)
        shared = {name: value for name, value in theirs.properties.items() if name.startswith("aperio.")}
        assert shared
        assert ours.properties == shared


def test_a_missing_resolution_is_warned_of(tmp_path, caplog):
    path = make_pyramid(tmp_path / "a.tif", 600, 500, mpp=None)
    with open_slide(path) as slide:
        assert slide.mpp is None
    assert "a.tif does not say its micrometres per pixel" in caplog.text


def test_slides_without_a_cache_share_one():
    with open_slide(REAL_SVS) as one, open_slide(REAL_SVS) as two:
        assert one._cache is two._cache
        one.read(0, 0, 10, 10)
        two.read(0, 0, 10, 10)


@pytest.mark.parametrize(
    ("package", "path", "reader", "told"),
    [
        ("tifffile", REAL_SVS, "auto", "tifffile"),
        ("imagecodecs", REAL_SVS, "auto", "imagecodecs"),
        ("openslide", REAL_DICOM, "auto", "openslide-python"),
        ("cucim", REAL_SVS, "cucim", "cucim"),
    ],
)
def test_without_a_package_it_says_what_to_type(package, path, reader, told):
    found = opened_without(package, path, reader)
    assert found == f"MissingDependencyError {told} is not installed; type: pip install 'redline[scale]'"


def test_openslide_is_not_needed_for_a_plain_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", region()[:100, :100], photometric="rgb")
    assert opened_without("openslide", tmp_path / "a.tif") == "image"
    tifffile.imwrite(tmp_path / "b.tif", region()[:100, :100, 0].astype("float32"), photometric="minisblack")
    assert opened_without("openslide", tmp_path / "b.tif").startswith("MissingDependencyError openslide-python")


def test_imports_are_late():
    code = (
        "import sys, scale, scale.slides.opening, scale.slides.base, scale.slides.cache\n"
        "print(sorted({'tifffile', 'imagecodecs', 'openslide', 'PIL', 'cv2', 'torch'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_level_for_a_resolution(pyramid):
    with open_slide(pyramid) as slide:
        for mpp, level, shrink in [(0.499, 0, 1), (1.0, 1, 1), (1.5, 1, 1.5), (0.25, 0, 0.5), (100, 3, 25)]:
            found = level_for(slide, mpp=mpp)
            assert (found.level, found.shrink) == (level, pytest.approx(shrink, rel=0.02))
        with pytest.raises(InputError, match="does not say its magnification, so 10x cannot be found"):
            level_for(slide, magnification=10)
        for options in ({}, {"mpp": 1, "magnification": 10}):
            with pytest.raises(InputError, match="expected one of the two"):
                level_for(slide, **options)
        for wrong in (0, -1, float("nan")):
            with pytest.raises(InputError, match="expected a number above 0"):
                level_for(slide, mpp=wrong)


def test_a_level_for_a_magnification(aperio, tmp_path):
    with open_slide(aperio) as slide:
        found = level_for(slide, magnification=10)
    assert (found.level, found.shrink) == (1, pytest.approx(1))
    with (
        open_slide(make_pyramid(tmp_path / "a.tif", 600, 500, mpp=None)) as slide,
        pytest.raises(InputError, match="does not say its micrometres per pixel"),
    ):
        level_for(slide, mpp=1)


def test_a_fingerprint_is_of_the_content(tmp_path, pyramid):
    with open_slide(pyramid) as slide:
        first = slide.fingerprint()
    content = bytearray(pyramid.read_bytes())
    (tmp_path / "copy.tif").write_bytes(content)
    with open_slide(tmp_path / "copy.tif", reader="openslide") as slide:
        assert slide.fingerprint() == first
    assert all(isinstance(value, str) for value in first.values())
    content[len(content) // 2 : len(content) // 2 + 4] = b"\1\2\3\4"
    (tmp_path / "other.tif").write_bytes(content)
    with open_slide(tmp_path / "other.tif") as slide:
        assert (slide.fingerprint() == first) == (len(content) > 2 << 20)


def test_a_fingerprint_counts_the_parts_of_a_mirax_slide(tmp_path):
    (tmp_path / "a.mrxs").write_bytes(b"overview")
    (tmp_path / "a").mkdir()
    seen = [fingerprint_of(tmp_path / "a.mrxs")]
    for content in (b"1", b"12"):
        (tmp_path / "a" / "Data0000.dat").write_bytes(content)
        seen.append(fingerprint_of(tmp_path / "a.mrxs"))
    assert len({tuple(each.items()) for each in seen}) == 3


def test_alpha_of_openslide_is_put_on_its_background():
    from PIL import Image

    from scale.slides.openslide import _on_background

    clear = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
    assert _on_background(clear, "#ffffff").min() == 255
    assert np.unique(_on_background(clear, "#102030")).tolist() == [16, 32, 48]
    assert np.unique(_on_background(Image.new("RGBA", (4, 4), (9, 9, 9, 255)), "#ffffff")).tolist() == [9]
