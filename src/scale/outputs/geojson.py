"""A GeoJSON FeatureCollection in the form that QuPath reads, from 0.4 on."""

from __future__ import annotations

import json
from pathlib import Path

from redline.core.tensor import Array
from redline.detection.results import Detections, Polygons
from scale.outputs.base import SlideInfo
from scale.outputs.colours import colours_of
from scale.outputs.identity import uuids_of
from scale.outputs.qupath import CONFIDENCE, PROVENANCE
from scale.outputs.rings import rounded_boxes, valid_rings
from scale.outputs.text import TextWriter, columns_of, texts_of

_HEAD = '{"type":"FeatureCollection",'
_BEFORE = '{"type":"Feature","id":"'
_GEOMETRY = '","geometry":{"type":"Polygon","coordinates":[['
_PROPERTIES = ']]},"properties":{"objectType":"detection","classification":'


class GeoJsonWriter(TextWriter):
    """One Feature a line: a closed ring in level-0 pixels, the class with its colour, the score as a measurement.

    Objects have their outline, or their box where they have none. Coordinates are rounded to a hundredth of a pixel.
    """

    def __init__(self, path: Path, info: SlideInfo) -> None:
        head = f'{_HEAD}"{PROVENANCE}":{_dumps(info.to_json())},"features":[\n'
        super().__init__(path, info, head=head, between=",\n", tail="\n]}\n")
        colours = colours_of(info.names)
        self._ends = [
            f'{_PROPERTIES}{_dumps({"name": name, "color": colours[name]})},"measurements":{{"{CONFIDENCE}":'
            for name in info.class_names
        ]

    def _items(self, piece: Detections) -> list[str]:
        rings = _box_rings(piece.boxes)
        if piece.polygons is not None:
            rings = [own or box for own, box in zip(_own_rings(piece.polygons), rings, strict=True)]
        ends = [self._ends[index] for index in piece.classes.tolist()]
        rows = zip(uuids_of(piece, self.info), rings, ends, texts_of(piece.scores), strict=True)
        return [f"{_BEFORE}{name}{_GEOMETRY}{ring}{end}{score}}}}}}}" for name, ring, end, score in rows]


def _box_rings(boxes: Array) -> list[str]:
    corners = zip(*columns_of(rounded_boxes(boxes)), strict=True)
    return [f"[{x0},{y0}],[{x1},{y0}],[{x1},{y1}],[{x0},{y1}],[{x0},{y0}]" for x0, y0, x1, y1 in corners]


def _own_rings(polygons: Polygons) -> list[str | None]:
    return [None if ring is None else _ring(ring) for ring in valid_rings(polygons)]


def _ring(points: Array) -> str:
    numbers = texts_of(points)
    return ",".join([f"[{x},{y}]" for x, y in zip(numbers[0::2], numbers[1::2], strict=True)])


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
