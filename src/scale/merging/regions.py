"""Regions: whatever overlaps enough becomes one outline, however many windows it reaches through."""

from __future__ import annotations

from typing import Any

import numpy as np

from redline.core.tensor import Array
from redline.detection.results import Detections, Polygons
from scale.merging.found import Found
from scale.merging.geometry import around, components, match
from scale.merging.groups import enclosed
from scale.merging.nms_grid import Kernels
from scale.merging.pieces import facing
from scale.merging.settings import MergeSettings


def union(found: Found, settings: MergeSettings, kernels: Kernels) -> Found:
    """Detections of which one covers another by more than a share are united, and pieces of one region at edges.

    Who is united is decided on the detections as they were found, so that their order plays no role.

    Args:
        found: Of one class, best first.
        settings: Their ``coverage``, else their ``smaller``, is the share.
        kernels: For boxes.
    """
    share = settings.smaller if settings.coverage is None else settings.coverage
    boxes = found.detections.boxes.astype(np.float64)
    i, j = facing(boxes, found.windows, found.cuts, settings, kernels)
    k, m = _covering(found, boxes, share, kernels)
    labels = components(len(found), np.concatenate([i, k]), np.concatenate([j, m]))
    return enclosed(found, labels, seam_px=settings.seam_px)


def _covering(found: Found, boxes: Array, share: float, kernels: Kernels) -> tuple[Array, Array]:
    if found.detections.polygons is None:
        i, j = kernels.touching(boxes, boxes)
        covering = match(boxes[i], boxes[j], threshold=share, of_smaller=True)
        return i[covering], j[covering]
    from scale.merging.shapes import covering_pairs, shapes_of

    return covering_pairs(shapes_of(found.detections), share)


def closed_groups(boxes: Array, kernels: Kernels, *, reach_px: float = 0.0) -> Array:
    """Labels of boxes that may come together when those that touch are replaced by the box around them, on and on."""
    labels = np.arange(len(boxes))
    hulls = boxes
    while True:
        i, j = kernels.touching(hulls, hulls, reach_px=reach_px)
        if not len(i):
            return labels
        groups = components(len(hulls), i, j)
        _, groups = np.unique(groups, return_inverse=True)
        labels = groups[labels]
        hulls = around(hulls, groups)


def merge_by_coverage(found: Found, coverage: float, kernels: Kernels) -> Found:
    """The second step of ``legacy``: from the largest box to the smallest, each is united with what it overlaps enough.

    Enough is more than the share of its own area, or of the other's as that has become by then. So the result depends
    on the order, unlike :func:`union`'s.

    Args:
        found: Of one class, in the order of the first step: best first.
        coverage: The share.
        kernels: For boxes.
    """
    boxes = found.detections.boxes.astype(np.float64)
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.lexsort((-found.detections.scores, -sizes))
    groups = closed_groups(boxes, kernels)[order]
    by_group = order[np.argsort(groups, kind="stable")]
    shapes = None
    if found.detections.polygons is not None:
        from scale.merging.shapes import shapes_of

        shapes = shapes_of(found.detections)
    borders = np.flatnonzero(np.diff(np.sort(groups))) + 1
    standing: list[_Standing] = []
    for members in np.split(by_group, borders) if len(by_group) else []:
        standing += _one_by_one(members, boxes, shapes, found.detections.scores, coverage)
    return _result(found, standing)


class _Standing:
    """What stands for one or more detections while others may still join.

    Attributes:
        box: Around all of them.
        shape: The union of their polygons, None where there are none.
        members: Their positions.
    """

    __slots__ = ("box", "members", "score", "shape")

    def __init__(self, box: Array, shape: Any, score: float, members: list[int]) -> None:
        self.box, self.shape, self.score, self.members = box, shape, score, members


def _one_by_one(members: Array, boxes: Array, shapes: Array | None, scores: Array, coverage: float) -> list[_Standing]:
    standing: list[_Standing] = []
    around = np.zeros((len(members), 4))
    for index in members.tolist():
        new = _Standing(boxes[index], None if shapes is None else shapes[index], scores[index], [index])
        hits = _hits(new, standing, around[: len(standing)], coverage)
        for hit in hits:
            new = _both(new, standing[hit])
        if hits:
            stay = np.setdiff1d(np.arange(len(standing)), hits)
            standing = [standing[place] for place in stay]
            around[: len(stay)] = around[stay]
        standing.append(new)
        around[len(standing) - 1] = new.box
    return standing


def _hits(new: _Standing, standing: list[_Standing], around: Array, coverage: float) -> list[int]:
    """Which of those that stand cover it enough, or are covered by it."""
    ours = np.broadcast_to(new.box, around.shape)
    if new.shape is None:
        return np.flatnonzero(match(ours, around, threshold=coverage, of_smaller=True)).tolist()
    places = np.flatnonzero(match(ours, around, threshold=0.0, of_smaller=True)).tolist()
    return [
        place
        for place in places
        if new.shape.intersection(standing[place].shape).area
        > coverage * min(new.shape.area, standing[place].shape.area)
    ]


def _both(a: _Standing, b: _Standing) -> _Standing:
    box = np.concatenate([np.minimum(a.box[:2], b.box[:2]), np.maximum(a.box[2:], b.box[2:])])
    shape = None
    if a.shape is not None:
        from scale.merging.shapes import united

        shape = united(np.array([a.shape, b.shape]))
    return _Standing(box, shape, max(a.score, b.score), [*a.members, *b.members])


def _result(found: Found, standing: list[_Standing]) -> Found:
    """What stands, as detections; the window and the cuts are those of the best one in it."""
    best = found.take(np.array([min(one.members) for one in standing], np.int64))
    polygons = found.detections.polygons
    if polygons is not None:
        from scale.merging.shapes import outline

        alone = (len(one.members) == 1 or one.shape.is_empty for one in standing)
        polygons = Polygons.of(
            [
                polygons.ring(one.members[0]) if is_alone else outline(one.shape)
                for one, is_alone in zip(standing, alone, strict=True)
            ]
        )
    detections = Detections(
        boxes=np.array([one.box for one in standing], np.float32).reshape(-1, 4),
        scores=np.array([one.score for one in standing], np.float32),
        classes=best.detections.classes,
        polygons=polygons,
    )
    return Found(detections, best.windows, best.cuts)
