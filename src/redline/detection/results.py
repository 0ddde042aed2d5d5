"""What a detector finds: boxes, their scores and classes, and polygons of any number of points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from redline.core.errors import InputError
from redline.core.tensor import Array


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """Ragged rings of points: number ``i`` is ``points[offsets[i]:offsets[i + 1]]``, not closed.

    Attributes:
        points: float32 of shape (m, 2), x and y in the frame of the boxes that they belong to.
        offsets: int64 of shape (n + 1,), rising from 0 to m.
    """

    points: Array
    offsets: Array

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 2:
            raise InputError(f"points have the shape {self.points.shape}, expected (m, 2)")
        if self.offsets.ndim != 1 or not len(self.offsets) or self.offsets[0] or self.offsets[-1] != len(self.points):
            raise InputError(f"offsets of {len(self.points)} points must be one row from 0 to {len(self.points)}")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Array:
        """How many points each has."""
        return np.diff(self.offsets)

    def ring(self, index: int) -> Array:
        """The points of one polygon."""
        points: Array = self.points[self.offsets[index] : self.offsets[index + 1]]
        return points

    def rings(self) -> list[Array]:
        """The points of each polygon."""
        return [self.points[start:end] for start, end in pairwise(self.offsets.tolist())]

    def take(self, index: Array) -> Polygons:
        """Those polygons in that order; a mask of booleans keeps theirs."""
        chosen = _positions(index)
        lengths = self.lengths[chosen]
        offsets = _ends(lengths)
        moved = np.repeat(self.offsets[:-1][chosen] - offsets[:-1], lengths)
        return Polygons(self.points[np.arange(offsets[-1]) + moved], offsets)

    def shifted(self, dx: float | Array, dy: float | Array) -> Polygons:
        """The polygons moved by pixels, all alike or each by its own."""
        return Polygons(self.points + _for_each(np.stack([dx, dy], -1), self.lengths), self.offsets)

    def scaled(self, factor: float) -> Polygons:
        """The polygons enlarged about the origin."""
        return Polygons(self.points * np.float32(factor), self.offsets)

    def mapped(self, change: Callable[[Array], Array]) -> Polygons:
        """The polygons with every point changed."""
        return Polygons(change(self.points), self.offsets)

    @classmethod
    def of(cls, rings: Sequence[Array]) -> Polygons:
        """Polygons of separate arrays of points."""
        points = [np.asarray(ring, np.float32).reshape(-1, 2) for ring in rings]
        joined = np.concatenate(points) if points else np.zeros((0, 2), np.float32)
        return cls(joined, _ends([len(ring) for ring in points]))

    @classmethod
    def concatenate(cls, parts: Sequence[Polygons]) -> Polygons:
        """One after the other."""
        if not parts:
            return cls.of(())
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(np.concatenate([part.points for part in parts]), _ends(lengths))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """Boxes in one frame of pixels, best first as a detector gives them.

    Attributes:
        boxes: float32 of shape (n, 4): x0, y0, x1, y1.
        scores: float32 of shape (n,), 0 to 1.
        classes: int32 of shape (n,).
        polygons: One for each box, of a model that segments; else None.
    """

    boxes: Array
    scores: Array
    classes: Array
    polygons: Polygons | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        lengths = {len(self.scores), len(self.classes), count if self.polygons is None else len(self.polygons)}
        if self.boxes.shape != (count, 4) or lengths != {count}:
            raise InputError(
                f"boxes {self.boxes.shape}, scores {self.scores.shape}, classes {self.classes.shape}"
                f"{'' if self.polygons is None else f' and {len(self.polygons)} polygons'} do not fit together; "
                "expected (n, 4), (n,), (n,)"
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, index: Array) -> Detections:
        """Those detections in that order; a mask of booleans keeps theirs."""
        chosen = _positions(index)
        return Detections(
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            classes=self.classes[chosen],
            polygons=None if self.polygons is None else self.polygons.take(chosen),
        )

    def shifted(self, dx: float | Array, dy: float | Array) -> Detections:
        """The same in a frame whose origin lies that many pixels to the left and above, for all or for each its own."""
        polygons = None if self.polygons is None else self.polygons.shifted(dx, dy)
        return replace(self, boxes=self.boxes + np.stack([dx, dy, dx, dy], -1).astype(np.float32), polygons=polygons)

    def scaled(self, factor: float) -> Detections:
        """The same in a frame whose pixels are that many times smaller."""
        polygons = None if self.polygons is None else self.polygons.scaled(factor)
        return replace(self, boxes=self.boxes * np.float32(factor), polygons=polygons)

    @classmethod
    def empty(cls, *, polygons: bool = False) -> Detections:
        """Nothing found."""
        return cls(
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            classes=np.zeros(0, np.int32),
            polygons=Polygons.of(()) if polygons else None,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Detections]) -> Detections:
        """One after the other; either all have polygons or none has, empty ones aside."""
        found = [part for part in parts if len(part)] or list(parts[:1])
        if not found:
            return cls.empty()
        if len(found) == 1:
            return found[0]
        polygons = [part.polygons for part in found if part.polygons is not None]
        if polygons and len(polygons) != len(found):
            raise InputError(f"{len(polygons)} of {len(found)} parts have polygons, expected all or none")
        return cls(
            boxes=np.concatenate([part.boxes for part in found]),
            scores=np.concatenate([part.scores for part in found]),
            classes=np.concatenate([part.classes for part in found]),
            polygons=Polygons.concatenate(polygons) if polygons else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchDetections:
    """What a detector finds in the images of a batch, image by image.

    Attributes:
        detections: Of all images, those of each best first.
        images: int64 of shape (n,), rising: the position in the batch of the image that each is of.
        count: How many images there are, those with no detection among them.
    """

    detections: Detections
    images: Array
    count: int

    def __post_init__(self) -> None:
        if self.images.shape != (len(self.detections),):
            raise InputError(f"got {len(self.detections)} detections and images of shape {self.images.shape}")

    def __len__(self) -> int:
        return len(self.detections)

    def take(self, index: Array) -> BatchDetections:
        """Those detections, whose order must be kept; a mask of booleans keeps theirs."""
        chosen = _positions(index)
        return replace(self, detections=self.detections.take(chosen), images=self.images[chosen])

    def split(self) -> list[Detections]:
        """Those of each image."""
        found = self.detections
        ends = np.searchsorted(self.images, np.arange(self.count + 1)).tolist()
        return [
            Detections(
                boxes=found.boxes[start:end],
                scores=found.scores[start:end],
                classes=found.classes[start:end],
                polygons=None if found.polygons is None else found.polygons.take(np.arange(start, end)),
            )
            for start, end in pairwise(ends)
        ]

    @classmethod
    def of(cls, parts: Sequence[Detections]) -> BatchDetections:
        """Of the detections of each image."""
        lengths = [len(part) for part in parts]
        images = np.repeat(np.arange(len(parts)), lengths)
        return cls(detections=Detections.concatenate(parts), images=images, count=len(parts))


def _positions(index: Array) -> Array:
    chosen = np.asarray(index)
    if chosen.dtype == np.bool_:
        return np.flatnonzero(chosen)
    return chosen.astype(np.int64, copy=False)


def _for_each(values: Array, lengths: Array) -> Array:
    """In float32; rows for so many each, where there is more than one row for all."""
    numbers: Array = values.astype(np.float32)
    return numbers if numbers.ndim == 1 else np.repeat(numbers, lengths, axis=0)


def _ends(lengths: Array | Sequence[int]) -> Array:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
