"""Orders of detections that depend on nothing but the detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from redline.core.tensor import Array
from scale.merging.found import Found


def by_score(found: Found) -> Array:
    """Positions from the best to the least; ties by y0, x0, class, y1, x1, window."""
    boxes, rest = found.detections.boxes, found.detections
    return _sorted(
        ~_bits(rest.scores),
        _bits(boxes[:, 1]),
        lambda tied: (boxes[tied, 0], rest.classes[tied], boxes[tied, 3], boxes[tied, 2], found.windows[tied]),
    )


def as_read(found: Found) -> Array:
    """Positions from the top to the bottom, then from the left to the right; ties by class, score, y1, x1, window."""
    boxes, rest = found.detections.boxes, found.detections
    return _sorted(
        _bits(boxes[:, 1]),
        _bits(boxes[:, 0]),
        lambda tied: (rest.classes[tied], -rest.scores[tied], boxes[tied, 3], boxes[tied, 2], found.windows[tied]),
    )


def _sorted(first: Array, second: Array, others: Callable[[Array], Sequence[Array]]) -> Array:
    """Sort by two unsigned 32-bit keys as one of 64; only what ties there is sorted by the others, which is rare."""
    keys = (first.astype(np.uint64) << np.uint64(32)) | second.astype(np.uint64)
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    same = ranked[1:] == ranked[:-1]
    if same.any():
        places = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
        tied = order[places]
        order[places] = tied[np.lexsort((*others(tied)[::-1], keys[tied]))]
    return order


def _bits(values: Array) -> Array:
    """Unsigned integers in the order of float32 values."""
    # Adding zero makes -0.0 the same as 0.0.
    bits = (values.astype(np.float32) + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
