"""Boxes cut by an inner edge of their window: explained by a whole box, else joined to the object that they are of."""

from __future__ import annotations

import numpy as np

from redline.core.tensor import Array
from scale.merging.found import Found
from scale.merging.geometry import agree, areas, components, match, shared_areas
from scale.merging.groups import enclosed
from scale.merging.nms_grid import Kernels
from scale.merging.settings import MergeSettings

#: Along both axes, pieces of one object have at least this share of their common length where both windows see it.
_AGREEMENT = 0.5


def explained_by(whole: Found, pieces: Found, settings: MergeSettings, kernels: Kernels) -> Array:
    """Whether a box seen whole, of the same class, contains each cut box by more than the wanted share."""
    inner, outer = (found.detections.boxes.astype(np.float64) for found in (pieces, whole))
    i, j = kernels.touching(inner, outer)
    explained = np.zeros(len(pieces), bool)
    hit = shared_areas(inner[i], outer[j]) > settings.contained * areas(inner[i])
    explained[i[hit & (pieces.detections.classes[i] == whole.detections.classes[j])]] = True
    return explained


def joined(pieces: Found, settings: MergeSettings, kernels: Kernels) -> Found:
    """Cut boxes of different windows that are of one object become one; the others stay as they are."""
    boxes = pieces.detections.boxes.astype(np.float64)
    i, j = facing(boxes, pieces.windows, pieces.cuts, settings, kernels)
    return enclosed(pieces, components(len(pieces), i, j), seam_px=settings.seam_px)


def facing(boxes: Array, windows: Array, cuts: Array, settings: MergeSettings, kernels: Kernels) -> tuple[Array, Array]:
    """Pairs of cut boxes of different windows that are pieces of one object."""
    cut = np.flatnonzero(cuts)
    chosen = boxes[cut]
    i, j = kernels.touching(chosen, chosen, reach_px=settings.seam_px)
    i, j = cut[i], cut[j]
    one = are_pieces_of_one(i, j, boxes, windows, cuts, settings)
    return i[one], j[one]


def are_pieces_of_one(i: Array, j: Array, boxes: Array, windows: Array, cuts: Array, settings: MergeSettings) -> Array:
    """Whether the cut boxes of each pair, of different windows, are of one object.

    They agree on what both windows could see of it; or one lies in the other, as where the third of three windows
    sees only the middle.
    """
    one = match(boxes[i], boxes[j], threshold=settings.contained, of_smaller=True)
    one |= agree(boxes[i], cuts[i], boxes[j], cuts[j], threshold=_AGREEMENT, reach_px=settings.seam_px)
    one &= windows[i] != windows[j]
    return one
