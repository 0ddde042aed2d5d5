"""Objects that are read one by one, on their way into arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from redline.detection.results import Detections, Polygons

#: Detections, and the names that their classes count.
Loaded: TypeAlias = tuple[Detections, tuple[str, ...]]
Ring: TypeAlias = Sequence[Sequence[float]]


@dataclass(slots=True)
class Collected:
    """What was read so far; ``names`` gives the classes that are known before their first object."""

    names: dict[str, int] = field(default_factory=dict)
    _boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    _scores: list[float] = field(default_factory=list)
    _classes: list[int] = field(default_factory=list)
    _points: list[Sequence[float]] = field(default_factory=list)
    _lengths: list[int] = field(default_factory=list)

    def add(self, name: str, score: float, box: tuple[float, float, float, float], ring: Ring) -> None:
        """Take an object; an empty ring stands for no outline."""
        self._classes.append(self.names.setdefault(name, len(self.names)))
        self._boxes.append(box)
        self._scores.append(score)
        self._points.extend(ring)
        self._lengths.append(len(ring))

    def done(self) -> Loaded:
        """All of them; without polygons where no object has an outline."""
        points = np.array(self._points, np.float32).reshape(-1, 2)
        offsets = np.concatenate([[0], np.cumsum(self._lengths, dtype=np.int64)])
        detections = Detections(
            boxes=np.array(self._boxes, np.float32).reshape(-1, 4),
            scores=np.array(self._scores, np.float32),
            classes=np.array(self._classes, np.int32),
            polygons=Polygons(points=points, offsets=offsets) if len(points) else None,
        )
        return detections, tuple(self.names)
