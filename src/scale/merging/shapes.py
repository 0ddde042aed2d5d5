"""Polygons as shapely's geometries: valid, in one part, without holes."""

from __future__ import annotations

from typing import Any

import numpy as np

from redline.core.packages import missing
from redline.core.tensor import Array
from redline.detection.results import Detections

try:
    import shapely
except ImportError as error:
    raise missing("shapely") from error

_LEAST_POINTS = 3


def shapes_of(found: Detections) -> Array:
    """The geometry of each detection's polygon; its box where it has none or one of less than three points.

    An outline that crosses itself is repaired and its largest part taken.
    """
    shapes: Array = shapely.box(*found.boxes.astype(np.float64).T)
    if found.polygons is None:
        return shapes
    usable = np.flatnonzero(np.diff(found.polygons.offsets) >= _LEAST_POINTS)
    if len(usable):
        chosen = found.polygons.take(usable)
        index = np.repeat(np.arange(len(usable)), np.diff(chosen.offsets))
        shapes[usable] = shapely.polygons(shapely.linearrings(chosen.points.astype(np.float64), indices=index))
    broken = np.flatnonzero(~shapely.is_valid(shapes))
    shapes[broken] = [largest(shape) for shape in shapely.buffer(shapes[broken], 0)]
    return shapes


def covering_pairs(shapes: Array, share: float) -> tuple[Array, Array]:
    """Positions of all pairs in which one covers more than a share of the other."""
    i, j = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    i, j = i[i < j], j[i < j]
    areas = shapely.area(shapes)
    shared = shapely.area(shapely.intersection(shapes[i], shapes[j]))
    covering = shared > share * np.minimum(areas[i], areas[j])
    return i[covering], j[covering]


def united(shapes: Array, *, seam_px: float = 0.0) -> Any:
    """The union of geometries as one polygon without holes, empty where it has no area.

    Args:
        shapes: Geometries.
        seam_px: Gaps up to this are closed where the union is in several parts; what is still apart then, goes.
    """
    union = shapely.union_all(shapes)
    if seam_px and shapely.get_num_geometries(union) > 1:
        half = seam_px / 2
        union = shapely.buffer(shapely.buffer(union, half, join_style="mitre"), -half, join_style="mitre")
    return shapely.Polygon(largest(union).exterior)


def largest(shape: Any) -> Any:
    """The polygon of most area among a geometry's parts; an empty one where there is none."""
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
    return max(parts, key=lambda part: part.area, default=shapely.Polygon())


def outline(shape: Any) -> Array:
    """The points of a polygon's outer ring, not closed."""
    points: Array = shapely.get_coordinates(shape.exterior)[:-1].astype(np.float32)
    return points
