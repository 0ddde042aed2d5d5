"""Predictions by class as JSON, in the layout of :func:`scale.domain.predictions_to_json`, without holding them."""

from __future__ import annotations

import json
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np

from redline.detection.results import Detections, Polygons
from scale.domain import LEAST_POINTS
from scale.outputs.base import SlideInfo, Writer
from scale.outputs.text import columns_of, texts_of

_ITEM = """\
        {{
            "box": {{
                "start": {{
                    "x": {0},
                    "y": {1}
                }},
                "end": {{
                    "x": {2},
                    "y": {3}
                }}
            }},
            "polygon": {4},
            "conf": {5}
        }}"""
_POINT = """\
                {
                    "x": %s,
                    "y": %s
                }"""


class JsonWriter(Writer):
    """Byte for byte what ``predictions_to_json(from_detections(...))`` gives.

    A class is one list, but classes come mixed: each has a file without a name beside the result until the end.
    """

    def __init__(self, path: Path, info: SlideInfo) -> None:
        super().__init__(path, info)
        self._lists: dict[int, IO[bytes]] = {}

    def _add(self, piece: Detections) -> None:
        names = self.info.name_index[piece.classes]
        for index in np.unique(names).tolist():
            items = ",\n".join(_items(piece.take(names == index)))
            begun = index in self._lists
            if not begun:
                self._lists[index] = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115 (closed by _release)
            self._lists[index].write(((",\n" if begun else "") + items).encode())

    def _finish(self) -> None:
        with self._scratch.open("wb") as out:
            out.write(b"{")
            for index, name in enumerate(self.info.names):
                out.write(f"{',' if index else ''}\n    {json.dumps(name)}: [".encode())
                if index in self._lists:
                    out.write(b"\n")
                    self._lists[index].seek(0)
                    shutil.copyfileobj(self._lists[index], out, 1 << 20)
                    out.write(b"\n    ")
                out.write(b"]")
            out.write(b"\n}" if self.info.names else b"}")
        self._release()

    def _release(self) -> None:
        for file in self._lists.values():
            file.close()
        self._lists = {}


def _items(found: Detections) -> list[str]:
    outlines = ["null"] * len(found) if found.polygons is None else _outlines(found.polygons)
    columns = (*columns_of(found.boxes), outlines, texts_of(found.scores))
    return [_ITEM.format(*row) for row in zip(*columns, strict=True)]


def _outlines(polygons: Polygons) -> list[str]:
    points = [_POINT % point for point in zip(*columns_of(polygons.points), strict=True)]
    return [
        "[\n" + ",\n".join(points[start:end]) + "\n            ]" if end - start >= LEAST_POINTS else "null"
        for start, end in pairwise(polygons.offsets.tolist())
    ]
