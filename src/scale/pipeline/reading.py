"""Windows into batches: by threads of this process, window by window, or by other processes, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from redline.core.tensor import Array
from redline.detection.letterbox import identity, placement_of
from scale.pipeline.batches import Batch, BatchFeed, Feed, WindowPlace
from scale.pipeline.channels import Permits
from scale.pipeline.plan import Group, Plan, Strip
from scale.pipeline.reader_pool import Named, ReaderPool
from scale.pipeline.reading_process import FillOrder, SlideFile
from scale.pipeline.retrying import FailedError, reason_of, retried
from scale.pipeline.run_options import RunOptions
from scale.pipeline.runners import Runner, Shareable
from scale.pipeline.timing import StageClock
from scale.slides.opening import Reader

# Each process keeps decoded tiles of its own, all together no more than this, where they are not very many.
_CACHES_BYTES, _LEAST_CACHE_BYTES = 2 << 30, 64 << 20


class Readable(Protocol):
    """A slide as far as it is read here; used by several threads at once."""

    def read(self, x0: int, y0: int, width_px: int, height_px: int, *, level: int = 0) -> Array:
        """RGB uint8 (height, width, 3): ``x0``, ``y0`` in level-0 pixels, the size in pixels of the level."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """What is read, for whom, and how.

    Attributes:
        strips: Those of the plan that are to do.
        pool: Processes that can read the slide; None where threads do.
    """

    slide: Readable
    plan: Plan
    strips: Sequence[Strip]
    runners: Sequence[Runner]
    options: RunOptions
    clock: StageClock
    pool: ReaderPool | None


def reading_of(work: Work, permits: Permits, submit: Callable[[Batch], None]) -> _WindowReading | _BatchReading:
    """What fills batches: its ``threads`` threads call it, each with its own number from 0, until none is left.

    Args:
        work: What is to be read.
        permits: For as many batches as may exist at one time.
        submit: Takes each batch that is full.
    """
    if work.pool is not None:
        return _BatchReading(work, work.pool, permits, submit)
    return _WindowReading(work, permits, submit)


class _WindowReading:
    """Each thread reads a window at a time."""

    def __init__(self, work: Work, permits: Permits, submit: Callable[[Batch], None]) -> None:
        self.threads = work.options.reader_threads
        self._work, self._submit = work, submit
        self._feed = Feed(work.plan, work.strips, permits)

    def __call__(self, number: int, /) -> None:  # noqa: ARG002 (all threads are alike)
        while (place := self._feed.next()) is not None:
            batch = place.batch
            try:
                batch.windows[place.slot] = self._window(place)
            except FailedError as failed:
                batch.state.fail(batch.start + place.slot, failed.stage, reason_of(failed.error))
            if batch.arrived():
                self._seal(batch)

    def _window(self, place: WindowPlace) -> Any:
        work, group = self._work, place.batch.state.group
        image = retried("read", work.options.retries, partial(self._pixels, place, group))
        with work.clock.stage("pre"):
            return retried("pre", work.options.retries, partial(work.runners[group.models[0]].fit, image))

    def _pixels(self, place: WindowPlace, group: Group) -> Array:
        with self._work.clock.stage("read"):
            return self._work.slide.read(place.x0, place.y0, group.read_px, group.read_px, level=group.level)

    def _seal(self, batch: Batch) -> None:
        with self._work.clock.stage("pre", count=0):
            batch.sealed = self._work.runners[batch.state.group.models[0]].seal(batch.windows)
        batch.absent = frozenset(slot for slot, window in enumerate(batch.windows) if window is None)
        batch.windows.clear()
        self._submit(batch)


class _BatchReading:
    """Each thread speaks to a process that fills a batch at a time."""

    def __init__(self, work: Work, pool: ReaderPool, permits: Permits, submit: Callable[[Batch], None]) -> None:
        self.threads = len(pool)
        self._work, self._pool, self._submit = work, pool, submit
        slide = cast("Named", work.slide)
        share = max(_LEAST_CACHE_BYTES, _CACHES_BYTES // len(pool))
        self._file = SlideFile(
            path=Path(slide.path).absolute(),
            reader=cast("Reader", slide.reader),
            cache_bytes=min(work.plan.cache_bytes, share),
        )
        self._feed = BatchFeed(work.plan, work.strips, permits, takers=len(pool))

    def __call__(self, number: int, /) -> None:
        for batch in self._feed.batches():
            self._fill(number, batch)
            self._submit(batch)

    def _fill(self, number: int, batch: Batch) -> None:
        work, group, clock = self._work, batch.state.group, self._work.clock
        runner = cast("Shareable", work.runners[group.models[0]])
        form, rows = work.plan.models[group.models[0]].form, group.batch
        buffer = self._pool.take(runner, form, rows)
        order = FillOrder(
            slide=self._file,
            batch=buffer.handle,
            preparer=runner.preparer,
            windows=tuple((slot, *batch.place_of(slot)) for slot in range(batch.count)),
            blank=tuple(range(batch.count, rows)),
            read_px=group.read_px,
            level=group.level,
            retries=work.options.retries,
        )
        filled = self._pool.fill(number, order)
        for slot, stage, reason in filled.failures:
            batch.state.fail(batch.start + slot, stage, reason)
        batch.absent = frozenset(slot for slot, _, _ in filled.failures)
        input_hw = runner.preparer.input_hw
        here, nowhere = placement_of((group.read_px, group.read_px), input_hw), identity(input_hw)
        there = [slot < batch.count and slot not in batch.absent for slot in range(rows)]
        done = partial(self._pool.give, form, rows, buffer)
        batch.sealed = runner.sealed(buffer.arrays, [here if one else nowhere for one in there], done)
        clock.add("read", filled.read_s, count=batch.count)
        clock.add("decode", filled.decode_s, count=filled.tiles)
        clock.add("pre", filled.prepare_s, count=batch.count)
