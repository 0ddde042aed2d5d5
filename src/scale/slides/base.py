"""What a slide is to everybody who reads one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from redline.core.errors import DataError, InputError
from redline.core.tensor import Array

WHITE = 255
SMALLEST_SIDE_PX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One resolution of a slide.

    Attributes:
        downsample: How many pixels of level 0 one pixel of this level spans.
    """

    width_px: int
    height_px: int
    downsample: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a slide says about itself.

    Attributes:
        reader: Which of the readers opened it.
        levels: The finest first.
        mpp: Micrometres per pixel of level 0; None where the file does not say.
        magnification: Of the objective; None where the file does not say.
        properties: What else the file says, by names such as OpenSlide gives.
    """

    path: Path
    reader: str
    levels: tuple[Level, ...]
    mpp: float | None = None
    magnification: float | None = None
    properties: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = self.levels[0]
        if min(first.width_px, first.height_px) < SMALLEST_SIDE_PX:
            raise DataError(
                f"{self.path} has {first.width_px}x{first.height_px} pixels; "
                f"expected a slide of at least {SMALLEST_SIDE_PX} on each side"
            )


class Slide(Protocol):
    """An open slide; every method may be called from many threads at once."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def reader(self) -> str:
        """Which of the readers opened it."""
        ...

    @property
    def levels(self) -> tuple[Level, ...]:
        """Its resolutions, the finest first."""
        ...

    @property
    def mpp(self) -> float | None:
        """Micrometres per pixel of level 0; None where the file does not say."""
        ...

    @property
    def magnification(self) -> float | None:
        """Of the objective; None where the file does not say."""
        ...

    @property
    def properties(self) -> Mapping[str, str]:
        """What else the file says."""
        ...

    def read(self, x0: int, y0: int, width_px: int, height_px: int, *, level: int = 0) -> Array:
        """Read a rectangle.

        Args:
            x0: Its left edge in pixels of level 0, also outside the slide.
            y0: Its top edge in pixels of level 0, also outside the slide.
            width_px: Its width in pixels of ``level``.
            height_px: Its height in pixels of ``level``.
            level: Which of :attr:`levels`.

        Returns:
            uint8 RGB (height, width, 3), C-contiguous, the caller's to keep; white where the slide has no pixels.

        Raises:
            DataError: a part of the file cannot be read or decoded; says which.
            InputError: the rectangle is empty, there is no such level, or the slide is closed.
        """
        ...

    def thumbnail(self, least_width_px: int = 1024) -> tuple[Array, float]:
        """The whole slide from the smallest level that is as wide, or from level 0; with its downsample."""
        ...

    def fingerprint(self) -> dict[str, str]:
        """What tells this file from others and from its own earlier state; cheap, and the same after a copy."""
        ...

    def close(self) -> None:
        """Release the file; calling it again does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


def levels_of(sizes_px: list[tuple[int, int]]) -> tuple[Level, ...]:
    """Levels of the given (width, height), with the downsamples that OpenSlide gives them.

    >>> [level.downsample for level in levels_of([(1000, 600), (250, 150)])]
    [1.0, 4.0]
    """
    width0_px, height0_px = sizes_px[0]
    return tuple(
        Level(width_px=width, height_px=height, downsample=(width0_px / width + height0_px / height) / 2)
        for width, height in sizes_px
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelChoice:
    """Where to read pixels of a wanted resolution.

    Attributes:
        level: Which of the slide's levels.
        shrink: How many of its pixels one wanted pixel spans; below 1 even level 0 is too coarse.
    """

    level: int
    shrink: float


def level_for(slide: Slide, *, mpp: float | None = None, magnification: float | None = None) -> LevelChoice:
    """The coarsest level that still has the wanted resolution, or level 0.

    Args:
        slide: Says the resolution of its level 0.
        mpp: Wanted micrometres per pixel; or
        magnification: wanted power of the objective.

    Raises:
        InputError: not exactly one of the two is given, it is not positive, or the slide does not say its own.
    """
    if (mpp is None) == (magnification is None):
        raise InputError(f"got mpp {mpp} and magnification {magnification}; expected one of the two")
    wanted = mpp if mpp is not None else magnification
    if wanted is None or not (math.isfinite(wanted) and wanted > 0):
        raise InputError(f"got a resolution of {wanted}; expected a number above 0")
    downsample = _downsample_mpp(slide, wanted) if mpp is not None else _downsample_power(slide, wanted)
    # Half a percent: levels of odd sizes are not exact halves of each other.
    fine = [n for n, level in enumerate(slide.levels) if level.downsample <= downsample * 1.005]
    chosen = max(fine, key=lambda n: slide.levels[n].downsample, default=0)
    return LevelChoice(level=chosen, shrink=downsample / slide.levels[chosen].downsample)


def _downsample_mpp(slide: Slide, wanted: float) -> float:
    if slide.mpp is None:
        raise InputError(
            f"{slide.path} does not say its micrometres per pixel, so {wanted} of them cannot be found; "
            "say the resolution as a level or as pixels of level 0"
        )
    return wanted / slide.mpp


def _downsample_power(slide: Slide, wanted: float) -> float:
    if slide.magnification is None:
        raise InputError(
            f"{slide.path} does not say its magnification, so {wanted:g}x cannot be found; "
            "say the resolution in micrometres per pixel, as a level or as pixels of level 0"
        )
    return slide.magnification / wanted
