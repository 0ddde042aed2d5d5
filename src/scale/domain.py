"""What is found on a slide, in the words that users of such results already have: level-0 pixels, origin top-left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from redline.core.errors import ArtifactError, DataError, InputError
from redline.core.files import write_whole
from redline.core.packages import missing
from redline.core.plain import from_text, to_plain
from redline.core.tensor import Array

if TYPE_CHECKING:
    from redline.detection.results import Detections

Predictions: TypeAlias = "Mapping[str, Sequence[Prediction]]"

#: An outline of fewer points encloses nothing.
LEAST_POINTS = 3


@dataclass(frozen=True, slots=True)
class Coords:
    """A place on a slide in level-0 pixels."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Box:
    """An upright rectangle: ``start`` is its upper left corner, ``end`` its lower right one.

    >>> Box(Coords(0, 0), Coords(4, 2)).area
    8
    """

    start: Coords
    end: Coords

    def __post_init__(self) -> None:
        if not (self.start.x <= self.end.x and self.start.y <= self.end.y):
            raise InputError(
                f"got a box from ({self.start.x}, {self.start.y}) to ({self.end.x}, {self.end.y}), "
                f"expected its start at the upper left of its end"
            )

    @property
    def width(self) -> float:
        """Its width in pixels."""
        return self.end.x - self.start.x

    @property
    def height(self) -> float:
        """Its height in pixels."""
        return self.end.y - self.start.y

    @property
    def area(self) -> float:
        """Its area in square pixels."""
        return self.width * self.height

    def overlap(self, other: Box) -> float:
        """The area in square pixels that two boxes share."""
        width = min(self.end.x, other.end.x) - max(self.start.x, other.start.x)
        height = min(self.end.y, other.end.y) - max(self.start.y, other.start.y)
        return max(width, 0) * max(height, 0)

    def enclosing(self, other: Box) -> Box:
        """The smallest box that holds two."""
        return Box(
            Coords(min(self.start.x, other.start.x), min(self.start.y, other.start.y)),
            Coords(max(self.end.x, other.end.x), max(self.end.y, other.end.y)),
        )

    @property
    def corners(self) -> tuple[Coords, ...]:
        """Its four corners, clockwise on the screen from the upper left one."""
        return (self.start, Coords(self.end.x, self.start.y), self.end, Coords(self.start.x, self.end.y))


class Polygon:
    """An outline without holes.

    Its points stay as they were given. Areas, overlaps and unions are those of the shape that they enclose: an
    outline that crosses itself is repaired (``buffer(0)``), its largest part counts.

    >>> Polygon([Coords(0, 0), Coords(4, 0), Coords(4, 2)]).points[1]
    Coords(x=4, y=0)
    """

    __slots__ = ("_shape", "points")

    def __init__(self, points: Sequence[Coords]) -> None:
        if len(points) < LEAST_POINTS:
            raise InputError(f"got a polygon of {len(points)} points, expected at least {LEAST_POINTS}")
        self.points = tuple(points)
        self._shape: Any = None

    @classmethod
    def from_shape(cls, shape: Any) -> Polygon:
        """The outline of a shapely geometry's largest part.

        Raises:
            InputError: the geometry has no area.
        """
        part = _largest_part(shape)
        if part.is_empty:
            raise InputError(f"got a {shape.geom_type} without an area, expected a polygon")
        return cls([Coords(x, y) for x, y in part.exterior.coords[:-1]])

    @property
    def shape(self) -> Any:
        """The shapely polygon that it encloses: valid, in one part, empty where the points lie on a line."""
        if self._shape is None:
            shapely = _shapely()
            self._shape = _largest_part(shapely.Polygon([(point.x, point.y) for point in self.points]).buffer(0))
        return self._shape

    @property
    def area(self) -> float:
        """Its area in square pixels."""
        return float(self.shape.area)

    @property
    def box(self) -> Box:
        """The smallest box that holds it."""
        xs, ys = [point.x for point in self.points], [point.y for point in self.points]
        return Box(Coords(min(xs), min(ys)), Coords(max(xs), max(ys)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polygon) and self.points == other.points

    def __hash__(self) -> int:
        return hash(self.points)

    def __repr__(self) -> str:
        return f"Polygon({list(self.points)!r})"

    def __reduce__(self) -> tuple[type[Polygon], tuple[tuple[Coords, ...]]]:
        return Polygon, (self.points,)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One object: its box, its outline where the model gives one, and how sure the model is (0 to 1).

    >>> left, right = (Prediction(Box(Coords(x, 0), Coords(x + 4, 2)), None, 0.5) for x in (0, 2))
    >>> left.covered_by(right)
    0.5
    """

    box: Box
    polygon: Polygon | None
    conf: float

    @property
    def area(self) -> float:
        """The area in square pixels of its outline, or of its box where it has none."""
        return self.box.area if self.polygon is None else self.polygon.area

    def iou_with(self, other: Prediction) -> float:
        """The shared area over the area of both together, 0 to 1."""
        shared = self._overlap(other)
        together = self.area + other.area - shared
        return shared / together if together > 0 else 0.0

    def covered_by(self, other: Prediction) -> float:
        """The share of its own area that another one covers, 0 to 1."""
        area = self.area
        return self._overlap(other) / area if area > 0 else 0.0

    def merge_with(self, other: Prediction) -> Prediction:
        """One prediction for two: the box around both, the union of the outlines, the higher confidence.

        Where only one has an outline the other's box stands for its own; of a union in several parts the largest
        part counts.
        """
        polygon = None
        if self.polygon is not None or other.polygon is not None:
            union = self._shape().union(other._shape())
            polygon = None if union.area == 0 else Polygon.from_shape(union)
        return Prediction(self.box.enclosing(other.box), polygon, max(self.conf, other.conf))

    def _overlap(self, other: Prediction) -> float:
        if self.box.overlap(other.box) == 0:
            return 0.0
        if self.polygon is None and other.polygon is None:
            return self.box.overlap(other.box)
        return float(self._shape().intersection(other._shape()).area)

    def _shape(self) -> Any:
        if self.polygon is not None:
            return self.polygon.shape
        return _shapely().box(self.box.start.x, self.box.start.y, self.box.end.x, self.box.end.y)


@dataclass(frozen=True, slots=True)
class _Saved:
    """A prediction in a file."""

    box: Box
    polygon: tuple[Coords, ...] | None
    conf: float


def predictions_to_json(predictions: Predictions, path: str | os.PathLike[str] | None = None) -> str:
    """The JSON text of predictions by class, indented by 4; it is written to ``path`` as a whole where one is given."""
    value = {
        name: [_Saved(one.box, one.polygon.points if one.polygon is not None else None, one.conf) for one in several]
        for name, several in predictions.items()
    }
    text = json.dumps(to_plain(value), indent=4)
    if path is not None:
        write_whole(Path(path), text)
    return text


def predictions_from_json(source: str | os.PathLike[str]) -> dict[str, list[Prediction]]:
    """The inverse of :func:`predictions_to_json`: from a file, or from a text that begins with ``{``.

    Raises:
        DataError: the file is missing or is not of that layout.
    """
    text, name = _text_of(source)
    try:
        value = from_text(dict[str, list[_Saved]], text, where=name)
    except ArtifactError as error:
        raise DataError(f'{error}: expected predictions, {{"class": [{{"box", "polygon", "conf"}}]}}') from error
    return {
        name: [
            Prediction(one.box, Polygon(one.polygon) if one.polygon is not None else None, one.conf) for one in several
        ]
        for name, several in value.items()
    }


def from_detections(detections: Detections, names: Sequence[str]) -> dict[str, list[Prediction]]:
    """Predictions by class from arrays; every name has its list, in the order of the arrays.

    Numbers are the shortest decimals that mean the same float32, so 0.9 stays 0.9.
    """
    found: dict[str, list[Prediction]] = {name: [] for name in names}
    outlines = _outlines(detections)
    rows = zip(_plain(detections.boxes), _plain(detections.scores), detections.classes.tolist(), outlines, strict=True)
    for (x0, y0, x1, y1), conf, index, polygon in rows:
        found[names[index]].append(Prediction(Box(Coords(x0, y0), Coords(x1, y1)), polygon, conf))
    return found


def to_detections(predictions: Predictions) -> tuple[Detections, tuple[str, ...]]:
    """The inverse of :func:`from_detections`: arrays, and the names that their classes count.

    An object without an outline has no points where others have one.
    """
    from redline.detection.results import Detections, Polygons

    flat = [found for several in predictions.values() for found in several]
    boxes = [(found.box.start.x, found.box.start.y, found.box.end.x, found.box.end.y) for found in flat]
    polygons = None
    if any(found.polygon is not None for found in flat):
        outlines = [() if found.polygon is None else found.polygon.points for found in flat]
        points = [(point.x, point.y) for outline in outlines for point in outline]
        polygons = Polygons(
            points=np.array(points, np.float32).reshape(-1, 2),
            offsets=np.cumsum([0, *map(len, outlines)], dtype=np.int64),
        )
    detections = Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array([found.conf for found in flat], np.float32),
        classes=np.repeat(
            np.arange(len(predictions), dtype=np.int32), [len(several) for several in predictions.values()]
        ),
        polygons=polygons,
    )
    return detections, tuple(predictions)


def _outlines(detections: Detections) -> Iterator[Polygon | None]:
    if detections.polygons is None:
        yield from [None] * len(detections)
        return
    points = [Coords(x, y) for x, y in _plain(detections.polygons.points)]
    offsets = detections.polygons.offsets.tolist()
    for start, end in pairwise(offsets):
        yield Polygon(points[start:end]) if end - start >= LEAST_POINTS else None


def _plain(array: Array) -> Any:
    try:
        import orjson
    except ImportError as error:
        raise missing("orjson", extra="scale") from error
    # orjson writes the shortest decimals of a float32; tolist() would turn 0.9 into 0.8999999761581421.
    return orjson.loads(orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY))


def _text_of(source: str | os.PathLike[str]) -> tuple[str, str]:
    if isinstance(source, str) and source.lstrip().startswith("{"):
        return source, "the text"
    try:
        return Path(source).read_text(encoding="utf-8"), str(source)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not a text file; expected JSON") from error


def _largest_part(shape: Any) -> Any:
    parts = [part for part in getattr(shape, "geoms", [shape]) if part.geom_type == "Polygon"]
    return max(parts, key=lambda part: part.area, default=_shapely().Polygon())


def _shapely() -> Any:
    try:
        import shapely
    except ImportError as error:
        raise missing("shapely") from error
    return shapely
