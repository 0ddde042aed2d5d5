"""The ways to make one detection of several of the same class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from redline.core.errors import InputError
from redline.core.tensor import Array
from scale.merging.found import Found
from scale.merging.groups import averaged, enclosed
from scale.merging.nms_grid import Kernels
from scale.merging.ownership import Ownership
from scale.merging.pieces import explained_by, joined
from scale.merging.regions import merge_by_coverage, union
from scale.merging.settings import MergeSettings, Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is the same for every class.

    Attributes:
        kernels: The loops over boxes.
        ownership: Which window a place belongs to; only ``owner`` needs it.
    """

    kernels: Kernels
    ownership: Ownership | None = None


def merge_class(found: Found, method: Method, settings: MergeSettings, context: Context) -> Found:
    """Merge what was found of one class.

    Args:
        found: Best first.
        method: ``union`` takes its place, but for ``legacy``, where the class has a coverage.
        settings: Of the class.
        context: For all classes.
    """
    if settings.coverage is not None and method != "legacy":
        return union(found, settings, context.kernels)
    return _METHODS[method](found, settings, context)


def _drop_cut(found: Found, settings: MergeSettings, context: Context) -> Found:
    """Boxes that were seen whole, without duplicates, and what pieces of objects they do not explain."""
    return _with_pieces(found, settings, context, _best_ones)


def _wbf(found: Found, settings: MergeSettings, context: Context) -> Found:
    """As ``drop-cut``, but boxes of one object are averaged: each is matched with the best one, not with the mean."""
    return _with_pieces(found, settings, context, _means)


def _with_pieces(found: Found, settings: MergeSettings, context: Context, merge_whole: _MergeOne) -> Found:
    cut = found.cuts != 0
    kept = merge_whole(found.take(~cut), settings, context)
    if settings.cut_boxes == "drop" or not cut.any():
        return kept
    pieces = found.take(cut)
    pieces = pieces.take(~explained_by(kept, pieces, settings, context.kernels))
    return Found.concatenate([kept, joined(pieces, settings, context.kernels)])


def _best_ones(found: Found, settings: MergeSettings, context: Context) -> Found:
    return found.take(_matched(found, settings, context) == np.arange(len(found)))


def _means(found: Found, settings: MergeSettings, context: Context) -> Found:
    return averaged(found, _matched(found, settings, context))


def _nms(found: Found, settings: MergeSettings, context: Context) -> Found:
    """The best box of each object: it suppresses all of other windows that overlap it enough."""
    return found.take(_leaders(found, settings.iou, context, apart=True) == np.arange(len(found)))


def _owner(found: Found, settings: MergeSettings, context: Context) -> Found:
    """Boxes whose centre lies in their own window's part of the slide, without duplicates along its borders."""
    return _best_ones(owned(found, settings, context), settings, context)


def owned(found: Found, settings: MergeSettings, context: Context) -> Found:
    """What lies in its own window's part of the slide.

    Raises:
        InputError: nobody gave the grid.
    """
    if context.ownership is None:
        raise InputError("the merge method 'owner' needs the grid of windows; give it, or take 'drop-cut'")
    return found.take(context.ownership.owned(found, margin_px=settings.margin_px))


def _nmm(found: Found, settings: MergeSettings, context: Context) -> Found:
    """The box around the best box of each object and those of other windows that it covers, or is covered by."""
    leaders = _leaders(found, settings.smaller, context, apart=True, of_smaller=True)
    return enclosed(found, leaders, seam_px=settings.seam_px)


def _union(found: Found, settings: MergeSettings, context: Context) -> Found:
    """Whatever overlaps enough, of whichever window."""
    return union(found, settings, context.kernels)


def _legacy(found: Found, settings: MergeSettings, context: Context) -> Found:
    """Suppression between all boxes, of one window too, then union by coverage, from the largest to the smallest."""
    # A threshold of zero means the same as none there.
    leaders = _leaders(found, settings.iou or None, context, apart=False)
    kept = found.take(leaders == np.arange(len(found)))
    return merge_by_coverage(kept, settings.coverage, context.kernels) if settings.coverage else kept


def _matched(found: Found, settings: MergeSettings, context: Context) -> Array:
    if settings.iou is None:
        return np.arange(len(found))
    boxes = found.detections.boxes.astype(np.float64)
    return context.kernels.one_to_one(boxes, found.windows, threshold=settings.iou)


def _leaders(
    found: Found, threshold: float | None, context: Context, *, apart: bool, of_smaller: bool = False
) -> Array:
    if threshold is None:
        return np.arange(len(found))
    boxes = found.detections.boxes.astype(np.float64)
    return context.kernels.suppress(boxes, found.windows, threshold=threshold, of_smaller=of_smaller, apart=apart)


_MergeOne = Callable[[Found, MergeSettings, Context], Found]
_METHODS: Mapping[Method, _MergeOne] = {
    "drop-cut": _drop_cut,
    "owner": _owner,
    "nms": _nms,
    "nmm": _nmm,
    "wbf": _wbf,
    "legacy": _legacy,
    "union": _union,
}
