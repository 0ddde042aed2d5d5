"""Detections in bytes that JavaScript reads as typed arrays, without parsing.

Numbers of 32 bits, little-endian, one array behind the other::

    uint32   8             magic, n returned, n found, classes, has outlines (0 or 1), points, 0, 0
    uint32   classes       how many were found of each class
    float32  n x 4         x0, y0, x1, y1 in level-0 pixels
    float32  n             confidence
    uint32   n             class
    uint32   n             number of the detection in its file
    uint32   n + 1         where each outline begins in the points, only where there are outlines
    float32  points x 2    x, y
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from redline.core.tensor import Array
from scale.viewer.index import Rectangle
from scale.viewer.marks import Filter, Marks

if TYPE_CHECKING:
    from redline.detection.results import Polygons

__all__ = ["MAGIC", "encode"]

MAGIC = 0x31444353  # "SCD1"


def encode(marks: Marks, rectangle: Rectangle, wanted: Filter, *, most: int, step_px: float = 0.0) -> bytes:
    """The wanted detections that touch a rectangle; the ``most`` surest of them where there are more.

    Args:
        marks: All of the slide.
        rectangle: Where.
        wanted: Which.
        most: How many at most.
        step_px: Points of an outline that lie closer than this to the one before are left out.
    """
    found = marks.select(rectangle, wanted)
    counts = marks.counts(found)
    kept = found
    if len(found) > most:
        kept = found[np.argpartition(-marks.scores[found], most - 1)[:most]] if most else found[:0]
    kept = kept[np.argsort(marks.classes[kept], kind="stable")]  # so that each class is drawn in one go
    outlines = None if marks.polygons is None else _thinned(marks.polygons.take(kept), step_px)
    points = 0 if outlines is None else len(outlines[1])
    head = [MAGIC, len(kept), len(found), len(marks.names), int(outlines is not None), points, 0, 0]
    parts: list[tuple[Array, str]] = [
        (np.array(head), "<u4"),
        (counts, "<u4"),
        (marks.boxes[kept], "<f4"),
        (marks.scores[kept], "<f4"),
        (marks.classes[kept], "<u4"),
        (kept, "<u4"),
    ]
    if outlines is not None:
        parts += [(outlines[0], "<u4"), (outlines[1], "<f4")]
    return b"".join(np.ascontiguousarray(array, kind).tobytes() for array, kind in parts)


def _thinned(polygons: Polygons, step_px: float) -> tuple[Array, Array]:
    """Offsets and points, of which no two neighbours lie in one square of ``step_px``."""
    offsets, points = np.asarray(polygons.offsets), polygons.points
    if step_px <= 0 or not len(points):
        return offsets, points
    squares = np.floor(points / step_px)
    kept = np.ones(len(points), bool)
    kept[1:] = (squares[1:] != squares[:-1]).any(axis=1)
    kept[offsets[:-1][offsets[:-1] < len(points)]] = True
    return np.concatenate([[0], np.cumsum(kept)])[offsets], points[kept]
