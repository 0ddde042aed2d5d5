"""What a detector's head should have said: cells are given to labels, and the difference is the loss.

Task-aligned assignment (Feng et al., TOOD, 2021): a label gets the cells that already say it best, by probability and
overlap; what they should believe is how well they overlap it. Boxes are compared by complete IoU (Zheng et al., 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from redline.networks.yolo import Raw

_CELLS_PER_LABEL = 6
_PROBABILITY_POWER, _OVERLAP_POWER = 1.0, 4.0
_BOX_WEIGHT, _CLASS_WEIGHT = 5.0, 1.0
_TINY = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What the cells of one image should say.

    Attributes:
        cells: Those that were given a label.
        labels: The label of each of them.
        beliefs: What each of them should believe, up to 1.
    """

    cells: Tensor
    labels: Tensor
    beliefs: Tensor


def detection_loss(raw: Raw, boxes: Sequence[Tensor], classes: Sequence[Tensor]) -> Tensor:
    """The loss of a batch.

    Args:
        raw: What the head says.
        boxes: The labels of each image, shape (n, 4): x0, y0, x1, y1 in pixels of the input.
        classes: Their classes, shape (n,).
    """
    corners = raw.corners()
    targets = torch.zeros_like(raw.logits)
    misfits, beliefs = [], []
    for image, (own, kinds) in enumerate(zip(boxes, classes, strict=True)):
        found = assign(raw, image, corners[image].detach(), own, kinds)
        targets[image, found.cells, kinds[found.labels]] = found.beliefs
        misfits.append(1 - complete_iou(corners[image, found.cells], own[found.labels]))
        beliefs.append(found.beliefs)
    weights = torch.cat(beliefs)
    total = weights.sum().clamp(min=1.0)
    class_loss = functional.binary_cross_entropy_with_logits(raw.logits, targets, reduction="sum") / total
    box_loss = (torch.cat(misfits) * weights).sum() / total
    return _CLASS_WEIGHT * class_loss + _BOX_WEIGHT * box_loss


@torch.no_grad()
def assign(raw: Raw, image: int, corners: Tensor, boxes: Tensor, classes: Tensor) -> Assignment:
    """Give each label the cells within it that say it best; a cell with several takes the one it overlaps most."""
    x, y = raw.centres.T
    within = (x > boxes[:, :1]) & (x < boxes[:, 2:3]) & (y > boxes[:, 1:2]) & (y < boxes[:, 3:])
    overlap = box_iou(boxes, corners) * within
    probability = raw.logits[image].sigmoid()[:, classes].T
    aligned = (probability**_PROBABILITY_POWER * overlap**_OVERLAP_POWER) * within
    count = min(_CELLS_PER_LABEL, aligned.shape[1])
    best = aligned.topk(count, dim=1).indices
    chosen = torch.zeros_like(within).scatter_(1, best, value=True) & within
    owner = (overlap * chosen).argmax(dim=0) if len(boxes) else torch.zeros_like(x, dtype=torch.long)
    cells = chosen.any(dim=0).nonzero()[:, 0]
    labels = owner[cells]
    most_aligned = (aligned * chosen).amax(dim=1)[labels].clamp(min=_TINY)
    most_overlap = (overlap * chosen).amax(dim=1)[labels]
    return Assignment(cells=cells, labels=labels, beliefs=aligned[labels, cells] / most_aligned * most_overlap)


def box_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of every box (n, 4) with every other (m, 4): shape (n, m)."""
    low = torch.maximum(one[:, None, :2], other[None, :, :2])
    high = torch.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    return shared / (_area(one)[:, None] + _area(other)[None] - shared + _TINY)


def complete_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of pairs (n, 4), less the distance of their centres, less unlike proportions."""
    shared = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0).prod(1)
    iou = shared / (_area(one) + _area(other) - shared + _TINY)
    hull = torch.maximum(one[:, 2:], other[:, 2:]) - torch.minimum(one[:, :2], other[:, :2])
    apart = (one[:, :2] + one[:, 2:] - other[:, :2] - other[:, 2:]) / 2
    size, other_size = one[:, 2:] - one[:, :2], other[:, 2:] - other[:, :2]
    angles = [torch.atan(sides[:, 0] / (sides[:, 1] + _TINY)) for sides in (size, other_size)]
    unlike = (4 / math.pi**2) * (angles[0] - angles[1]) ** 2
    with torch.no_grad():
        weight = unlike / (1 - iou + unlike + _TINY)
    return iou - (apart**2).sum(1) / ((hull**2).sum(1) + _TINY) - weight * unlike


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
