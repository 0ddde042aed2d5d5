"""The detections of one slide while they are looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from redline.core.plain import JsonObject
from redline.core.tensor import Array
from scale.viewer.index import BoxIndex, Rectangle

if TYPE_CHECKING:
    from redline.detection.results import Polygons

__all__ = ["STEPS", "Filter", "MarkClass", "Marks"]

#: Confidences are counted in hundredths.
STEPS = 100
_MOST_CELLS = 64
_PER_CELL = 8
_CROWDED = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which detections are wanted.

    Attributes:
        least: The lowest confidence.
        classes: Their numbers; None for all.
    """

    least: float = 0.0
    classes: frozenset[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkClass:
    """One class on one slide.

    Attributes:
        count_at: How many detections have at least 0, 0.01, 0.02 … 1 of confidence.
        median_px: The usual longer side of its boxes.
        crowded: Detections per square pixel where there are many of them.
    """

    name: str
    color: str
    count_at: tuple[int, ...]
    median_px: float
    crowded: float

    def to_json(self) -> JsonObject:
        """What the page knows of it."""
        counts = list(self.count_at)
        return {"name": self.name, "color": self.color, "count_at": counts, "median_px": round(self.median_px, 2)}


class Marks:
    """Boxes, confidences, classes and outlines, found by place; nothing of it changes, so any thread may ask.

    Attributes:
        boxes: float32 (n, 4): x0, y0, x1, y1 in level-0 pixels.
        scores: float32 (n,).
        classes: int32 (n,): positions in ``names``.
        polygons: One outline for each box; None where there are boxes only.
        names: Of the classes.
        colors: ``#rrggbb`` of the classes.
    """

    def __init__(
        self,
        boxes: Array,
        scores: Array,
        classes: Array,
        *,
        names: tuple[str, ...],
        colors: tuple[str, ...],
        polygons: Polygons | None = None,
    ) -> None:
        self.boxes = np.ascontiguousarray(boxes, np.float32).reshape(-1, 4)
        self.scores = np.ascontiguousarray(scores, np.float32)
        self.classes = np.ascontiguousarray(classes, np.int32)
        self.names = names
        self.colors = colors
        self.polygons = polygons
        self._index = BoxIndex(self.boxes)

    def __len__(self) -> int:
        return len(self.boxes)

    @cached_property
    def centers(self) -> Array:
        """The middle of each box."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    @cached_property
    def described(self) -> tuple[MarkClass, ...]:
        """What is to be said of each class."""
        return tuple(self._describe(number) for number in range(len(self.names)))

    def select(self, rectangle: Rectangle, wanted: Filter) -> Array:
        """The positions of the wanted detections that touch a rectangle, in no order."""
        places = self._index.touching(rectangle)
        return places[self._pass(places, wanted)]

    def counts(self, places: Array) -> Array:
        """How many of these are of each class."""
        return np.bincount(self.classes[places], minlength=len(self.names))

    def _pass(self, places: Array, wanted: Filter) -> Array:
        # In float32, as they were stored: 0.7 becomes a little less there, and must still be at least 0.7.
        kept: Array = self.scores[places] >= np.float32(wanted.least)
        if wanted.classes is not None:
            shown = np.zeros(len(self.names), bool)
            shown[[number for number in wanted.classes if number < len(self.names)]] = True
            kept &= shown[self.classes[places]]
        return kept

    def _describe(self, number: int) -> MarkClass:
        mine = np.flatnonzero(self.classes == number)
        scores = np.sort(self.scores[mine])
        steps = (np.arange(STEPS + 1) / STEPS).astype(np.float32)
        sides = (self.boxes[mine, 2:] - self.boxes[mine, :2]).max(axis=1, initial=0.0)
        return MarkClass(
            name=self.names[number],
            color=self.colors[number],
            count_at=tuple((len(scores) - np.searchsorted(scores, steps)).tolist()),
            median_px=float(np.median(sides)) if len(mine) else 0.0,
            crowded=_crowded(self.centers[mine]),
        )


def _crowded(centers: Array) -> float:
    """Detections per square pixel where there are many: most of a slide is empty, and its mean says little."""
    if not len(centers):
        return 0.0
    low, high = centers.min(axis=0), centers.max(axis=0)
    # Cells that hold few would be judged by chance.
    cells = min(_MOST_CELLS, math.ceil(math.sqrt(len(centers) / _PER_CELL)))
    cell_px = max(float((high - low).max()) / cells, 1.0)
    places = ((centers - low) / cell_px).astype(np.int64)
    counts = np.bincount(places[:, 1] * (cells + 1) + places[:, 0])
    return float(np.quantile(counts[counts > 0], _CROWDED)) / cell_px**2
