"""Outlines that other programs accept: valid polygons on a grid of a hundredth of a pixel."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import shapely

from redline.core.tensor import Array
from redline.detection.results import Polygons
from scale.domain import LEAST_POINTS

#: QuPath keeps as many, and other tools have no use for more.
DECIMALS = 2
_STEP_PX = 10.0**-DECIMALS
#: A reader that moves points to that grid, as QuPath does, may be left with nothing of what is thinner.
_LEAST_WIDTH_PX = 5 * _STEP_PX
_POLYGON = int(shapely.GeometryType.POLYGON)


def rounded_boxes(boxes: Array) -> Array:
    """Boxes on that grid, none of them flat: float64 (n, 4)."""
    rounded = np.round(boxes.astype(np.float64), DECIMALS)
    rounded[:, 2:] = np.round(np.maximum(rounded[:, 2:], rounded[:, :2] + _STEP_PX), DECIMALS)
    return rounded


def valid_rings(polygons: Polygons) -> list[Array | None]:
    """The ring of each polygon: float64 (m, 2), closed, rounded, counterclockwise, crossing itself nowhere.

    QuPath 0.6 refuses a whole file for one outline that crosses itself ("Reduction failed, possible invalid input").
    Such a one is repaired and its largest part kept; None stands for an outline that encloses next to nothing.
    """
    lengths = np.diff(polygons.offsets)
    usable = np.flatnonzero(lengths >= LEAST_POINTS)
    rings: list[Array | None] = [None] * len(polygons)
    if not len(usable):
        return rings
    kept = polygons.take(usable)
    owner = np.repeat(np.arange(len(kept)), np.diff(kept.offsets))
    points = np.round(kept.points.astype(np.float64), DECIMALS)
    shapes = shapely.polygons(shapely.linearrings(points, indices=owner))
    for index in np.flatnonzero(~shapely.is_valid(shapes)).tolist():
        shapes[index] = _repaired(shapes[index])
    for place, ring in zip(usable.tolist(), _rings_of(shapes), strict=True):
        rings[place] = ring
    return rings


def _repaired(shape: Any) -> Any:
    part = _largest(shapely.make_valid(shape))
    # Crossings lie between the grid's points; snapping to it can split the shape once more.
    return _largest(shapely.set_precision(shapely.Polygon(part.exterior), _STEP_PX))


def _largest(shape: Any) -> Any:
    # A repaired outline may be a collection that has a multipolygon and lines: parts of parts.
    parts = shapely.get_parts(shapely.get_parts(shape))
    return max(parts[shapely.get_type_id(parts) == _POLYGON], key=lambda part: part.area, default=shapely.Polygon())


def _rings_of(shapes: Array) -> list[Array | None]:
    lengths = shapely.length(shapes)
    widths = np.divide(2 * shapely.area(shapes), lengths, out=np.zeros(len(shapes)), where=lengths > 0)
    exteriors = shapely.get_exterior_ring(shapes)
    clockwise = ~shapely.is_ccw(exteriors)
    exteriors[clockwise] = shapely.reverse(exteriors[clockwise])
    points, owner = shapely.get_coordinates(exteriors, return_index=True)
    ends = np.searchsorted(owner, np.arange(len(shapes) + 1)).tolist()
    # Points of repaired outlines are multiples of the step only up to rounding in binary.
    points = np.round(points, DECIMALS)
    return [
        points[start:end] if width >= _LEAST_WIDTH_PX else None
        for (start, end), width in zip(pairwise(ends), widths.tolist(), strict=True)
    ]
