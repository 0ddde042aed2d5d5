"""From everything that was found in overlapping windows to one detection for each object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from redline.core.tensor import Array
from scale.merging.found import Found, check
from scale.merging.methods import Context, merge_class
from scale.merging.nms_grid import Kernels, best_kernels
from scale.merging.order import as_read, by_score
from scale.merging.ownership import Ownership, WindowGrid
from scale.merging.settings import MergeSettings, Method, check_method, settings_of


def merge(
    found: Found,
    *,
    method: Method = "drop-cut",
    settings: MergeSettings | Mapping[int, MergeSettings] | None = None,
    grid: WindowGrid | None = None,
    processed: Sequence[bool] | Array | None = None,
    kernels: Kernels | None = None,
) -> Found:
    """One detection for each object; classes never meet.

    Args:
        found: In any order: the result does not depend on it.
        method: ``drop-cut`` leaves out boxes that an inner edge of their window cuts, matches the others between
            windows, one to one, and joins the pieces of what was nowhere seen whole. ``owner`` believes each window
            about its own part of the slide: the cheapest, for overlaps that are small but larger than the objects.
            ``nms`` keeps the best, ``nmm`` the box around all, ``wbf`` the weighted mean. ``union`` is for regions.
            ``legacy`` is suppression between all boxes, then union by coverage.
        settings: For all classes, or for each by its number; what is not named has the defaults.
        grid: Of the windows; for ``owner``.
        processed: For each window of the grid whether it was looked at; None where all were. For ``owner``.
        kernels: The loops over boxes; else numba's where it is installed, else NumPy's.

    Returns:
        From the top to the bottom. Each detection has the window of its best member, and the cuts that are left.

    Raises:
        InputError: an unknown method, or ``owner`` without a grid.
        DataError: a box or a score that is no number.
        MissingDependencyError: shapely, where polygons are to be united.
    """
    check_method(method)
    check(found)
    ownership = Ownership.of(grid, processed) if grid is not None and method == "owner" else None
    context = Context(kernels=kernels or best_kernels(), ownership=ownership)
    return merge_checked(found, method, MergeSettings() if settings is None else settings, context)


def merge_checked(
    found: Found, method: Method, settings: MergeSettings | Mapping[int, MergeSettings], context: Context
) -> Found:
    """The same for what has been checked."""
    if not len(found):
        return found
    ranked = found.take(by_score(found))
    parts = [merge_class(one, method, settings_of(settings, index), context) for index, one in _classes_of(ranked)]
    result = Found.concatenate(parts)
    return result.take(as_read(result))


def _classes_of(found: Found) -> Iterator[tuple[int, Found]]:
    """Each class and its detections."""
    classes = found.detections.classes
    for index in np.unique(classes).tolist():
        members = np.flatnonzero(classes == index)
        yield index, found if len(members) == len(found) else found.take(members)
