"""Which detections can have a say in each other's fate: an upper bound, by which finished ones are told from others."""

from __future__ import annotations

import numpy as np

from redline.core.tensor import Array
from scale.merging.found import Found
from scale.merging.geometry import components, match
from scale.merging.nms_grid import Kernels
from scale.merging.regions import closed_groups
from scale.merging.settings import MergeSettings, Method


def dependent_groups(found: Found, known: Array, method: Method, settings: MergeSettings, kernels: Kernels) -> Array:
    """Labels of groups of one class: what becomes of a detection depends on nothing outside its group.

    Groups are made of what a method compares: boxes that share more than the least of its thresholds, and pieces at an
    edge. Merely to touch is not enough, or all of a dense tissue would be one group.

    Args:
        found: The detections.
        known: Labels of the first of them among themselves, so that these are not compared again: of a crowd that goes
            down a whole slide, each row would compare all that is above it.
        method: By which they are merged.
        settings: Of the class.
        kernels: For boxes.
    """
    boxes = found.detections.boxes.astype(np.float64)
    regions = method == "union" or settings.coverage is not None
    if regions and method == "legacy":
        return closed_groups(boxes, kernels)
    i, j = _new_pairs(boxes, len(known), settings.seam_px, kernels)
    if not (regions and found.detections.polygons is not None):
        linked = match(boxes[i], boxes[j], threshold=_least_share(settings), of_smaller=True)
        linked |= (found.cuts[i] != 0) & (found.cuts[j] != 0) & (found.windows[i] != found.windows[j])
        i, j = i[linked], j[linked]
    _, firsts, groups = np.unique(known, return_index=True, return_inverse=True)
    i, j = np.concatenate([np.arange(len(known)), i]), np.concatenate([firsts[groups], j])
    return components(len(found), i, j)


def reach_px(method: Method, settings: MergeSettings) -> float:
    """How far below a detection another one may begin and still have a say."""
    return 0.0 if method == "legacy" else settings.seam_px


def _least_share(settings: MergeSettings) -> float:
    """Boxes that share less of the smaller one than this do not meet; a share of both together is never more."""
    shares = {settings.contained, settings.smaller, settings.coverage, settings.iou}
    return min(share for share in shares if share is not None)


def _new_pairs(boxes: Array, known: int, reach_px: float, kernels: Kernels) -> tuple[Array, Array]:
    """Pairs of boxes that touch, but for those among the first ones, which are known."""
    new = boxes[known:]
    i, j = kernels.touching(new, new, reach_px=reach_px)
    if not known or not len(new):
        return i + known, j + known
    # Most of what is known lies above all that is new, and only its lower border needs a look.
    low = np.flatnonzero(boxes[:known, 3] + reach_px >= new[:, 1].min())
    k, m = kernels.touching(boxes[low], new, reach_px=reach_px)
    return np.concatenate([i + known, low[k]]), np.concatenate([j, m]) + known
