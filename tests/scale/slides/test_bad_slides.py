"""A broken file gets one line that names it; never a hang, a crash, or pixels that are not in it."""

import os
import shutil
import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.scale.slides.truth import openslide_level
from tests.scale.slides_tools import DICOM_FOLDER, REAL_DICOM, REAL_SVS

from redline.core.errors import DataError, InputError
from scale.slides.cache import TileCache
from scale.slides.opening import open_slide

CUTS = [round(0.02 * n, 2) for n in range(50)]


def refused(path, match, error=DataError, **options):
    with pytest.raises(error, match=match) as told:
        open_slide(path, **options)
    message = str(told.value)
    assert str(path) in message
    assert "\n" not in message
    assert "expected" in message


def read_tiles(slide, step=240):
    """Windows over level 0 by their place; the message where one cannot be read."""
    level = slide.levels[0]
    found = {}
    for y in range(0, level.height_px, step):
        for x in range(0, level.width_px, step):
            try:
                found[x, y] = slide.read(x, y, step, step)
            except DataError as error:
                found[x, y] = str(error)
    return found


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", ["svs", "pyramid"])
def test_a_truncated_slide(tmp_path, request, name, cut):
    source = REAL_SVS if name == "svs" else request.getfixturevalue("pyramid")
    content = source.read_bytes()
    path = tmp_path / f"cut{source.suffix}"
    path.write_bytes(content[: int(len(content) * cut)])
    try:
        slide = open_slide(path, cache=TileCache())
    except InputError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
        return
    with slide:
        assert slide.reader == "tiled"
        tiles = read_tiles(slide)
    truth = openslide_level(source, 0)
    for (x, y), found in tiles.items():
        if isinstance(found, str):
            assert str(path) in found
            assert "level 0, tile" in found
            assert "\n" not in found
        else:
            inside = truth[y : y + 240, x : x + 240]
            np.testing.assert_array_equal(found[: inside.shape[0], : inside.shape[1]], inside)


@pytest.mark.parametrize("length", [8, 5000, 900_000])
def test_a_slide_that_ends_before_its_list_of_images_is_said_to_be_cut_short(tmp_path, length):
    path = tmp_path / "cut.svs"
    path.write_bytes(REAL_SVS.read_bytes()[:length])
    refused(path, "without an image; expected a slide; it may be cut short: copy it again")


def test_truncated_slides_that_open_say_so_and_lose_tiles(tmp_path, pyramid, caplog):
    content = pyramid.read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(content[: len(content) // 2])
    with open_slide(path, cache=TileCache()) as slide:
        tiles = read_tiles(slide)
    assert "is cut short" in caplog.text
    lost = [found for found in tiles.values() if isinstance(found, str)]
    assert 0 < len(lost) < len(tiles)
    assert all("cut short or broken: copy it again" in found for found in lost)


@pytest.mark.parametrize("cut", CUTS[::5])
def test_a_truncated_dicom_slide(tmp_path, cut):
    path = tmp_path / "cut.dcm"
    content = REAL_DICOM.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    refused_or_equal(path)


def refused_or_equal(path):
    try:
        slide = open_slide(path, cache=TileCache())
    except InputError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
        return
    truth = openslide_level(REAL_DICOM, 0)
    for (x, y), found in read_tiles(slide, 512).items():
        if isinstance(found, str):
            assert str(path) in found
        else:
            inside = truth[y : y + 512, x : x + 512]
            np.testing.assert_array_equal(found[: inside.shape[0], : inside.shape[1]], inside)


def test_one_bad_block_does_not_break_the_others_of_openslide(tmp_path):
    folder = tmp_path / "dicom"
    shutil.copytree(DICOM_FOLDER, folder)
    path = folder / REAL_DICOM.name
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40_000] = bytes(40_000)
    path.write_bytes(content)
    with open_slide(path, cache=TileCache()) as slide:
        tiles = read_tiles(slide, 512)
        assert read_tiles(slide, 512).keys() == tiles.keys()
    truth = openslide_level(REAL_DICOM, 0)
    bad = [found for found in tiles.values() if isinstance(found, str)]
    good = {place: found for place, found in tiles.items() if not isinstance(found, str)}
    assert all("level 0, the block of 512x512 pixels" in found for found in bad)
    assert len(bad) in range(1, 12)
    for (x, y), found in good.items():
        inside = truth[y : y + 512, x : x + 512]
        np.testing.assert_array_equal(found[: inside.shape[0], : inside.shape[1]], inside)


def change_tile(path, index, change):
    """Have ``change`` edit the bytes of one tile of level 0 in place."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, size = page.dataoffsets[index], page.databytecounts[index]
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = change(content[offset : offset + size])
    path.write_bytes(content)


def zeros(data):
    return bytes(len(data))


def without_end(data):
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def gigantic(data):
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + b"\xff\xff\xff\xff" + data[at + 9 :]


def one_component(data):
    at = data.index(b"\xff\xc0")
    return data[: at + 9] + b"\x01" + data[at + 10 :]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (zeros, "no header of an image"),
        (without_end, "no end marker: they are cut short"),
        (gigantic, "say 65535x65535 pixels, expected at most 128x128"),
        (one_component, ""),
    ],
)
def test_a_damaged_tile_is_named_and_the_others_are_read(tmp_path, pyramid, change, reason):
    path = tmp_path / "bad.tif"
    shutil.copy(pyramid, path)
    change_tile(path, 14, change)
    with open_slide(path, cache=TileCache()) as slide:
        for _ in range(2):
            with pytest.raises(DataError, match=rf"bad.tif, level 0, tile 14 \(row 1, column 2\).*{reason}"):
                slide.read(300, 200, 10, 10)
        np.testing.assert_array_equal(slide.read(0, 0, 200, 128), openslide_level(pyramid, 0)[:128, :200])
        assert slide.read(0, 0, 300, 300, level=1).shape == (300, 300, 3)


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [
        ("TileOffsets", 10**8, "the file has .*copy it again"),
        ("TileOffsets", 0, "the file has .*copy it again"),
        ("TileByteCounts", 10**8, "the file has .*copy it again"),
        ("TileByteCounts", 5, "no header of an image"),
    ],
)
def test_a_tile_that_lies_elsewhere(tmp_path, pyramid, tag, value, reason):
    path = tmp_path / "bad.tif"
    shutil.copy(pyramid, path)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        entry = tiff.pages[0].tags[tag]
        entry.overwrite([value, *entry.value[1:]])
    with open_slide(path, cache=TileCache()) as slide:
        with pytest.raises(DataError, match=f"level 0, tile 0 .*{reason}"):
            slide.read(0, 0, 10, 10)
        assert slide.read(130, 0, 10, 10).shape == (10, 10, 3)


@pytest.mark.parametrize("tag", ["ImageWidth", "TileWidth"])
def test_a_first_image_of_no_pixels_does_not_leave_its_place_to_a_smaller_one(tmp_path, pyramid, tag):
    path = tmp_path / "bad.tif"
    shutil.copy(pyramid, path)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags[tag].overwrite(0)
    refused(path, "has a first image, or tiles, of no pixels")


def test_too_few_tiles(tmp_path, pyramid):
    path = tmp_path / "bad.tif"
    shutil.copy(pyramid, path)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["ImageLength"].overwrite(60_000)
    refused(path, "the level of 1501x60000 pixels has the offsets of 108 tiles, expected 5,628")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_bytes_never_crash(tmp_path, pyramid, data):
    content = bytearray(pyramid.read_bytes())
    with tifffile.TiffFile(pyramid) as tiff:
        head = min(page.dataoffsets[0] for page in tiff.pages)
    for _ in range(data.draw(st.integers(1, 12))):
        last = data.draw(st.sampled_from([head, len(content)])) - 1
        content[data.draw(st.integers(4, last))] = data.draw(st.integers(0, 255))
    path = tmp_path / "changed.tif"
    path.write_bytes(content)
    try:
        with open_slide(path, reader="tiled", cache=TileCache()) as slide:
            for level in range(len(slide.levels)):
                assert slide.read(0, 0, 300, 200, level=level).shape == (200, 300, 3)
    except DataError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([b"", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"BM"]),
    st.binary(min_size=1, max_size=400),
    st.sampled_from(["a.svs", "a.tif", "a.png", "a.ndpi", "a.mrxs", "a.dcm", "a"]),
)
def test_noise_is_refused(tmp_path, head, noise, name):
    path = tmp_path / name
    path.write_bytes(head + noise)
    with pytest.raises(DataError) as told:
        open_slide(path)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "head", [b"noise noise", b"II*\0\x08\0\0\0\xff\xff", b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0\xff\xff"]
)
@pytest.mark.parametrize("name", ["noise.svs", "noise.tif", "noise.bin"])
def test_a_hundred_megabytes_are_not_read(tmp_path, head, name):
    path = tmp_path / name
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(head + rng.bytes(1 << 16))
        file.truncate(100_000_000)
    tracemalloc.start()
    try:
        refused(path, "expected")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_an_empty_file(tmp_path):
    (tmp_path / "a.svs").touch()
    refused(tmp_path / "a.svs", r"is empty \(0 bytes\)")


@pytest.mark.parametrize("suffix", [".svs", ".ndpi", ".dcm"])
def test_a_jpeg_that_is_named_as_a_slide(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (100, 100)).save(path, format="JPEG")
    refused(path, r"holds a plain JPEG image, .*name it \*\.jpeg to read it as an image")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_an_image_of_one_pixel(tmp_path, name):
    Image.new("RGB", (1, 1)).save(tmp_path / name)
    refused(tmp_path / name, "1x1 pixels; expected a slide of at least 8 on each side")


def test_a_tiled_slide_of_one_pixel(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((1, 1, 3), np.uint8), tile=(16, 16), photometric="rgb")
    refused(tmp_path / "a.tif", "1x1 pixels; expected a slide of at least 8 on each side")


def test_what_is_not_a_file(tmp_path):
    refused(tmp_path / "gone.svs", "is not there", InputError)
    refused(tmp_path, "is a folder; expected one slide file", InputError)
    (tmp_path / "link.svs").symlink_to(tmp_path / "gone.svs")
    refused(tmp_path / "link.svs", "is a link to .*gone.svs, which is not there", InputError)
    os.mkfifo(tmp_path / "pipe.svs")
    refused(tmp_path / "pipe.svs", "is not a plain file", InputError)
    (tmp_path / "ring.svs").symlink_to(tmp_path / "ring.svs")
    refused(tmp_path / "ring.svs", "cannot be opened", InputError)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    """Told by the system, because whoever runs the tests may be root."""
    path = tmp_path / "a.svs"
    shutil.copy(REAL_SVS, path)

    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("scale.slides.sniff.os.open", forbidden)
    refused(path, "may not be read by this user; .*chmod", InputError)


def test_a_link_to_a_slide_is_read(tmp_path):
    (tmp_path / "link.svs").symlink_to(REAL_SVS)
    with open_slide(tmp_path / "link.svs") as slide:
        assert slide.levels[0].width_px == 2220
