"""Where nuclei are on the slide that ships, as image processing of the classical kind says: labels for training.

Haematoxylin is unmixed (Ruifrok and Johnston, 2001), Laplacians of Gaussians at four scales answer to blobs, each
prominent maximum begins a nucleus, a watershed gives it its extent, and its box is that of its pixels. Regions without
the size, shape or colour of a nucleus are dropped, and so is what lies in three areas of keratin and debris that
were outlined by hand. Nobody who knows tissue has looked at them: they are no ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from redline.core.packages import missing
from redline.core.tensor import Array

SLIDE = Path(__file__).parents[2] / "scale" / "assets" / "cmu_small_region.svs"
# The rows of the slide that nothing is learned from.
HELD_OUT_Y0, HELD_OUT_Y1 = 1536, 2048

# Laplacians of Gaussians answer best to disks of radius 1.4 sigma: 3 to 7 pixels, of half a micrometre each.
_SIGMAS_PX = (2.2, 3.0, 4.0, 5.0)
_LEAST_ANSWER = 0.022
_LEAST_PROMINENCE = 0.2
_AROUND_PX = 61
_LEAST_EXCESS = 0.015
_AREA_PX = (25, 450)
_LEAST_SOLIDITY = 0.75
_MOST_RED = 140
_MOST_WHITE = 0.4
_MARGIN_PX = 1

# Corners (x, y) of what is dark and blue but no nucleus: layers of keratin, a hair's sheath, debris with ink.
_NO_NUCLEI = (
    (
        *((1640, 890), (1470, 950), (1330, 1080), (1270, 1200), (1225, 1400), (1180, 1560), (1165, 1660)),
        *((1180, 1790), (1260, 1885), (1380, 1885), (1450, 1740), (1530, 1610), (1640, 1530), (1760, 1450)),
        *((1815, 1420), (1790, 1310), (1720, 1320), (1640, 1290), (1600, 1200), (1625, 1050)),
    ),
    ((1630, 920), (1970, 920), (1970, 1420), (1820, 1420), (1640, 1300)),
    ((1205, 2000), (1275, 1960), (1340, 1980), (1330, 2090), (1270, 2180), (1200, 2140)),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Some rows of the slide with their labels.

    Attributes:
        pixels: uint8 RGB of shape (height, width, 3).
        boxes: float32 of shape (n, 4): x0, y0, x1, y1 in pixels of this part.
    """

    pixels: Array
    boxes: Array


def read_parts(path: Path = SLIDE) -> tuple[tuple[Part, ...], Part]:
    """The parts of the slide to train on, and the one that is held out: no pixel is in both.

    Raises:
        MissingDependencyError: OpenSlide or scikit-image is not installed.
    """
    pixels = _read_slide(path)
    rows = ((0, HELD_OUT_Y0), (HELD_OUT_Y1, pixels.shape[0]), (HELD_OUT_Y0, HELD_OUT_Y1))
    above, below, held_out = (_part(pixels[y0:y1], y0) for y0, y1 in rows)
    return (above, below), held_out


def _read_slide(path: Path) -> Array:
    try:
        import openslide
    except ImportError as error:
        raise missing("openslide-python") from error
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def _part(pixels: Array, y0: int) -> Part:
    boxes = nuclei_of(pixels)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + np.array([0, y0], np.float32)
    outside = ~_within_any(centres)
    return Part(pixels=pixels, boxes=boxes[outside])


def nuclei_of(pixels: Array) -> Array:
    """Boxes of nuclei in uint8 RGB pixels of half a micrometre: float32 of shape (n, 4).

    Raises:
        MissingDependencyError: scikit-image is not installed.
    """
    try:
        from scipy import ndimage
        from skimage.color import rgb2hed
        from skimage.measure import label, regionprops_table
        from skimage.morphology import reconstruction
        from skimage.segmentation import watershed
    except ImportError as error:
        raise missing("scikit-image") from error
    stain = rgb2hed(pixels)[..., 0].astype(np.float32)
    answers = [-(sigma**2) * ndimage.gaussian_laplace(stain, sigma) for sigma in _SIGMAS_PX]
    answer = np.mean(answers, axis=0)
    # Two maxima are one nucleus unless the saddle between them is lower by this ratio: a long one stays in one piece.
    logarithm = np.log(np.maximum(answer, _LEAST_ANSWER / 4))
    prominent = logarithm - reconstruction(logarithm - _LEAST_PROMINENCE, logarithm) > _LEAST_PROMINENCE - 1e-4
    seeds = label(prominent & (answer > _LEAST_ANSWER), connectivity=2)
    excess = ndimage.gaussian_filter(stain, 1.0) - ndimage.uniform_filter(stain, _AROUND_PX)
    regions = watershed(-answer, seeds, mask=(excess > _LEAST_EXCESS) & (answers[0] > 0))
    white = ndimage.uniform_filter((pixels.min(axis=2) > 200).astype(np.float32), _AROUND_PX // 2)
    table = regionprops_table(
        regions,
        intensity_image=np.dstack([pixels, white]),
        properties=("bbox", "area", "solidity", "intensity_mean"),
    )
    boxes = np.stack([table[f"bbox-{index}"] for index in (1, 0, 3, 2)], axis=1).astype(np.float32)
    grown = boxes + np.array([-_MARGIN_PX, -_MARGIN_PX, _MARGIN_PX, _MARGIN_PX], np.float32) / 2
    return grown[_like_nuclei(table)]


def _like_nuclei(table: dict[str, Array]) -> Array:
    """Which regions have the size, the shape, the colour and the surroundings of a nucleus."""
    red, green, blue, white = (table[f"intensity_mean-{index}"] for index in range(4))
    sized = (table["area"] >= _AREA_PX[0]) & (table["area"] <= _AREA_PX[1]) & (table["solidity"] >= _LEAST_SOLIDITY)
    # Green ink marks the margins of this specimen; flakes of keratin lie in the light.
    coloured = (red < _MOST_RED) & (green < red + 8) & (blue > red - 6)
    alike: Array = sized & coloured & (white < _MOST_WHITE)
    return alike


def _within_any(points: Array) -> Array:
    """Which points (n, 2) lie in an area without nuclei: an even-odd count of the edges to their right."""
    within = np.zeros(len(points), bool)
    for corners in _NO_NUCLEI:
        inside = np.zeros(len(points), bool)
        for (xa, ya), (xb, yb) in zip(corners, (*corners[1:], corners[0]), strict=True):
            crosses = (ya > points[:, 1]) != (yb > points[:, 1])
            if ya != yb:
                inside ^= crosses & (points[:, 0] < xa + (xb - xa) * (points[:, 1] - ya) / (yb - ya))
        within |= inside
    return within
