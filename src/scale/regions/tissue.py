"""Where on a slide there is tissue, so that empty glass is not searched; in doubt there is some."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from redline.core.tensor import Array
from redline.detection.letterbox import opencv
from scale.regions.grid import Grid
from scale.regions.picture import overview
from scale.regions.remembered import once
from scale.slides.base import Slide

MARGIN_PX = 128
HOLE_PX = 512

# Otsu's threshold splits whatever it is given: noise where all is glass, pale from strong where all is tissue. So it
# moves between the least, up to which a pixel is like glass, and the most, above which it is tissue in any case (for
# saturation that is what the rule of sections says, too).
_SATURATION = (10, 29)
_DARKNESS = (25, 60)
_BLACK = 16
_GLASS_PERCENTILE = 99


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TissueMask:
    """Where there is tissue, from afar.

    Attributes:
        mask: bool, True where there is tissue.
        downsample: How many level-0 pixels one of its pixels stands for on a side.
    """

    mask: Array
    downsample: float
    _sums: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows, columns = self.mask.shape
        sums = np.zeros((rows + 1, columns + 1), dtype=np.int64)
        np.cumsum(np.cumsum(self.mask, axis=0, dtype=np.int64), axis=1, out=sums[1:, 1:])
        object.__setattr__(self, "_sums", sums)

    @property
    def share(self) -> float:
        """How much of the slide is tissue, 0 to 1."""
        return float(self._sums[-1, -1]) / self.mask.size

    def touches(self, x0: int, y0: int, width_px: int, height_px: int) -> bool:
        """Whether a rectangle in level-0 pixels has any tissue in it or within a pixel of the mask beside it."""
        top, bottom = self._span(np.array([y0]), height_px, axis=0)
        left, right = self._span(np.array([x0]), width_px, axis=1)
        return bool(self._any(top, bottom, left, right)[0, 0])

    def touching(self, grid: Grid) -> Array:
        """For each window of a grid, in its order, whether there is tissue in it: bool."""
        top, bottom = self._span(np.array(grid.rows_y0), grid.window_px, axis=0)
        left, right = self._span(np.array(grid.columns_x0), grid.window_px, axis=1)
        return self._any(top, bottom, left, right).reshape(-1)

    def image(self) -> Array:
        """The mask as a picture to look at: uint8, tissue white on black."""
        return np.where(self.mask, 255, 0).astype(np.uint8)

    def _span(self, starts: Array, length_px: int, *, axis: int) -> tuple[Array, Array]:
        """First and end pixel of lengths; one more on each side, for what a level's rounded size shifts."""
        first = np.floor(starts / self.downsample).astype(np.int64) - 1
        end = np.ceil((starts + length_px) / self.downsample).astype(np.int64) + 1
        pixels = self.mask.shape[axis]
        return np.clip(first, 0, pixels), np.clip(end, 0, pixels)

    def _any(self, top: Array, bottom: Array, left: Array, right: Array) -> Array:
        above, below = self._sums[top], self._sums[bottom]
        counts: Array = below[:, right] - below[:, left] - above[:, right] + above[:, left]
        return counts > 0


def tissue_mask(slide: Slide, *, margin_px: int = MARGIN_PX) -> TissueMask:
    """Where a slide has tissue.

    Saturation, or darkness against the glass, above Otsu's threshold, in a picture of bounded size. Pen marks count as
    tissue, black padding does not. Specks under three pixels of the picture are left out.

    Args:
        slide: Where to look; asked again, it is not read again.
        margin_px: What is added around tissue, in level-0 pixels, for thin and pale borders; at least one pixel of the
            picture.

    Returns:
        A mask without any tissue where there is none, as on an empty glass.
    """
    return once(slide, ("tissue", margin_px), lambda: _make(slide, margin_px))


def _make(slide: Slide, margin_px: int) -> TissueMask:
    picture = overview(slide)
    found = _clean(tissue_of(picture.pixels), max(1, round((HOLE_PX / picture.downsample) ** 2)))
    mask = _grown(found, max(1, math.ceil(margin_px / picture.downsample)))
    return TissueMask(mask=mask, downsample=picture.downsample)


def tissue_of(pixels: Array) -> Array:
    """Which pixels of a picture (uint8 RGB) show tissue: bool, neither cleaned nor widened."""
    cv2 = opencv()
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    saturation, value = np.ascontiguousarray(hsv[:, :, 1]), np.ascontiguousarray(hsv[:, :, 2])
    seen = ~_padding(value)
    if not seen.any():
        return seen
    glass = np.uint8(np.percentile(value[seen], _GLASS_PERCENTILE))
    coloured = _above_otsu(saturation, seen, *_SATURATION)
    return coloured | _above_otsu(glass - np.minimum(value, glass), seen, *_DARKNESS)


def _above_otsu(signal: Array, seen: Array, least: int, most: int) -> Array:
    cv2 = opencv()
    smooth: Array = cv2.medianBlur(signal, 3)
    otsu, _ = cv2.threshold(smooth[seen].reshape(-1, 1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    above: Array = (smooth > np.clip(otsu, least, most)) & seen
    return above


def _padding(value: Array) -> Array:
    """Black that reaches the border, as scanners put where they did not scan; black inside may be pigment."""
    _, labels = opencv().connectedComponents((value <= _BLACK).astype(np.uint8), connectivity=8)
    padding: Array = _at_border(labels)[labels]
    return padding


def _at_border(labels: Array) -> Array:
    """For each label but 0 whether it reaches the border."""
    reached = np.zeros(int(labels.max()) + 1, dtype=bool)
    for line in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        reached[line] = True
    reached[0] = False
    return reached


def _clean(mask: Array, most_hole: int) -> Array:
    """Gaps closed, specks dropped, small holes filled; what is left keeps its outline."""
    cv2 = opencv()
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, disc)
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels = cv2.connectedComponents(closed, connectivity=8)
    kept = np.zeros(count, dtype=bool)
    kept[labels[opened > 0]] = True
    kept[0] = False
    return _filled(kept[labels], most_hole)


def _filled(mask: Array, most_hole: int) -> Array:
    _, labels, stats, _ = opencv().connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    small = (stats[:, -1] <= most_hole) & ~_at_border(labels)
    small[0] = False
    filled: Array = mask | small[labels]
    return filled


def _grown(mask: Array, radius: int) -> Array:
    if not mask.any():
        return mask
    cv2 = opencv()
    distances = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    grown: Array = distances <= radius
    return grown
