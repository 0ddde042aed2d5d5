"""A slide, or a part of one, as a picture that is small enough to hold, with its way back to level-0 pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from redline.core.tensor import Array
from redline.detection.letterbox import opencv
from scale.regions.grid import Region
from scale.regions.remembered import once
from scale.slides.base import Level, Slide

LEAST_WIDTH_PX = 1024
MOST_PX = 4_000_000
BAND_PX = 16_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """What a region looks like from afar.

    Attributes:
        pixels: uint8 RGB.
        region: What it shows, in level-0 pixels.
        downsample: How many level-0 pixels one of its pixels stands for on a side.
    """

    pixels: Array
    region: Region
    downsample: float

    def region_of(self, name: str, *, left: int, top: int, width: int, height: int) -> Region:
        """The level-0 rectangle that some of its pixels stand for, within its region.

        Args:
            name: Of that rectangle.
            left: Its first column here.
            top: Its first row here.
            width: How many columns.
            height: How many rows.
        """
        rows, columns = self.pixels.shape[:2]
        start_x, end_x = _span(left, width, columns, self.downsample, self.region.width_px)
        start_y, end_y = _span(top, height, rows, self.downsample, self.region.height_px)
        return Region(
            name=name,
            x0=self.region.x0 + start_x,
            y0=self.region.y0 + start_y,
            width_px=end_x - start_x,
            height_px=end_y - start_y,
        )


def _span(first: int, count: int, pixels: int, downsample: float, length_px: int) -> tuple[int, int]:
    """Start and end in level-0 pixels; the last pixel reaches to the end, which a level's rounded size may miss."""
    end = length_px if first + count >= pixels else min(length_px, math.ceil((first + count) * downsample))
    return min(math.floor(first * downsample), end - 1), end


def whole_slide(slide: Slide) -> Region:
    """All of a slide."""
    full = slide.levels[0]
    return Region(name="slide", x0=0, y0=0, width_px=full.width_px, height_px=full.height_px)


def overview(slide: Slide) -> Picture:
    """The whole slide as a picture, read once."""
    return once(slide, "overview", lambda: picture_of(slide, whole_slide(slide)))


def picture_of(
    slide: Slide,
    region: Region,
    *,
    least_width_px: int = LEAST_WIDTH_PX,
    most_px: int = MOST_PX,
    band_px: int = BAND_PX,
) -> Picture:
    """A region as a picture, from the coarsest level that shows enough of it.

    Where that level is too large, as in slides of a single one, it is read in bands and averaged, so that memory stays
    bounded however large the slide.

    Args:
        slide: Where to read.
        region: What to show.
        least_width_px: How wide the region must be on the level; level 0 is taken where none is.
        most_px: How many pixels the picture has at most, but for the rounding up of its sides.
        band_px: How many pixels are read at a time at most, but for a single row of the picture.
    """
    number = _level_for(slide.levels, region, least_width_px)
    level = slide.levels[number]
    width = _length(region.x0, region.width_px, level.downsample, level.width_px)
    height = _length(region.y0, region.height_px, level.downsample, level.height_px)
    factor = max(1, math.ceil(math.sqrt(width * height / most_px)))
    rows = max(1, band_px // (width * factor)) * factor
    bands = [_shrink(band, factor) for band in _bands(slide, region, number, width, height, rows)]
    return Picture(pixels=np.concatenate(bands), region=region, downsample=factor * level.downsample)


def _level_for(levels: tuple[Level, ...], region: Region, least_width_px: int) -> int:
    fitting = [n for n, level in enumerate(levels) if region.width_px / level.downsample >= least_width_px]
    return max(fitting, key=lambda n: levels[n].downsample, default=0)


def _length(start: int, length_px: int, downsample: float, level_px: int) -> int:
    """How many of a level's pixels a length covers; a level's rounded size must not be passed by one white pixel."""
    left = level_px - math.floor(start / downsample)
    return max(1, min(math.ceil(length_px / downsample), left))


def _bands(slide: Slide, region: Region, number: int, width: int, height: int, rows: int) -> Iterator[Array]:
    downsample = slide.levels[number].downsample
    for top in range(0, height, rows):
        y0 = region.y0 + round(top * downsample)
        yield slide.read(region.x0, y0, width, min(rows, height - top), level=number)


def _shrink(pixels: Array, factor: int) -> Array:
    """Averages of squares; those at the right and lower border are filled up with the border's own pixels."""
    if factor == 1:
        return pixels
    cv2 = opencv()
    height, width = pixels.shape[:2]
    rows, columns = -(-height // factor), -(-width // factor)
    below, beside = rows * factor - height, columns * factor - width
    if below or beside:
        pixels = cv2.copyMakeBorder(pixels, 0, below, 0, beside, cv2.BORDER_REPLICATE)
    small: Array = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA)
    return small
