"""The results that can be looked at, the latest few of them open."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from redline.core.errors import RedlineError, RequestError
from redline.core.plain import JsonObject
from scale.slides.base import Slide
from scale.slides.recent import Recent
from scale.viewer.marks import Marks
from scale.viewer.results import Result
from scale.viewer.tiles import TILE_PX, SlideTiles, blank_jpeg, max_level, tile_size

__all__ = ["Opened", "Shelf", "Sources"]

_MOST_OPEN = 4
_TILE_CACHE_BYTES = 128 << 20
_THUMBNAIL_PX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where what is shown comes from.

    Attributes:
        marks: Reads the detections of a result.
        slide: Opens the slide of a result; raises an error whose words are for the user.
        count: How many detections a result has, without reading them.
        stamp: Changes when the detections on disk do.
    """

    marks: Callable[[Result], Marks]
    slide: Callable[[Result], Slide]
    count: Callable[[Result], int | None]
    stamp: Callable[[Result], str]


class Opened:
    """One result while it is open.

    Attributes:
        version: Changes with the slide's file and the detections.
        problem: Why the slide itself cannot be shown; None where it can.
    """

    def __init__(self, result: Result, marks: Marks, slide: Slide | None, problem: str | None, stamp: str) -> None:
        self.result = result
        self.marks = marks
        self.problem = problem
        self.stamp = stamp
        self._slide = slide
        self._tiles = SlideTiles(slide) if slide is not None else None
        told = [stamp, *(f"{key}={value}" for key, value in sorted(slide.fingerprint().items()))] if slide else [stamp]
        self.version = hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
        self._lock = threading.Lock()
        self._users = 0
        self._dropped = False

    def tile(self, level: int, column: int, row: int) -> bytes:
        """A tile as JPEG, white where the slide is not here."""
        if self._tiles is None:
            return blank_jpeg(*tile_size(self.result.width_px, self.result.height_px, level, column, row))
        return self._tiles.tile(level, column, row)

    def to_json(self) -> JsonObject:
        """What the page needs to know of it."""
        width_px, height_px = self.result.width_px, self.result.height_px
        mpp = self.result.mpp or (self._slide.mpp if self._slide is not None else None)
        return {
            "name": self.result.name,
            "width_px": width_px,
            "height_px": height_px,
            "mpp": mpp,
            "tile_px": TILE_PX,
            "max_level": max_level(width_px, height_px),
            "version": self.version,
            "problem": self.problem,
            "outlines": self.marks.polygons is not None,
            "classes": [one.to_json() for one in self.marks.described],
        }

    def acquire(self) -> bool:
        """Count a user; False where it is closed."""
        with self._lock:
            if self._dropped and not self._users:
                return False
            self._users += 1
            return True

    def release(self) -> None:
        """End a use; the last one closes what was dropped."""
        self._change(users=-1)

    def drop(self) -> None:
        """Close it as soon as nobody uses it."""
        self._change(dropped=True)

    def _change(self, *, users: int = 0, dropped: bool = False) -> None:
        with self._lock:
            self._users += users
            self._dropped |= dropped
            ended = self._dropped and not self._users
        if ended and self._slide is not None:
            self._slide.close()


class Shelf:
    """Results by their names; any thread may ask."""

    def __init__(
        self,
        results: tuple[Result, ...],
        sources: Sources,
        *,
        problems: tuple[str, ...] = (),
        cache_bytes: int = _TILE_CACHE_BYTES,
    ) -> None:
        self._results = {result.name: result for result in results}
        self._sources = sources
        self._problems = problems
        self._open: Recent[Opened] = Recent(_MOST_OPEN, on_drop=Opened.drop)
        self._pictures: Recent[bytes] = Recent(cache_bytes, size_of=len)

    def list(self) -> JsonObject:
        """The names, with how many detections each has; and what cannot be read."""
        slides = [{"name": name, "count": self._sources.count(one)} for name, one in self._results.items()]
        return {"slides": slides, "problems": list(self._problems)}

    @contextmanager
    def use(self, name: str) -> Iterator[Opened]:
        """A result, open while the block runs; opened anew where its detections have changed on disk.

        Raises:
            RequestError: there is no result of that name.
        """
        result = self._result(name)
        stamp = self._sources.stamp(result)
        while True:
            opened = self._open.get((name, stamp), lambda: self._opened(result, stamp))
            if opened.acquire():
                break
        try:
            yield opened
        finally:
            opened.release()

    def tile(self, name: str, level: int, column: int, row: int) -> bytes:
        """A tile of a slide, kept for the next who asks."""
        with self.use(name) as opened:
            key = (name, opened.version, level, column, row)
            return self._pictures.get(key, lambda: opened.tile(level, column, row))

    def thumbnail(self, name: str) -> bytes:
        """A small picture of a slide, kept for the next who asks; its detections are not read for that.

        Raises:
            RequestError: there is no such result, or its slide is not here.
        """
        result = self._result(name)
        return self._pictures.get((name, "thumbnail"), lambda: self._made_thumbnail(result))

    def close(self) -> None:
        """Close all that is open."""
        self._open.forget()
        self._pictures.forget()

    def _result(self, name: str) -> Result:
        result = self._results.get(name)
        if result is None:
            raise RequestError(f"there is no slide {name!r} here", status=404)
        return result

    def _made_thumbnail(self, result: Result) -> bytes:
        slide, problem = self._slide_of(result)
        if slide is None:
            raise RequestError(problem or "there is no slide", status=404)
        try:
            return SlideTiles(slide).thumbnail(_THUMBNAIL_PX)
        finally:
            slide.close()

    def _opened(self, result: Result, stamp: str) -> Opened:
        return Opened(result, self._sources.marks(result), *self._slide_of(result), stamp)

    def _slide_of(self, result: Result) -> tuple[Slide | None, str | None]:
        try:
            slide = self._sources.slide(result)
        except (RedlineError, OSError) as error:
            return None, str(error)
        first = slide.levels[0]
        if (first.width_px, first.height_px) != (result.width_px, result.height_px):
            slide.close()
            return None, (
                f"the slide has {first.width_px} x {first.height_px} pixels, and the detections are of one with "
                f"{result.width_px} x {result.height_px}; give the right file by --slide"
            )
        return slide, None
