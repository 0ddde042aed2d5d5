"""The bytes of one TIFF tile into pixels; the sole importer of imagecodecs, whose decoders let other threads run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import imagecodecs
import numpy as np

from redline.core.errors import DataError
from redline.core.tensor import Array
from scale.slides.failures import UnsuitedError
from scale.slides.markers import jpeg2000_size, jpeg_is_whole, jpeg_size

Decode = Callable[[bytes], Array]
Alpha = Literal["none", "straight", "premultiplied"]

JPEG = (7, 33007)
JPEG_2000 = (33004, 33005, 34712)
APERIO_YCBCR_JPEG_2000 = 33003
WEBP = (34927, 50001)
_PACKED: dict[int, Callable[[bytes, int], bytes | bytearray]] = {
    1: lambda data, _: data,
    5: lambda data, size: imagecodecs.lzw_decode(data, out=size),
    8: lambda data, size: imagecodecs.zlib_decode(data, out=size),
    32946: lambda data, size: imagecodecs.zlib_decode(data, out=size),
    32773: lambda data, size: imagecodecs.packbits_decode(data, out=size),
    34925: lambda data, size: imagecodecs.lzma_decode(data, out=size),
    50000: lambda data, size: imagecodecs.zstd_decode(data, out=size),
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class TileFormat:
    """How the tiles of one level are stored; numbers are those of TIFF."""

    compression: int
    photometric: int
    samples: int
    width_px: int
    height_px: int
    predictor: int = 1
    alpha: Alpha = "none"
    jpeg_tables: bytes | None = None
    jfif: bool = False


def decoder_of(tile: TileFormat) -> Decode:
    """The function that decodes such tiles to uint8 (height, width, 3), or 1 in place of 3 where they are gray.

    It raises DataError for bytes that are not a whole tile.

    Raises:
        UnsuitedError: this reader does not decode such tiles.
    """
    _refuse(tile)
    if tile.compression in JPEG:
        return _jpeg(tile)
    if tile.compression in JPEG_2000:
        return _finished(tile, _jpeg2000(tile))
    if tile.compression in WEBP:
        return _finished(tile, _webp(tile))
    return _finished(tile, _packed(tile))


def _refuse(tile: TileFormat) -> None:
    known = (*JPEG, *JPEG_2000, *WEBP, *_PACKED)
    if tile.compression not in known:
        raise UnsuitedError(f"its tiles have compression {tile.compression}, expected one of {known}")
    photometrics = {1: (_WHITE_IS_ZERO, _BLACK_IS_ZERO), 3: (_RGB, _YCBCR), 4: (_RGB,)}.get(tile.samples, ())
    if tile.photometric not in photometrics:
        raise UnsuitedError(
            f"its pixels have {tile.samples} samples of photometric interpretation {tile.photometric}, "
            "expected gray, RGB or YCbCr"
        )
    if tile.photometric == _YCBCR and tile.compression not in (*JPEG, *WEBP):
        raise UnsuitedError(f"its pixels are YCbCr with compression {tile.compression}, expected JPEG")
    if tile.predictor not in (1, 2):
        raise UnsuitedError(f"its tiles have predictor {tile.predictor}, expected none or horizontal differences")


def _jpeg(tile: TileFormat) -> Decode:
    if tile.samples == 4:
        raise UnsuitedError("its tiles are JPEG with transparency, expected gray, RGB or YCbCr")
    # Aperio stores RGB as it is, without the marker that says so; JFIF's own is always YCbCr.
    stored = {_RGB: None if tile.jfif else "RGB", _YCBCR: "YCBCR"}.get(tile.photometric)
    wanted = "RGB" if tile.samples == 3 else "GRAYSCALE"

    def decode(data: bytes) -> Array:
        _refuse_size(jpeg_size(data), tile)
        if not jpeg_is_whole(data):
            raise DataError(f"its {len(data):,} bytes of JPEG have no end marker: they are cut short or overwritten")
        pixels: Array = imagecodecs.jpeg8_decode(data, tables=tile.jpeg_tables, colorspace=stored, outcolorspace=wanted)
        return _inverted(tile, pixels.reshape(*pixels.shape[:2], -1))

    return decode


def _jpeg2000(tile: TileFormat) -> Decode:
    def decode(data: bytes) -> Array:
        _refuse_size(jpeg2000_size(data), tile)
        pixels: Array = imagecodecs.jpeg2k_decode(data)
        return pixels

    return decode


def _webp(tile: TileFormat) -> Decode:
    def decode(data: bytes) -> Array:
        pixels: Array = imagecodecs.webp_decode(data, hasalpha=tile.samples == 4)
        return pixels

    return decode


def _packed(tile: TileFormat) -> Decode:
    unpack = _PACKED[tile.compression]
    shape = (tile.height_px, tile.width_px, tile.samples)
    size_bytes = tile.height_px * tile.width_px * tile.samples

    def decode(data: bytes) -> Array:
        raw = unpack(data, size_bytes)
        if len(raw) < size_bytes:
            raise DataError(f"its data unpack to {len(raw):,} bytes, expected {size_bytes:,}")
        pixels: Array = np.frombuffer(raw, np.uint8, size_bytes).reshape(shape)
        return pixels if tile.predictor == 1 else np.cumsum(pixels, axis=1, dtype=np.uint8)

    return decode


def _finished(tile: TileFormat, decode: Decode) -> Decode:
    """The same with the alpha put on white and the number of samples checked."""

    def finish(data: bytes) -> Array:
        pixels = decode(data)
        if pixels.dtype != np.uint8:
            raise DataError(f"its data decode to {pixels.dtype}, expected uint8")
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if pixels.shape[2] != tile.samples:
            raise DataError(f"its data decode to {pixels.shape[2]} samples a pixel, expected {tile.samples}")
        return _inverted(tile, pixels) if tile.samples == 1 else on_white(pixels, tile.alpha)

    return finish


def _inverted(tile: TileFormat, pixels: Array) -> Array:
    return 255 - pixels if tile.photometric == _WHITE_IS_ZERO else pixels


def on_white(pixels: Array, alpha: Alpha) -> Array:
    """RGB of RGBA pixels as they look on white; of RGB pixels, themselves."""
    colours = pixels[..., :3]
    if pixels.shape[2] == 3 or alpha == "none":
        return np.ascontiguousarray(colours)
    opaque = pixels[..., 3:].astype(np.uint16)
    if alpha == "premultiplied":
        return np.minimum(colours + (255 - opaque), 255).astype(np.uint8)
    return ((colours * opaque + 255 * (255 - opaque) + 127) // 255).astype(np.uint8)


def _refuse_size(size_px: tuple[int, int] | None, tile: TileFormat) -> None:
    # Before decoding: one flipped bit in the size would have the decoder fill gigabytes.
    if size_px is None:
        raise DataError("its data have no header of an image")
    width, height = size_px
    if width > tile.width_px or height > tile.height_px:
        raise DataError(f"its data say {width}x{height} pixels, expected at most {tile.width_px}x{tile.height_px}")
