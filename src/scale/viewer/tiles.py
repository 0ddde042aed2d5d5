"""A slide as the tiles of a pyramid whose levels are halves of each other, whatever levels its file has."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from redline.core.errors import RequestError
from redline.core.tensor import Array
from scale.slides.base import WHITE, Slide

__all__ = ["TILE_PX", "SlideTiles", "blank_jpeg", "tile_size"]

TILE_PX = 512
_QUALITY = 85
#: A level may be this much coarser than asked for and still be used: the sizes of levels are rounded.
_SLACK = 1.01
#: More than this many times finer than asked for, and one picture of the whole slide is made once.
_MOST_FINER = 4.0
_OVERVIEW_PX = 4096
_BLOCK_PX = 2048


Reader = Callable[[int, int, int, int], Array]
"""x, y, width, height in pixels of one level -> (height, width, 3)."""


def tile_size(width_px: int, height_px: int, level: int, column: int, row: int) -> tuple[int, int]:
    """Width and height of a tile; level 0 is the whole slide in one pixel.

    Raises:
        RequestError: there is no such tile.

    >>> tile_size(1100, 600, 11, 2, 1)
    (76, 88)
    """
    down = _downsample(width_px, height_px, level)
    width, height = math.ceil(width_px / down), math.ceil(height_px / down)
    size = min(TILE_PX, width - column * TILE_PX), min(TILE_PX, height - row * TILE_PX)
    if min(size) < 1 or column < 0 or row < 0:
        raise RequestError(f"there is no tile {level}/{column}_{row}", status=404)
    return size


def blank_jpeg(width_px: int, height_px: int) -> bytes:
    """A white tile, for a slide whose file is not here."""
    return _jpeg(np.full((height_px, width_px, 3), WHITE, np.uint8))


class SlideTiles:
    """Tiles of an open slide, as JPEG; any thread may ask."""

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._first = slide.levels[0]
        self._lock = threading.Lock()
        self._overview: tuple[Array, float] | None = None

    def tile(self, level: int, column: int, row: int) -> bytes:
        """One tile; where its file has no level that is coarse enough, the first one may take a while.

        Raises:
            RequestError: there is no such tile.
        """
        width, height = tile_size(self._first.width_px, self._first.height_px, level, column, row)
        down = _downsample(self._first.width_px, self._first.height_px, level)
        step = TILE_PX * down
        return _jpeg(self.part(column * step, row * step, width, height, down))

    def thumbnail(self, most_px: int) -> bytes:
        """The whole slide, no side longer than this."""
        down = max(self._first.width_px, self._first.height_px, most_px) / most_px
        width, height = (max(1, round(px / down)) for px in (self._first.width_px, self._first.height_px))
        return _jpeg(self.part(0, 0, width, height, down))

    def part(self, x0: float, y0: float, width_px: int, height_px: int, down: float) -> Array:
        """A part of the slide: its corner in level-0 pixels, its size in pixels of ``down`` level-0 pixels each."""
        reader, source_down = self._source(down)
        scale = down / source_down
        left, top = x0 / source_down, y0 / source_down
        x, y = math.floor(left + 1e-6), math.floor(top + 1e-6)
        width, height = (
            math.ceil(end - 1e-6) - begin for end, begin in ((left + width_px * scale, x), (top + height_px * scale, y))
        )
        factor = 2 ** max(0, math.floor(math.log2(scale + 1e-9)))
        picture = Image.fromarray(_reduced(reader, (x, y, width, height), factor))
        box = tuple(
            (at - begin) / factor
            for at, begin in ((left, x), (top, y), (left + width_px * scale, x), (top + height_px * scale, y))
        )
        if box == (0, 0, *picture.size) and picture.size == (width_px, height_px):
            return np.asarray(picture)
        box = (max(0.0, box[0]), max(0.0, box[1]), min(box[2], picture.width), min(box[3], picture.height))
        return np.asarray(picture.resize((width_px, height_px), Image.Resampling.BILINEAR, box=box))

    def _source(self, down: float) -> tuple[Reader, float]:
        """What to read for pixels of this size, and how large its own are."""
        fits = [number for number, level in enumerate(self._slide.levels) if level.downsample <= down * _SLACK]
        number = fits[-1] if fits else 0
        level = self._slide.levels[number]
        if down / level.downsample > _MOST_FINER:
            picture, overview_down = self._made_overview()
            if level.downsample < overview_down <= down * _SLACK:
                return _reader_of(picture), overview_down
        return partial(self._read, number), level.downsample

    def _read(self, number: int, x: int, y: int, width: int, height: int) -> Array:
        # Rounded up: a reader that rounds down, back to pixels of the level, must not end one too early.
        down = self._slide.levels[number].downsample
        return self._slide.read(math.ceil(x * down), math.ceil(y * down), width, height, level=number)

    def _made_overview(self) -> tuple[Array, float]:
        """The whole slide from its coarsest level, made once."""
        with self._lock:
            if self._overview is None:
                number = len(self._slide.levels) - 1
                level = self._slide.levels[number]
                longest = max(level.width_px, level.height_px)
                factor = 2 ** max(0, math.ceil(math.log2(longest / _OVERVIEW_PX)))
                whole = _reduced(partial(self._read, number), (0, 0, level.width_px, level.height_px), factor)
                self._overview = whole, level.downsample * factor
            return self._overview


def _reduced(read: Reader, part: tuple[int, int, int, int], factor: int) -> Array:
    """A part made ``factor`` times smaller, block by block, so that it is never all in memory."""
    x, y, width, height = part
    if factor == 1:
        return read(x, y, width, height)
    block = max(_BLOCK_PX, factor) // factor * factor
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    whole = np.empty((rows, columns, 3), np.uint8)
    for top in range(0, height, block):
        for left in range(0, width, block):
            size = min(block, width - left), min(block, height - top)
            small = np.asarray(Image.fromarray(read(x + left, y + top, *size)).reduce(factor))
            row, column = top // factor, left // factor
            whole[row : row + small.shape[0], column : column + small.shape[1]] = small
    return whole


def _reader_of(picture: Array) -> Reader:
    """Reads parts of a picture, white outside of it."""

    def read(x: int, y: int, width: int, height: int) -> Array:
        inside = picture[y : y + height, x : x + width]
        if inside.shape[:2] == (height, width):
            return inside
        part = np.full((height, width, 3), WHITE, np.uint8)
        part[: inside.shape[0], : inside.shape[1]] = inside
        return part

    return read


def _downsample(width_px: int, height_px: int, level: int) -> float:
    most = max_level(width_px, height_px)
    if not 0 <= level <= most:
        raise RequestError(f"there is no level {level}, expected 0 to {most}", status=404)
    return float(2 ** (most - level))


def max_level(width_px: int, height_px: int) -> int:
    """The level that has the slide's own pixels.

    >>> max_level(1100, 600), max_level(1, 1)
    (11, 0)
    """
    return (max(width_px, height_px) - 1).bit_length()


def _jpeg(picture: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
