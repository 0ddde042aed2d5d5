"""Several detections of one object become one."""

from __future__ import annotations

import numpy as np

from redline.core.tensor import Array
from redline.detection.results import Detections, Polygons
from scale.merging.found import BOTTOM, LEFT, RIGHT, TOP, Found


def enclosed(found: Found, labels: Array, *, seam_px: float) -> Found:
    """One detection for each label: the box around all of it, the union of its polygons, its best score.

    Args:
        found: Best first.
        labels: One for each detection.
        seam_px: Gaps between polygons up to this are closed.
    """
    members = _Members(labels)
    if len(members.starts) == len(labels):
        return found
    boxes, cuts = found.detections.boxes[members.order], found.cuts[members.order]
    around = np.empty((len(members.starts), 4), boxes.dtype)
    kept_cuts = np.zeros(len(members.starts), np.uint8)
    for side, bit in enumerate((LEFT, TOP, RIGHT, BOTTOM)):
        furthest = np.minimum if bit in (LEFT, TOP) else np.maximum
        around[:, side] = furthest.reduceat(boxes[:, side], members.starts)
        # The whole is cut where its outermost piece is.
        outermost = boxes[:, side] == np.repeat(around[:, side], members.sizes)
        kept_cuts |= np.bitwise_or.reduceat(np.where(outermost, cuts & bit, 0).astype(np.uint8), members.starts)
    best = found.take(members.firsts)
    polygons = _united(found.detections, members, seam_px)
    return Found(_with(best.detections, around, best.detections.scores, polygons), best.windows, kept_cuts)


def averaged(found: Found, labels: Array) -> Found:
    """One detection for each label: boxes weighted by their scores, the mean score, the best one's polygon.

    Args:
        found: Best first.
        labels: One for each detection.
    """
    members = _Members(labels)
    if len(members.starts) == len(labels):
        return found
    scores = found.detections.scores[members.order].astype(np.float64)
    # A group of nothing but zero scores weighs all alike.
    weights = np.where(np.repeat(np.add.reduceat(scores, members.starts), members.sizes) > 0, scores, 1.0)
    sums = np.add.reduceat(found.detections.boxes[members.order] * weights[:, None], members.starts)
    boxes = (sums / np.add.reduceat(weights, members.starts)[:, None]).astype(np.float32)
    means = (np.add.reduceat(scores, members.starts) / members.sizes).astype(np.float32)
    best = found.take(members.firsts)
    return Found(_with(best.detections, boxes, means, best.detections.polygons), best.windows, best.cuts)


class _Members:
    """Positions sorted by label; within a label in their own order.

    Attributes:
        order: The positions.
        starts: Where each label begins in ``order``.
        sizes: How many each label has.
        firsts: The first position of each label.
    """

    def __init__(self, labels: Array) -> None:
        self.order = np.argsort(labels, kind="stable")
        ranked = labels[self.order]
        self.starts = np.flatnonzero(np.insert(ranked[1:] != ranked[:-1], 0, True)) if len(labels) else self.order
        self.sizes = np.diff(np.append(self.starts, len(labels)))
        self.firsts = self.order[self.starts]


def _with(detections: Detections, boxes: Array, scores: Array, polygons: Polygons | None) -> Detections:
    return Detections(boxes=boxes, scores=scores, classes=detections.classes, polygons=polygons)


def _united(detections: Detections, members: _Members, seam_px: float) -> Polygons | None:
    if detections.polygons is None:
        return None
    from scale.merging.shapes import outline, shapes_of, united

    rings = detections.polygons.rings()
    chosen = [rings[first] for first in members.firsts.tolist()]
    several = np.repeat(members.sizes > 1, members.sizes)
    shapes = shapes_of(detections.take(members.order[several]))
    done = 0
    for place in np.flatnonzero(members.sizes > 1).tolist():
        size = int(members.sizes[place])
        union = united(shapes[done : done + size], seam_px=seam_px)
        done += size
        if not union.is_empty:
            chosen[place] = outline(union)
    return Polygons.of(chosen)
