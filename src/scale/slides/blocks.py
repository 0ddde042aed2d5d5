"""Windows put together from the blocks that a file gives."""

from __future__ import annotations

import itertools
import math
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from redline.core.errors import InputError
from redline.core.tensor import Array
from scale.slides.base import WHITE, Header, Level
from scale.slides.cache import TileCache
from scale.slides.fingerprint import fingerprint_of

#: A level of more pixels than this is shrunk while it is read, when only a thumbnail is wanted.
_LARGEST_THUMBNAIL_PX = 64_000_000
_BAND_PX = 1024
_numbers = itertools.count()


class BlockSource(Protocol):
    """A file as a grid of blocks on every level; used by many threads at once.

    It has no end of its own: the file goes when the last thread that reads from it has let it go.
    """

    def block_px(self, level: int) -> tuple[int, int]:
        """Width and height of the blocks of a level."""
        ...

    def load(self, level: int, row: int, column: int) -> Array:
        """One block, uint8 (height, width, 3 or 1); those at the right and bottom may reach beyond the level.

        Raises:
            DataError: it cannot be read or decoded; says where it is.
        """
        ...


class BlockSlide:
    """A slide read block by block, through a cache; its attributes are those of :class:`scale.slides.base.Slide`."""

    def __init__(self, header: Header, source: BlockSource, cache: TileCache | None) -> None:
        """Serve ``source``.

        Args:
            header: What it says about itself.
            source: Where blocks come from; let go when this slide is closed.
            cache: Keeps blocks; None where the source has them in memory.
        """
        self.path, self.reader, self.levels = header.path, header.reader, header.levels
        self.mpp, self.magnification, self.properties = header.mpp, header.magnification, header.properties
        self._source: BlockSource | None = source
        self._cache = cache
        # Not id(self): that of a slide that is gone may be another's.
        self._number = next(_numbers)

    def read(self, x0: int, y0: int, width_px: int, height_px: int, *, level: int = 0) -> Array:
        """Read a rectangle; :meth:`scale.slides.base.Slide.read` says how."""
        size = self._level(level)
        if width_px < 1 or height_px < 1:
            raise InputError(f"got a rectangle of {width_px}x{height_px} pixels; expected at least 1x1")
        # The nearest pixel, so that round(x * downsample) leads back to x whatever the downsample.
        x, y = (math.floor(edge / size.downsample + 0.5) for edge in (x0, y0))
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width_px, size.width_px), min(y + height_px, size.height_px)
        if (left, top, right, bottom) == (x, y, x + width_px, y + height_px):
            window: Array = np.empty((height_px, width_px, 3), np.uint8)
            self._fill(level, left, top, window)
            return window
        window = np.full((height_px, width_px, 3), WHITE, np.uint8)
        if left < right and top < bottom:
            self._fill(level, left, top, window[top - y : bottom - y, left - x : right - x])
        return window

    def _level(self, level: int) -> Level:
        if not 0 <= level < len(self.levels):
            raise InputError(f"got level {level}; expected 0 to {len(self.levels) - 1}, which {self.path} has")
        return self.levels[level]

    def _fill(self, level: int, x: int, y: int, window: Array) -> None:
        """Copy pixels from (x, y) of a level on into ``window``, which lies wholly inside it."""
        source = self._source
        if source is None:
            raise InputError(f"{self.path} is closed; open it again to read from it")
        width, height = source.block_px(level)
        right, bottom = x + window.shape[1], y + window.shape[0]
        for row in range(y // height, (bottom - 1) // height + 1):
            top = row * height
            above, below = max(y, top), min(bottom, top + height)
            for column in range(x // width, (right - 1) // width + 1):
                left = column * width
                before, behind = max(x, left), min(right, left + width)
                block = self._block(source, level, row, column)
                window[above - y : below - y, before - x : behind - x] = block[
                    above - top : below - top, before - left : behind - left
                ]

    def _block(self, source: BlockSource, level: int, row: int, column: int) -> Array:
        if self._cache is None:
            return source.load(level, row, column)
        return self._cache.get((self._number, level, row, column), lambda: source.load(level, row, column))

    def thumbnail(self, least_width_px: int = 1024) -> tuple[Array, float]:
        """The whole slide from the smallest level that is as wide, or from level 0; with its downsample.

        A level of more than 64 million pixels is averaged down while it is read, to no less than that width.
        """
        if least_width_px < 1:
            raise InputError(f"got a thumbnail of {least_width_px} pixels; expected at least 1")
        wide = [number for number, level in enumerate(self.levels) if level.width_px >= least_width_px]
        chosen = min(wide, key=lambda number: self.levels[number].width_px, default=0)
        level = self.levels[chosen]
        factor = level.width_px // least_width_px
        if level.width_px * level.height_px <= _LARGEST_THUMBNAIL_PX or factor < 2:
            return self.read(0, 0, level.width_px, level.height_px, level=chosen), level.downsample
        return self._shrunk(chosen, factor), level.downsample * factor

    def _shrunk(self, chosen: int, factor: int) -> Array:
        """A level averaged over squares of ``factor`` pixels, read in bands of some blocks."""
        level = self.levels[chosen]
        width, height = level.width_px // factor, max(1, level.height_px // factor)
        small: Array = np.empty((height, width, 3), np.uint8)
        rows = max(1, _BAND_PX // factor)
        for above in range(0, height, rows):
            below = min(height, above + rows)
            band: Array = np.full(((below - above) * factor, width * factor, 3), WHITE, np.uint8)
            inside = min(band.shape[0], level.height_px - above * factor)
            self._fill(chosen, 0, above * factor, band[:inside])
            squares = band.reshape(below - above, factor, width, factor, 3)
            small[above:below] = squares.mean(axis=(1, 3), dtype=np.float32).round()
        return small

    def fingerprint(self) -> dict[str, str]:
        """What tells this file from others and from its own earlier state; cheap, and the same after a copy."""
        return fingerprint_of(self.path)

    def close(self) -> None:
        """Release the file; reads that are under way end well, and calling it again does nothing."""
        self._source = None
        if self._cache is not None:
            self._cache.forget(lambda key: isinstance(key, tuple) and key[0] == self._number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        level = self.levels[0]
        return f"<{self.reader} slide {self.path} {level.width_px}x{level.height_px}, {len(self.levels)} levels>"
