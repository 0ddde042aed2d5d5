"""Reading polygons and their classes from GeoJSON: of this program, of QuPath, or of another."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import orjson

from scale.domain import LEAST_POINTS
from scale.outputs.base import SlideInfo
from scale.outputs.collecting import Collected, Loaded, Ring
from scale.outputs.qupath import CONFIDENCE, DERIVED, PROVENANCE, UNCLASSIFIED

Feature: TypeAlias = Mapping[str, Any]

#: How the first line of this program's files ends; each further one is a feature, the last closes what is open.
_LINES_FOLLOW, _CLOSING = b'"features":[\n', b"]}"
_BLOCK_BYTES = 1 << 20
_RECTANGLE_POINTS = 5


def read_features(path: Path) -> Loaded:
    """Every polygon of a file; an upright rectangle is a box without an outline.

    A file of this program is read a million bytes at a time, any other as a whole.

    Raises:
        ValueError, TypeError, KeyError, IndexError, AttributeError: something in it is not as expected.
    """
    with _opened(path) as file:
        about = _about(file.readline())
        if about is None:
            file.seek(0)
            about, features = _whole(orjson.loads(file.read()))
        else:
            features = _line_by_line(file)
        info = about.get(PROVENANCE)
        names = () if info is None else info["class_names"]
        collected = Collected(names={name: index for index, name in enumerate(dict.fromkeys(names))})
        for feature in features:
            _collect(feature, collected)
    return collected.done()


def read_provenance(path: Path) -> SlideInfo | None:
    """What a file says about its slide; None where it says nothing.

    Raises:
        ValueError, TypeError, KeyError: what it says is broken.
    """
    with _opened(path) as file:
        about = _about(file.readline())
        if about is None:
            file.seek(0)
            value = orjson.loads(file.read())
            about = value if isinstance(value, Mapping) and value.get("type") == "FeatureCollection" else {}
    info = about.get(PROVENANCE)
    return None if info is None else SlideInfo.from_json(info)


def _opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _about(line: bytes) -> Feature | None:
    if not line.endswith(_LINES_FOLLOW):
        return None
    about: Feature = orjson.loads(line + _CLOSING)
    return about


def _line_by_line(file: IO[bytes] | gzip.GzipFile) -> Iterator[Feature]:
    while lines := file.readlines(_BLOCK_BYTES):
        ended = lines[-1].strip() == _CLOSING
        body = b"".join(lines[:-1] if ended else lines).strip().removesuffix(b",")
        yield from orjson.loads(b"[" + body + b"]")
        if ended:
            return
    raise ValueError("the file ends before its list of features does")


def _whole(value: Any) -> tuple[Feature, Iterable[Feature]]:
    if isinstance(value, list):  # so QuPath writes them where it is not asked for a collection
        return {}, value
    if value["type"] == "Feature":
        return {}, [value]
    return value, value["features"]


def _collect(feature: Feature, collected: Collected) -> None:
    ring = _exterior(feature["geometry"])
    xs, ys = [point[0] for point in ring], [point[1] for point in ring]
    properties = feature.get("properties") or {}
    outline = () if _is_rectangle(ring) else list(zip(xs[:-1], ys[:-1], strict=True))
    collected.add(_name_of(properties), _score_of(properties), (min(xs), min(ys), max(xs), max(ys)), outline)


def _exterior(geometry: Feature) -> Ring:
    kind, coordinates = geometry["type"], geometry["coordinates"]
    if kind == "MultiPolygon":
        coordinates = max(coordinates, key=lambda part: _twice_area(part[0]))
    elif kind != "Polygon":
        raise ValueError(f"got a {kind}, expected a Polygon")
    ring: Ring = coordinates[0]
    if len(ring) <= LEAST_POINTS or ring[0] != ring[-1]:
        raise ValueError(f"got an open ring of {len(ring)} points, expected at least 4, the last as the first")
    return ring


def _twice_area(ring: Ring) -> float:
    points = np.asarray(ring, np.float64)[:, :2] - np.asarray(ring[0], np.float64)[:2]
    return float(abs((points[:-1, 0] * points[1:, 1] - points[1:, 0] * points[:-1, 1]).sum()))


def _is_rectangle(ring: Ring) -> bool:
    if len(ring) != _RECTANGLE_POINTS:
        return False
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = (point[:2] for point in ring[:-1])
    return (ay == by and bx == cx and cy == dy and dx == ax) or (ax == bx and by == cy and cx == dx and dy == ay)


def _name_of(properties: Feature) -> str:
    value = properties.get("classification")
    if isinstance(value, Mapping):
        value = value["name"] if "name" in value else DERIVED.join(value.get("names", ()))
    return str(value) if value else UNCLASSIFIED


def _score_of(properties: Feature) -> float:
    value: Mapping[str, float] | Sequence[Feature] = properties.get("measurements") or {}
    if not isinstance(value, Mapping):  # QuPath before 0.4
        value = {item["name"]: item["value"] for item in value}
    return float(value.get(CONFIDENCE, 1.0))
