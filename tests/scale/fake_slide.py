"""A slide in memory, for tests of what stands on slides and not on files."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from redline.core.tensor import Array
from scale.slides.base import Level


class FakeSlide:
    """Pixels as a slide whose levels are averages of them; notes what is read.

    Attributes:
        reads: (x0, y0, width_px, height_px, level) of each read so far.
        closed: How often it was closed.
    """

    reader = "fake"

    def __init__(
        self,
        array: Array,
        levels: Sequence[int] = (1,),
        mpp: float | None = None,
        *,
        path: str | Path = "fake.tif",
        magnification: float | None = None,
    ) -> None:
        """Hold ``array`` (uint8 RGB) with one level per whole downsample, of which the first is 1."""
        assert array.dtype == np.uint8
        assert array.shape[2:] == (3,)
        assert levels[0] == 1
        self.path = Path(path)
        self.mpp = mpp
        self.magnification = magnification
        self.properties: dict[str, str] = {}
        self.reads: list[tuple[int, int, int, int, int]] = []
        self.closed = 0
        self._arrays = [averages(array, downsample) for downsample in levels]
        self.levels = tuple(
            Level(width_px=shrunk.shape[1], height_px=shrunk.shape[0], downsample=float(downsample))
            for shrunk, downsample in zip(self._arrays, levels, strict=True)
        )
        self._lock = threading.Lock()

    def read(self, x0: int, y0: int, width_px: int, height_px: int, *, level: int = 0) -> Array:
        with self._lock:
            self.reads.append((x0, y0, width_px, height_px, level))
        pixels = self._arrays[level]
        downsample = self.levels[level].downsample
        left, top = int(x0 // downsample), int(y0 // downsample)
        window = np.full((height_px, width_px, 3), 255, np.uint8)
        x, y = max(0, -left), max(0, -top)
        seen = pixels[top + y : max(0, top + height_px), left + x : max(0, left + width_px)]
        window[y : y + seen.shape[0], x : x + seen.shape[1]] = seen
        return window

    def thumbnail(self, least_width_px: int = 1024) -> tuple[Array, float]:
        fitting = [n for n, level in enumerate(self.levels) if level.width_px >= least_width_px] or [0]
        return self._arrays[fitting[-1]].copy(), self.levels[fitting[-1]].downsample

    def fingerprint(self) -> dict[str, str]:
        return {"sha256": hashlib.sha256(self._arrays[0].tobytes()).hexdigest()}

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def averages(array: Array, factor: int) -> Array:
    """Means of squares, without what is left over at the right and lower border."""
    rows, columns = array.shape[0] // factor, array.shape[1] // factor
    whole = array[: rows * factor, : columns * factor]
    total = np.zeros((rows, columns, 3), np.uint32)
    for y, x in np.ndindex(factor, factor):
        total += whole[y::factor, x::factor]
    return ((total + factor * factor // 2) // (factor * factor)).astype(np.uint8)


def glass(width_px: int, height_px: int) -> Array:
    """An empty slide."""
    return np.full((height_px, width_px, 3), 244, np.uint8)


def stain(array: Array, x: int, y: int, width: int, height: int, colour: tuple[int, int, int] = (200, 90, 160)) -> None:
    """An ellipse of tissue within a rectangle."""
    rows, columns = np.mgrid[0:height, 0:width]
    inside = ((columns + 0.5) / width * 2 - 1) ** 2 + ((rows + 0.5) / height * 2 - 1) ** 2 <= 1
    array[y : y + height, x : x + width][inside] = colour
