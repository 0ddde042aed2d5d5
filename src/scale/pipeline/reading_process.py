"""What a process does that reads windows: it has one slide open, and writes windows into batches that it shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from redline.core.errors import RedlineError
from redline.core.shared_arrays import Handle, open_shared
from redline.core.tensor import Array
from redline.detection.letterbox import PADDING, letterbox
from redline.detection.preparing import Preparer
from scale.pipeline.retrying import FailedError, reason_of, retried
from scale.pipeline.timing import StageClock
from scale.slides.base import Slide
from scale.slides.cache import TileCache
from scale.slides.opening import Reader, open_slide


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideFile:
    """What is opened, and how many bytes of decoded tiles are kept of it."""

    path: Path
    reader: Reader
    cache_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FillOrder:
    """A batch to be filled.

    Attributes:
        slide: Where windows are read.
        batch: The handle of :class:`redline.core.shared_arrays.SharedBatches` of one batch.
        preparer: How a window becomes a row.
        windows: Row of the batch, and left and upper edge in level-0 pixels, of each.
        blank: Rows that become gray.
        read_px: Side of the windows in pixels of the level.
        level: Of the slide.
        retries: How often a window that cannot be read is tried again.
    """

    slide: SlideFile
    batch: Handle
    preparer: Preparer
    windows: tuple[tuple[int, int, int], ...]
    blank: tuple[int, ...]
    read_px: int
    level: int
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What became of it.

    Attributes:
        failures: Row, stage and reason of each window that is missing; its row is gray.
        read_s: Time that reading took, decoding included.
        decode_s: Time that decoding took.
        prepare_s: Time that scaling and placing took.
        tiles: How many were decoded.
    """

    failures: tuple[tuple[int, str, str], ...] = ()
    read_s: float = 0.0
    decode_s: float = 0.0
    prepare_s: float = 0.0
    tiles: int = 0


def fill(order: FillOrder) -> Filled:
    """Read the windows of a batch; one that cannot be read is told of, and none stops the others."""
    batch = _mapped(order.batch)
    gray: Array = np.full((*order.preparer.input_hw, 3), PADDING, np.uint8)
    for row in order.blank:
        order.preparer.place(gray, batch, row)
    try:
        slide, cache = _opened(order.slide)
    except (RedlineError, OSError) as error:
        for row, _, _ in order.windows:
            order.preparer.place(gray, batch, row)
        return Filled(failures=tuple((row, "read", reason_of(error)) for row, _, _ in order.windows))
    before = cache.stats()
    clock = StageClock()
    failures: list[tuple[int, str, str]] = []
    for row, x0, y0 in order.windows:
        try:
            size = order.read_px
            with clock.stage("read"):
                read = partial(slide.read, x0, y0, size, size, level=order.level)
                image = retried("read", order.retries, read)
            with clock.stage("pre"):
                retried("pre", order.retries, partial(_place, image, order.preparer, batch, row))
        except FailedError as failed:
            failures.append((row, failed.stage, reason_of(failed.error)))
            order.preparer.place(gray, batch, row)
    after, spent_s = cache.stats(), clock.report({}).stages_s
    return Filled(
        failures=tuple(failures),
        read_s=spent_s["read"],
        decode_s=after.decode_s - before.decode_s,
        prepare_s=spent_s["pre"],
        tiles=after.misses - before.misses,
    )


def _place(image: Array, preparer: Preparer, batch: Mapping[str, Array], row: int) -> None:
    preparer.place(letterbox(image, preparer.input_hw), batch, row)


class _Remembered:
    """The slide that is open in this process, and the batches that are mapped."""

    def __init__(self) -> None:
        self.file: SlideFile | None = None
        self.slide: Slide | None = None
        self.cache = TileCache()
        self.batches: dict[tuple[str, int], dict[str, Array]] = {}


_here = _Remembered()


def _opened(file: SlideFile) -> tuple[Slide, TileCache]:
    if _here.slide is None or _here.file != file:
        if _here.slide is not None:
            _here.slide.close()
            _here.slide = None
        _here.cache = TileCache(file.cache_bytes)
        _here.slide, _here.file = open_slide(file.path, reader=file.reader, cache=_here.cache), file
    return _here.slide, _here.cache


def _mapped(handle: Handle) -> dict[str, Array]:
    key = (handle.path, handle.inode)
    if key not in _here.batches:
        (_here.batches[key],) = open_shared(handle, write=True)
    return _here.batches[key]
