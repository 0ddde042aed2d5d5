"""One image of a COCO detection file, each annotation with its score."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np

from redline.core.tensor import Array
from redline.detection.results import Detections, Polygons
from scale.domain import LEAST_POINTS
from scale.outputs.base import SlideInfo
from scale.outputs.text import TextWriter, columns_of, texts_of

_DECIMALS = 2
_IMAGE = 1


class CocoWriter(TextWriter):
    """``images`` (one), ``categories`` counted from 1 in the order of the classes, ``annotations`` one a line.

    ``bbox`` is left, top, width, height. ``segmentation`` has the outline, or is empty where there is none; ``area``
    is the outline's or the box's. Numbers are rounded to a hundredth.
    """

    def __init__(self, path: Path, info: SlideInfo) -> None:
        image = {"id": _IMAGE, "file_name": info.name, "width": info.width_px, "height": info.height_px}
        categories = [{"id": place, "name": name} for place, name in enumerate(info.names, start=1)]
        head = f'{{"images":[{json.dumps(image)}],\n"categories":{json.dumps(categories)},\n"annotations":[\n'
        super().__init__(path, info, head=head, between=",\n", tail="\n]}\n")
        self._next = 1

    def _items(self, piece: Detections) -> list[str]:
        boxes = piece.boxes.astype(np.float64)
        sizes = boxes[:, 2:] - boxes[:, :2]
        areas, outlines = sizes.prod(axis=1), [""] * len(piece)
        if piece.polygons is not None:
            own = np.diff(piece.polygons.offsets) >= LEAST_POINTS
            areas[own] = _areas(piece.polygons)[own]
            outlines = _outlines(piece.polygons)
        numbers = np.round(np.column_stack([boxes[:, :2], sizes, areas]), _DECIMALS)
        categories = (self.info.name_index[piece.classes] + 1).tolist()
        first, self._next = self._next, self._next + len(piece)
        rows = zip(categories, *columns_of(numbers), outlines, texts_of(piece.scores), strict=True)
        return [
            f'{{"id":{number},"image_id":{_IMAGE},"category_id":{category},"bbox":[{x},{y},{width},{height}],'
            f'"area":{area},"segmentation":[{outline}],"iscrowd":0,"score":{score}}}'
            for number, (category, x, y, width, height, area, outline, score) in enumerate(rows, start=first)
        ]


def _outlines(polygons: Polygons) -> list[str]:
    numbers = texts_of(np.round(polygons.points.astype(np.float64), _DECIMALS))
    return [
        "[" + ",".join(numbers[2 * start : 2 * end]) + "]" if end - start >= LEAST_POINTS else ""
        for start, end in pairwise(polygons.offsets.tolist())
    ]


def _areas(polygons: Polygons) -> Array:
    """The area that each outline encloses, by the shoelace formula; 0 without points."""
    lengths = np.diff(polygons.offsets)
    owner = np.repeat(np.arange(len(polygons)), lengths)
    firsts, lasts = polygons.offsets[:-1][lengths > 0], polygons.offsets[1:][lengths > 0] - 1
    # About each outline's first point: products of whole-slide coordinates would cost digits.
    points = polygons.points.astype(np.float64)
    points -= np.repeat(points[firsts], lengths[lengths > 0], axis=0)
    follower = np.arange(1, len(points) + 1)
    follower[lasts] = firsts
    crosses = points[:, 0] * points[follower, 1] - points[follower, 0] * points[:, 1]
    areas: Array = np.abs(np.bincount(owner, crosses, len(polygons))) / 2
    return areas
