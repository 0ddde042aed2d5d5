"""What every output has in common: it takes detections in pieces and appears as a whole file or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from redline.core.errors import DataError, InputError
from redline.core.files import whole_file
from redline.core.plain import JsonObject, from_plain
from redline.core.tensor import Array
from redline.detection.results import Detections

#: Larger pieces are cut, so that the text of one piece stays small.
_PIECE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class SlideInfo:
    """What an output says about the slide and its classes.

    Attributes:
        name: The slide's file name.
        mpp: Micrometres per level-0 pixel; None where the slide does not say.
        class_names: What the classes of the detections count; two models' equal names may stand there twice.
        models: The model that finds each of them; empty where nobody says.

    >>> SlideInfo(name="a.svs", width_px=9, height_px=9, class_names=("B", "A", "B")).names
    ('B', 'A')
    """

    name: str
    width_px: int
    height_px: int
    class_names: tuple[str, ...]
    models: tuple[str, ...] = ()
    mpp: float | None = None

    def __post_init__(self) -> None:
        if self.width_px < 1 or self.height_px < 1:
            raise InputError(
                f"{self.name}: got a size of {self.width_px} x {self.height_px} px, expected at least 1 x 1"
            )
        if self.mpp is not None and not self.mpp > 0:
            raise InputError(f"{self.name}: got {self.mpp} micrometres per pixel, expected more than 0, or None")
        if self.models and len(self.models) != len(self.class_names):
            raise InputError(
                f"{self.name}: got {len(self.models)} models of {len(self.class_names)} classes, expected one each"
            )

    def to_json(self) -> JsonObject:
        """A JSON value that :meth:`from_json` reads back."""
        return {
            "name": self.name,
            "width_px": self.width_px,
            "height_px": self.height_px,
            "mpp": self.mpp,
            "class_names": list(self.class_names),
            "models": list(self.models),
        }

    @classmethod
    def from_json(cls, value: object) -> SlideInfo:
        """The inverse of :meth:`to_json`.

        Raises:
            ArtifactError: it is not what a file says about its slide.
        """
        return from_plain(cls, value, where="what the file says about its slide")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every class name once, in their order."""
        return tuple(dict.fromkeys(self.class_names))

    @cached_property
    def name_index(self) -> Array:
        """For each class its place in :attr:`names`."""
        return np.array([self.names.index(name) for name in self.class_names], np.int32)


class Writer(ABC):
    """One file in the making: ``add`` pieces, then ``close``; the file is there after ``close`` alone.

    As a context it closes, or aborts on an exception. The bytes depend on what was added and in which order, not on
    how it was cut into pieces.
    """

    def __init__(self, path: Path, info: SlideInfo) -> None:
        self.path = path
        self.info = info
        self.count = 0
        self._open = True
        self._whole = ExitStack()
        self._scratch = self._whole.enter_context(whole_file(path))

    def add(self, detections: Detections) -> None:
        """Write some detections in level-0 pixels; their classes count ``info.class_names``.

        Raises:
            DataError: a class without a name, or a number that is not finite.
        """
        if not self._open:
            raise InputError(f"{self.path.name}: got detections after the file was finished or aborted")
        try:
            self._check(detections)
            for start in range(0, len(detections), _PIECE):
                self._add(_cut(detections, start, start + _PIECE))
        except BaseException:
            self.abort()
            raise
        self.count += len(detections)

    def close(self) -> None:
        """Finish the file, have the disk hold it, and give it its name. Calling it again does nothing."""
        if not self._open:
            return
        try:
            self._finish()
        except BaseException:
            self.abort()
            raise
        self._open = False
        self._whole.close()

    def abort(self) -> None:
        """Remove what was written; what lay under the name before stays. Calling it again does nothing."""
        if not self._open:
            return
        self._open = False
        self._release()
        # The scratch file vanishes where its context ends with an exception.
        aborted = InterruptedError("aborted")
        self._whole.__exit__(type(aborted), aborted, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _check(self, detections: Detections) -> None:
        known = len(self.info.class_names)
        if len(detections) and not 0 <= detections.classes.min() <= detections.classes.max() < known:
            got = (int(detections.classes.min()), int(detections.classes.max()))
            raise DataError(f"{self.path.name}: got classes from {got[0]} to {got[1]}, expected 0 to {known - 1}")
        numbers = [detections.boxes, detections.scores]
        numbers += [] if detections.polygons is None else [detections.polygons.points]
        if not all(np.isfinite(array).all() for array in numbers):
            raise DataError(f"{self.path.name}: got a box, score or polygon that is not finite, expected numbers")

    @abstractmethod
    def _add(self, piece: Detections) -> None:
        """Write a piece of bounded size."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what comes last and let go of files."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of files without writing."""


def _cut(detections: Detections, start: int, end: int) -> Detections:
    if start == 0 and end >= len(detections):
        return detections
    return detections.take(np.arange(start, min(end, len(detections))))
