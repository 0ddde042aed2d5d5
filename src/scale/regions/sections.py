"""Sections, the repeated cuts on one glass, and subsections, the separate pieces of tissue within one of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from redline.core.errors import DataError, InputError
from redline.core.packages import missing
from redline.core.tensor import Array
from redline.detection.letterbox import opencv
from scale.regions.grid import Region
from scale.regions.picture import Picture, overview, picture_of
from scale.regions.remembered import once
from scale.regions.tissue import tissue_of
from scale.slides.base import Slide

_DARKEST_HSV, _BRIGHTEST_HSV = (0, 30, 30), (180, 255, 255)
_SECTION_KERNEL, _SUBSECTION_KERNEL_X0, _LEAST_KERNEL = 5, 15, 3
_DEBRIS_OF_LARGEST, _LEAST_OF_MEDIAN_SECTION, _MOST_SHARED = 0.01, 0.3, 0.1
_LEAST_OF_MEDIAN, _LEAST_OF_LARGEST = 0.5, 0.1
_MOST_SECTIONS, _SEED, _STARTS = 16, 42, 10


def sections_of(slide: Slide, count: int | None = None) -> list[Region]:
    """The sections of a slide, ordered by (y, x) of their upper left corners.

    Pieces of tissue are grouped by where their centres lie (k-means). Left out are pieces under a hundredth of the
    largest, which is debris, and of the others those under 0.3 of their median area. It is worked out once per slide,
    from a picture of bounded size.

    Args:
        slide: Where to look.
        count: How many there are. Without it, the number from 2 to 16 with the best silhouette, of those whose sections
            lie apart; one section where there are none, or fewer than three pieces. Say it where each section is a
            single piece, which no silhouette can tell.

    Returns:
        Boxes around the pieces of each; empty where the slide has no tissue.

    Raises:
        DataError: there are fewer pieces of tissue than ``count``.
    """
    _check_count(count, "sections")
    return list(once(slide, ("sections", count), lambda: _sections(slide, count)))


def subsections_of(slide: Slide, section: Region, count: int | None = None) -> list[Region]:
    """The separate pieces of tissue of a section, ordered by (y, x) of their upper left corners; boxes may overlap.

    Left out is what is smaller than half the median area or a tenth of the largest. It is worked out once per section,
    from a level that shows enough of it.

    Args:
        slide: Where to look.
        section: One of :func:`sections_of`.
        count: How many at most: the largest.

    Returns:
        At least one: the section itself where no piece stands out.
    """
    _check_count(count, "subsections")
    return list(once(slide, ("subsections", section, count), lambda: _subsections(slide, section, count)))


def _check_count(count: int | None, what: str) -> None:
    if count is not None and count < 1:
        raise InputError(f"got {count} {what}, expected 1 or more, or None to find out how many there are")


def _sections(slide: Slide, count: int | None) -> list[Region]:
    picture = overview(slide)
    boxes, areas, centres = _pieces(picture.pixels, _SECTION_KERNEL)
    if not len(areas):
        return []
    tissue = areas >= _DEBRIS_OF_LARGEST * areas.max()
    kept = tissue & (areas >= _LEAST_OF_MEDIAN_SECTION * np.median(areas[tissue]))
    boxes, centres = boxes[kept], centres[kept]
    if count is not None and count > len(boxes):
        raise DataError(
            f"{slide.path}: asked for {count} sections, pieces of tissue found: {len(boxes)}; ask for fewer, "
            "or leave the number out to find out how many there are"
        )
    groups = _best_groups(boxes, centres) if count is None else _clusters(centres, count)
    return _named(picture, _around_each(boxes, groups), "section")


def _subsections(slide: Slide, section: Region, count: int | None) -> list[Region]:
    picture = picture_of(slide, section)
    # The kernel is meant for level 0; averaging has already done the smaller part of its work.
    kernel = max(_LEAST_KERNEL, round(_SUBSECTION_KERNEL_X0 / picture.downsample) | 1)
    boxes, areas, _ = _pieces(picture.pixels, kernel)
    if not len(areas):
        boxes = np.array([[0, 0, picture.pixels.shape[1], picture.pixels.shape[0]]])
    else:
        kept = areas >= max(_LEAST_OF_MEDIAN * np.median(areas), _LEAST_OF_LARGEST * areas.max())
        boxes = boxes[kept][np.argsort(-areas[kept], kind="stable")[:count]]
    return _named(picture, list(boxes), f"{section.name}-subsection")


def _named(picture: Picture, boxes: list[Array], prefix: str) -> list[Region]:
    ordered = sorted((int(top), int(left), int(width), int(height)) for left, top, width, height in boxes)
    return [
        picture.region_of(f"{prefix}-{number}", left=left, top=top, width=width, height=height)
        for number, (top, left, width, height) in enumerate(ordered)
    ]


def _pieces(pixels: Array, kernel: int) -> tuple[Array, Array, Array]:
    """Connected pieces of tissue: boxes (left, top, width, height), areas, centres (x, y), in the picture's pixels."""
    cv2 = opencv()
    mask = cv2.inRange(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), _DARKEST_HSV, _BRIGHTEST_HSV)
    if not mask.any():  # pale or gray tissue, which the rule does not see
        mask = tissue_of(pixels).astype(np.uint8)
    square = np.ones((kernel, kernel), np.uint8)
    mask = cv2.morphologyEx(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, square), cv2.MORPH_OPEN, square)
    _, _, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=8)
    boxes: Array = stats[1:, :4]
    areas: Array = stats[1:, 4]
    return boxes, areas, centres[1:]


def _around_each(boxes: Array, groups: Array) -> list[Array]:
    """One box (left, top, width, height) around those of each group."""
    found = []
    for group in np.unique(groups):
        own = boxes[groups == group]
        start, end = own[:, :2].min(axis=0), (own[:, :2] + own[:, 2:]).max(axis=0)
        found.append(np.concatenate([start, end - start]))
    return found


def _best_groups(boxes: Array, centres: Array) -> Array:
    """For each piece the number of its group: of the numbers of groups the one with the best silhouette."""
    if len(centres) < 3:  # of two pieces nothing says whether they belong together
        return _clusters(centres, 1)
    tried = [_clusters(centres, number) for number in range(2, min(_MOST_SECTIONS, len(centres) - 1) + 1)]
    apart = [groups for groups in tried if _are_apart(_around_each(boxes, groups))]
    if not apart:
        return _clusters(centres, 1)
    silhouette_score = _sklearn().metrics.silhouette_score
    best: Array = max(apart, key=lambda groups: float(silhouette_score(centres, groups)))
    return best


def _are_apart(boxes: list[Array]) -> bool:
    """Whether no two boxes share much of the smaller one: cuts lie beside each other, not within each other."""
    for one, other in itertools.combinations(boxes, 2):
        start = np.maximum(one[:2], other[:2])
        sides = np.maximum(np.minimum(one[:2] + one[2:], other[:2] + other[2:]) - start, 0)
        if sides.prod() > _MOST_SHARED * min(one[2:].prod(), other[2:].prod()):
            return False
    return True


def _clusters(centres: Array, count: int) -> Array:
    if count == 1:
        return np.zeros(len(centres), dtype=np.int64)
    if count == len(centres):
        return np.arange(count)
    means = _sklearn().cluster.KMeans(n_clusters=count, random_state=_SEED, n_init=_STARTS)
    groups: Array = means.fit_predict(centres)
    return groups


def _sklearn() -> Any:
    """scikit-learn, loaded when something needs it."""
    try:
        import sklearn.cluster
        import sklearn.metrics
    except ImportError as error:
        raise missing("scikit-learn", extra="scale") from error
    return sklearn
