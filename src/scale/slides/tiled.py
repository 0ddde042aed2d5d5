"""Tiled TIFF slides (Aperio, OME-TIFF, plain pyramids): each tile one read from the file, one decode, no lock."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np

from redline.core.errors import DataError
from redline.core.tensor import Array
from scale.slides.base import WHITE, Header, levels_of
from scale.slides.blocks import BlockSlide
from scale.slides.cache import TileCache
from scale.slides.failures import UnsuitedError, reason
from scale.slides.tiff_pages import TiledFile, TiledPage, read_pages
from scale.slides.tile_codecs import Decode, decoder_of

_log = logging.getLogger(__name__)
#: No sound tile is longer than this many times its pixels, with this much room for headers.
_MOST_BYTES_PER_SAMPLE, _HEADER_BYTES = 4, 1 << 20


def open_tiled(path: Path, *, cache: TileCache) -> BlockSlide:
    """Open a slide of TIFF tiles.

    Raises:
        DataError: it is broken.
        UnsuitedError: it is no pyramid of tiles that this reader decodes.
    """
    found = read_pages(path)
    source = TiffTiles(path, found)
    header = Header(
        path=path,
        reader="tiled",
        levels=levels_of([(page.width_px, page.height_px) for page in found.pages]),
        mpp=found.resolution.mpp,
        magnification=found.resolution.magnification,
        properties=found.resolution.properties,
    )
    return BlockSlide(header, source, cache)


class TiffTiles:
    """The tiles of a TIFF file, by level, row and column."""

    def __init__(self, path: Path, found: TiledFile) -> None:
        """Open the file and find a decoder for each level."""
        self._path = path
        self._pages = found.pages
        try:
            self._decoders: list[Decode] = [decoder_of(page.tile) for page in found.pages]
        except UnsuitedError as error:
            raise UnsuitedError(f"{path}: {error}") from error
        self._file = _Bytes(path)
        beyond = sum(int((page.offsets + page.sizes_bytes > self._file.size_bytes).sum()) for page in found.pages)
        if beyond:
            tiles = sum(len(page.offsets) for page in found.pages)
            _log.warning("%s is cut short: %d of its %d tiles lie beyond its end; copy it again", path, beyond, tiles)

    def block_px(self, level: int) -> tuple[int, int]:
        """Width and height of the tiles of a level."""
        tile = self._pages[level].tile
        return tile.width_px, tile.height_px

    def load(self, level: int, row: int, column: int) -> Array:
        """Read and decode one tile; white where the file says that it was left out, as OpenSlide shows it.

        Raises:
            DataError: it lies beyond the end of the file, or its bytes are not those of a whole tile.
        """
        page = self._pages[level]
        index = row * page.columns + column
        size_bytes = int(page.sizes_bytes[index])
        if size_bytes == 0:
            return np.full((page.tile.height_px, page.tile.width_px, 1), WHITE, np.uint8)
        try:
            pixels = self._decoders[level](self._bytes(page, int(page.offsets[index]), size_bytes))
            _refuse_small(pixels, page, row, column)
        except Exception as error:  # the decoders raise errors of their own, one kind each
            raise DataError(
                f"{self._path}, level {level}, tile {index} (row {row}, column {column}) cannot be read: "
                f"{reason(error)}"
            ) from error
        return pixels

    def _bytes(self, page: TiledPage, offset: int, size_bytes: int) -> bytes:
        if offset <= 0 or offset + size_bytes > self._file.size_bytes:
            raise DataError(
                f"it is said to lie at bytes {offset:,} to {offset + size_bytes:,} and the file has "
                f"{self._file.size_bytes:,}; it is cut short or broken: copy it again"
            )
        most_bytes = page.tile.width_px * page.tile.height_px * page.tile.samples * _MOST_BYTES_PER_SAMPLE
        if not 0 < size_bytes <= most_bytes + _HEADER_BYTES:
            raise DataError(f"it is said to have {size_bytes:,} bytes, expected at most {most_bytes:,}")
        return self._file.read(offset, size_bytes)


def _refuse_small(pixels: Array, page: TiledPage, row: int, column: int) -> None:
    # Some writers cut the tiles at the right and bottom edge to the image.
    height = min(page.tile.height_px, page.height_px - row * page.tile.height_px)
    width = min(page.tile.width_px, page.width_px - column * page.tile.width_px)
    if pixels.shape[0] < height or pixels.shape[1] < width:
        raise DataError(f"it has {pixels.shape[1]}x{pixels.shape[0]} pixels, expected {width}x{height}")


class _Bytes:
    """An open file that many threads read from, closed when the last of them lets it go.

    Not before: the system gives a closed descriptor's number to the next file, which would then be read instead.
    """

    __slots__ = ("_descriptor", "size_bytes")

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self._descriptor).st_size

    def read(self, offset: int, size_bytes: int) -> bytes:
        found = os.pread(self._descriptor, size_bytes, offset)
        while len(found) < size_bytes:  # a signal or a network file system may give less than was asked for
            more = os.pread(self._descriptor, size_bytes - len(found), offset + len(found))
            if not more:
                raise DataError(f"the file ends after {len(found):,} of its {size_bytes:,} bytes: copy it again")
            found += more
        return found

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
