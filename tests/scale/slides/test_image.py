"""Plain images are slides of one level."""

import logging

import numpy as np
import pytest
from PIL import Image
from tests.scale.slides.truth import cut_out
from tests.scale.slides_tools import region

from redline.core.errors import DataError
from scale.slides.opening import open_slide


def picture(mode="RGB"):
    return Image.fromarray(np.ascontiguousarray(region()[:200, :300])).convert(mode)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "A.PNG"])
def test_pixels_are_those_of_the_file(tmp_path, name):
    picture().save(tmp_path / name)
    with open_slide(tmp_path / name) as slide:
        assert slide.reader == "image"
        assert [(level.width_px, level.height_px) for level in slide.levels] == [(300, 200)]
        window = slide.read(-20, 150, 100, 90)
        small, downsample = slide.thumbnail()
    whole = np.asarray(picture())
    np.testing.assert_array_equal(window, cut_out(whole, -20, 150, 100, 90))
    np.testing.assert_array_equal(small, whole)
    assert downsample == 1
    assert window.flags.c_contiguous


def test_jpeg_by_any_name(tmp_path):
    picture().save(tmp_path / "photo", format="JPEG")
    with open_slide(tmp_path / "photo") as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 300, 200), np.asarray(Image.open(tmp_path / "photo")))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA"])
def test_modes(tmp_path, mode):
    image = picture(mode)
    image.save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png") as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 300, 200), np.asarray(image.convert("RGB")))


def test_transparency_is_put_on_white(tmp_path):
    Image.new("RGBA", (20, 10), (200, 0, 0, 0)).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png") as slide:
        assert slide.read(0, 0, 20, 10).min() == 255


def test_it_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "a.jpg", exif=exif)
    with open_slide(tmp_path / "a.jpg") as slide:
        assert (slide.levels[0].width_px, slide.levels[0].height_px) == (200, 300)


def test_what_a_tiff_says_of_its_resolution(tmp_path, caplog):
    picture().save(tmp_path / "a.tif", resolution_unit=3, x_resolution=20_000, y_resolution=20_000)
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.mpp == pytest.approx(0.5)
    assert caplog.text == ""
    picture().save(tmp_path / "b.tif", dpi=(300, 300))
    with caplog.at_level(logging.WARNING), open_slide(tmp_path / "b.tif") as slide:
        assert slide.mpp is None
    assert "b.tif does not say its micrometres per pixel" in caplog.text


def test_too_large_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    picture().save(tmp_path / "a.png")
    monkeypatch.setattr("scale.slides.image.LARGEST_IMAGE_PX", 59_999)
    with pytest.raises(DataError, match="300x200 pixels without tiles; expected at most .*tiled TIFF"):
        open_slide(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="too large to be read as a plain image"):
        open_slide(tmp_path / "a.png")


def test_deep_images_are_refused(tmp_path):
    Image.fromarray(np.zeros((20, 20), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="mode I;16; expected 8 bits a sample"):
        open_slide(tmp_path / "a.png")


def test_a_broken_image(tmp_path):
    picture().save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="a.png is a broken image .*copy it again"):
        open_slide(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(DataError, match="a.txt is not an image; expected one of JPEG, PNG"):
        open_slide(tmp_path / "a.txt", reader="image")
