"""Every way in which TIFF stores 8-bit tiles gives the pixels that went in; what is not read goes to OpenSlide."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from tests.scale.slides.truth import openslide_level
from tests.scale.slides_tools import make_pyramid, region

from redline.core.errors import DataError
from scale.slides.cache import TileCache
from scale.slides.opening import open_slide
from scale.slides.tile_codecs import on_white

HEIGHT, WIDTH = 300, 500


def picture():
    return np.ascontiguousarray(region()[:HEIGHT, :WIDTH])


def write(path, pixels, **options):
    defaults = {"tile": (128, 128), "photometric": "rgb", "resolution": (20_000, 20_000), "resolutionunit": 3}
    tifffile.imwrite(path, pixels, metadata=None, **{**defaults, **options})
    return path


def read(path, reader="tiled"):
    with open_slide(path, reader=reader, cache=TileCache()) as slide:
        return slide.read(0, 0, WIDTH, HEIGHT)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd", "lzma"])
def test_without_loss(tmp_path, compression, predictor, byteorder):
    predicted = predictor and compression not in (None, "packbits")
    path = write(
        tmp_path / "a.tif", picture(), compression=compression, predictor=predicted or None, byteorder=byteorder
    )
    np.testing.assert_array_equal(read(path), picture())


@pytest.mark.parametrize("compression", ["webp", "jpeg2000", "aperio_jp2000_rgb"])
def test_image_codecs_without_loss(tmp_path, compression):
    options = {"lossless": True} if compression == "webp" else {"level": 0, "codecformat": "J2K", "mct": False}
    path = write(tmp_path / "a.tif", picture(), compression=compression, compressionargs=options)
    np.testing.assert_array_equal(read(path), picture())


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_jpeg_has_the_pixels_of_openslide(tmp_path, subsampling):
    path = write(tmp_path / "a.tif", picture(), compression="jpeg", subsampling=subsampling)
    found = read(path)
    np.testing.assert_array_equal(found, openslide_level(path, 0))
    assert np.abs(found.astype(int) - picture()).mean() < 6


@pytest.mark.parametrize("compression", [None, "jpeg", "zlib"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_gray(tmp_path, compression, photometric):
    gray = picture()[..., 1]
    path = write(tmp_path / "a.tif", gray, compression=compression, photometric=photometric)
    wanted = gray if photometric == "minisblack" else 255 - gray
    difference = np.abs(read(path).astype(int) - wanted[..., None])
    assert difference.mean() < 3 if compression == "jpeg" else difference.max() == 0


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_transparency_is_put_on_white(tmp_path, kind):
    alpha = np.linspace(0, 255, WIDTH).astype(np.uint8)[None, :, None].repeat(HEIGHT, 0)
    straight = picture().astype(np.float64)
    wanted = straight * (alpha / 255) + 255 * (1 - alpha / 255)
    colours = straight if kind == "unassalpha" else straight * (alpha / 255)
    stored = np.concatenate([colours.round().astype(np.uint8), alpha], axis=2)
    path = write(tmp_path / "a.tif", stored, extrasamples=[kind], compression="zlib")
    found = read(path)
    assert np.abs(found - wanted).max() <= 1
    assert found[:, 0].min() == 255
    assert np.abs(found.astype(int) - read(path, "openslide")).max() <= 1


def test_a_fourth_sample_of_no_meaning_is_left_out():
    stored = np.dstack([picture(), np.zeros((HEIGHT, WIDTH), np.uint8)])
    np.testing.assert_array_equal(on_white(stored, "none"), picture())


def test_transparency_never_overflows():
    extremes = np.array([[[0, 128, 255, a] for a in (0, 1, 127, 254, 255)]], np.uint8)
    assert on_white(extremes, "straight").tolist() == [
        [[255, 255, 255], [254, 255, 255], [128, 192, 255], [1, 128, 255], [0, 128, 255]]
    ]
    assert on_white(extremes, "premultiplied")[0, 0].tolist() == [255, 255, 255]


def test_tables_shared_by_all_tiles(tmp_path):
    """As libtiff writes it: tables in a tag, tiles without them."""
    base = tmp_path / "whole.tif"
    write(base, picture(), compression="jpeg", subsampling=(2, 2))
    with tifffile.TiffFile(base) as tiff:
        page = tiff.pages[0]
        pieces = [base.read_bytes()[o : o + n] for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    tables, tiles = zip(*map(split_tables, pieces), strict=True)
    assert len(set(tables)) == 1
    path = write(
        tmp_path / "shared.tif",
        iter(tiles),
        shape=(HEIGHT, WIDTH, 3),
        dtype=np.uint8,
        compression="jpeg",
        subsampling=(2, 2),
        jpegtables=tables[0],
    )
    np.testing.assert_array_equal(read(path), read(base))
    np.testing.assert_array_equal(read(path), openslide_level(path, 0))


def split_tables(jpeg):
    """The DQT and DHT segments of JPEG data as a table-only file, and the data without them."""
    tables, rest, at = b"\xff\xd8", b"\xff\xd8", 2
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        if jpeg[at + 1] in (0xDB, 0xC4):
            tables += jpeg[at:end]
        else:
            rest += jpeg[at:end]
        at = end
    return tables + b"\xff\xd9", rest + jpeg[at:]


def test_tiles_that_were_left_out_are_white_as_in_openslide(tmp_path):
    path = write(tmp_path / "a.tif", picture(), compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tag = tiff.pages[0].tags["TileByteCounts"]
        tag.overwrite([0 if index == 5 else size for index, size in enumerate(tag.value)])
    found = read(path)
    assert found[128:256, 128:256].min() == 255
    np.testing.assert_array_equal(found[:128], picture()[:128])
    np.testing.assert_array_equal(found, read(path, "openslide"))


@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        (np.zeros((300, 300, 3), np.uint16), {}, "16 bits a sample"),
        (np.zeros((3, 300, 300), np.uint8), {"planarconfig": "separate"}, "each colour has tiles of its own"),
        (np.zeros((300, 300, 2), np.uint8), {"photometric": "minisblack", "planarconfig": "contig"}, "2 samples"),
        (np.zeros((300, 300, 3), np.uint8), {"tile": None}, "without tiles"),
        (np.zeros((300, 300, 3), np.uint8), {"compression": "aperio_jp2000_ycbc"}, "compression 33003"),
        (np.zeros((300, 300, 4), np.uint8), {"photometric": "separated"}, "photometric interpretation 5"),
    ],
)
def test_what_it_does_not_read_it_names(tmp_path, pixels, options, reason):
    path = write(tmp_path / "a.tif", pixels, **options)
    with pytest.raises(DataError, match=reason) as told:
        open_slide(path, reader="tiled")
    assert str(path) in str(told.value)


@pytest.mark.parametrize(
    ("software", "description", "maker"),
    [
        ("Philips DP v1.0", '<?xml version="1.0"?><DataObject></DataObject>', "Philips"),
        ("x", "<scn></scn>", "Leica"),
        ("MedScan 1", "x", "Trestle"),
    ],
)
def test_slides_that_are_no_plain_pyramid_are_left_to_openslide(tmp_path, software, description, maker):
    path = write(tmp_path / "a.tif", picture(), software=software, description=description)
    with pytest.raises(DataError, match=f"{maker} slide.*open it with OpenSlide"):
        open_slide(path, reader="tiled")


def test_channels_in_images_of_their_own_are_refused(tmp_path):
    path = tmp_path / "a.ome.tif"
    options = {"tile": (128, 128), "photometric": "minisblack", "ome": True}
    tifffile.imwrite(path, np.zeros((3, 300, 300), np.uint8), metadata={"axes": "CYX"}, **options)
    for reader in ("auto", "tiled"):
        with pytest.raises(DataError, match="3 channels as images of their own; expected RGB or gray in one image"):
            open_slide(path, reader=reader)


def test_of_several_depths_the_first_is_read_with_a_warning(tmp_path, caplog):
    path, gray = tmp_path / "a.ome.tif", picture()[..., 1]
    options = {"tile": (128, 128), "photometric": "minisblack", "ome": True}
    tifffile.imwrite(path, np.stack([gray, 255 - gray]), metadata={"axes": "ZYX"}, **options)
    np.testing.assert_array_equal(read(path)[..., 0], gray)
    assert "has 2 depths and 1 times: the first is read" in caplog.text


def test_aperio_with_tiles_left_out_is_left_to_openslide(tmp_path):
    path = make_pyramid(tmp_path / "a.svs", 900, 700, levels=2, maker="aperio")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tag = tiff.pages[1].tags["TileByteCounts"]
        tag.overwrite([0, *tag.value[1:]])
    assert open_slide(path).reader == "openslide"


def test_an_edge_tile_cut_to_the_image_is_read(tmp_path):
    """Some writers store the last tiles no larger than the image."""
    tiles = [
        imagecodecs.jpeg8_encode(
            np.ascontiguousarray(picture()[y : y + 128, x : x + 128]), level=90, colorspace="RGB", outcolorspace="YCBCR"
        )
        for y in range(0, HEIGHT, 128)
        for x in range(0, WIDTH, 128)
    ]
    options = {"shape": (HEIGHT, WIDTH, 3), "dtype": np.uint8, "compression": "jpeg"}
    path = write(tmp_path / "a.tif", iter(tiles), **options)
    assert np.abs(read(path).astype(int) - picture()).mean() < 6
