"""Reading detections back from the formats that keep them whole: Parquet, GeoJSON, JSON."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import orjson

from redline.core.errors import DataError
from redline.detection.results import Detections, Polygons
from scale.domain import LEAST_POINTS
from scale.outputs.base import SlideInfo
from scale.outputs.qupath import CONFIDENCE, DERIVED, PROVENANCE, UNCLASSIFIED

Loaded: TypeAlias = tuple[Detections, tuple[str, ...]]
Ring: TypeAlias = Sequence[Sequence[float]]

_RECTANGLE_POINTS = 5


def read_detections(path: Path) -> Loaded:
    """Detections in level-0 pixels, and the names that their classes count.

    Takes ``.parquet``, the JSON of predictions by class, and GeoJSON of this program, of QuPath or of another that
    writes polygons; ``.gz`` of the latter two.

    Raises:
        DataError: the file is missing, broken, or of another layout.
    """
    if path.suffix == ".parquet":
        from scale.outputs.parquet import read_parquet

        return read_parquet(path)
    value = _parsed(path)
    try:
        return _of_features(value) if _is_geojson(value) else _of_predictions(value)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not detections ({error!r}); expected what scale or QuPath writes") from error


def read_info(path: Path) -> SlideInfo | None:
    """What a file says about its slide; None where it says nothing, as the JSON of predictions by class.

    Raises:
        DataError: the file is missing or broken.
    """
    if path.suffix == ".parquet":
        from scale.outputs.parquet import read_parquet_info

        return read_parquet_info(path)
    value = _parsed(path)
    if not isinstance(value, Mapping) or value.get("type") != "FeatureCollection" or PROVENANCE not in value:
        return None
    try:
        return SlideInfo.from_json(value[PROVENANCE])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: what it says about its slide is broken ({error!r})") from error


@dataclass(slots=True)
class _Collected:
    """Objects on their way into arrays."""

    names: dict[str, int] = field(default_factory=dict)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    rings: list[Ring] = field(default_factory=list)

    def add(self, name: str, score: float, box: tuple[float, float, float, float], ring: Ring) -> None:
        self.classes.append(self.names.setdefault(name, len(self.names)))
        self.boxes.append(box)
        self.scores.append(score)
        self.rings.append(ring)

    def done(self) -> Loaded:
        points = [point for ring in self.rings for point in ring]
        offsets = np.cumsum([0, *map(len, self.rings)], dtype=np.int64)
        detections = Detections(
            boxes=np.array(self.boxes, np.float32).reshape(-1, 4),
            scores=np.array(self.scores, np.float32),
            classes=np.array(self.classes, np.int32),
            polygons=Polygons(points=np.array(points, np.float32).reshape(-1, 2), offsets=offsets) if points else None,
        )
        return detections, tuple(self.names)


def _parsed(path: Path) -> Any:
    try:
        content = path.read_bytes()
        return orjson.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON ({error}); expected .parquet, .geojson or .json") from error


def _is_geojson(value: Any) -> bool:
    # QuPath writes an array of features where it is not asked for a collection.
    return isinstance(value, list) or (
        isinstance(value, Mapping) and value.get("type") in {"FeatureCollection", "Feature"}
    )


def _of_predictions(value: Mapping[str, Sequence[Mapping[str, Any]]]) -> Loaded:
    collected = _Collected(names={name: index for index, name in enumerate(value)})
    for name, several in value.items():
        for found in several:
            start, end, outline = found["box"]["start"], found["box"]["end"], found["polygon"] or ()
            ring = [(point["x"], point["y"]) for point in outline]
            collected.add(name, found["conf"], (start["x"], start["y"], end["x"], end["y"]), ring)
    return collected.done()


def _of_features(value: Any) -> Loaded:
    named: tuple[str, ...] = ()
    features = value if isinstance(value, list) else [value]
    if isinstance(value, Mapping) and value["type"] == "FeatureCollection":
        features = value["features"]
        named = tuple(dict.fromkeys(value.get(PROVENANCE, {}).get("class_names", ())))
    collected = _Collected(names={name: index for index, name in enumerate(named)})
    for feature in features:
        ring = _exterior(feature["geometry"])
        xs, ys = [point[0] for point in ring], [point[1] for point in ring]
        box = (min(xs), min(ys), max(xs), max(ys))
        properties = feature.get("properties") or {}
        outline = () if _is_rectangle(ring, xs, ys) else ring[:-1]
        collected.add(_name_of(properties), _score_of(properties), box, outline)
    return collected.done()


def _exterior(geometry: Mapping[str, Any]) -> Ring:
    kind, coordinates = geometry["type"], geometry["coordinates"]
    if kind == "MultiPolygon":
        coordinates = max(coordinates, key=lambda part: _twice_area(part[0]))
    elif kind != "Polygon":
        raise ValueError(f"got a {kind}, expected a Polygon")
    ring: Ring = coordinates[0]
    if len(ring) <= LEAST_POINTS or ring[0] != ring[-1]:
        raise ValueError(
            f"got a ring of {len(ring)} points that is not closed, expected at least 4, the last as the first"
        )
    return ring


def _twice_area(ring: Ring) -> float:
    points = np.asarray(ring, np.float64)[:, :2] - np.asarray(ring[0], np.float64)[:2]
    return float(abs((points[:-1, 0] * points[1:, 1] - points[1:, 0] * points[:-1, 1]).sum()))


def _is_rectangle(ring: Ring, xs: Sequence[float], ys: Sequence[float]) -> bool:
    if len(ring) != _RECTANGLE_POINTS or len(set(zip(xs, ys, strict=True))) != _RECTANGLE_POINTS - 1:
        return False
    return all(x == then_x or y == then_y for (x, then_x), (y, then_y) in zip(pairwise(xs), pairwise(ys), strict=True))


def _name_of(properties: Mapping[str, Any]) -> str:
    value = properties.get("classification")
    if isinstance(value, Mapping):
        value = value["name"] if "name" in value else DERIVED.join(value.get("names", ()))
    return str(value) if value else UNCLASSIFIED


def _score_of(properties: Mapping[str, Any]) -> float:
    value = properties.get("measurements") or {}
    if isinstance(value, list):  # QuPath before 0.4
        value = {item["name"]: item["value"] for item in value}
    return float(value.get(CONFIDENCE, 1.0))
