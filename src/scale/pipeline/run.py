"""Strips through the models: threads that read, one thread for each model, threads that decode, bounded in between.

Readers put windows straight into the batches that the models are called with, so that a model thread does nothing but
call its model. How many batches exist at one time is fixed, whatever the slide's size.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from redline.core.tensor import Array
from redline.detection.results import Detections
from scale.merging.found import Found
from scale.pipeline.batches import Batch, Failure, Feed, Place, StripResult
from scale.pipeline.calling import Answered, Caller, Item
from scale.pipeline.channels import Channel, Permits
from scale.pipeline.localize import localize
from scale.pipeline.plan import Group, Plan, Strip
from scale.pipeline.retrying import FailedError, retried
from scale.pipeline.runners import Overlapping, Runner
from scale.pipeline.timing import StageClock

__all__ = ["Failure", "Readable", "RunOptions", "StripResult", "run_strips"]

# Beyond one batch that fills for each group: one that a model works on, one that is ready.
_SPARE_BATCHES = 2
# So many more that a model works on where it overlaps calls: one is copied in, one is computed, one copied out.
_OVERLAPPED_BATCHES = 3
_MOST_READERS, _MOST_DECODERS = 32, 8
# Decoding a window takes a fraction of what reading it takes.
_CORES_A_DECODER = 4


class Readable(Protocol):
    """A slide as far as it is read here; used by several threads at once."""

    def read(self, x0: int, y0: int, width_px: int, height_px: int, *, level: int = 0) -> Array:
        """RGB uint8 (height, width, 3): ``x0``, ``y0`` in level-0 pixels, the size in pixels of the level."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How the work is spread.

    Attributes:
        readers: Threads that read windows; 0 takes one a core, at most 32.
        decoders: Threads that make detections of a model's outputs; 0 takes one for four cores, at most 8.
        retries: How often a window that cannot be read, or a batch that a model refuses, is tried again.
    """

    readers: int = 0
    decoders: int = 0
    retries: int = 2

    @property
    def reader_threads(self) -> int:
        """How many threads read."""
        return self.readers or min(_MOST_READERS, _cores())

    @property
    def decoder_threads(self) -> int:
        """How many threads decode."""
        return self.decoders or max(1, min(_MOST_DECODERS, _cores() // _CORES_A_DECODER))

    def batches(self, plan: Plan, runners: Sequence[Runner]) -> int:
        """How many batches are held at one time: those that fill, are ready, or are being answered.

        Readers that fill one batch have begun the next before it is whole: with many of them several fill at once.
        """
        smallest = min((group.batch for group in plan.groups), default=1)
        filling = len(plan.groups) + (self.reader_threads - 1) // smallest
        overlapped = sum(isinstance(runner, Overlapping) for runner in runners)
        return filling + _SPARE_BATCHES + _OVERLAPPED_BATCHES * overlapped


def _cores() -> int:
    return len(os.sched_getaffinity(0))


#: Told from any thread how many windows one model has just done.
OnWindows = Callable[[int], None]


def run_strips(
    slide: Readable,
    plan: Plan,
    strips: Sequence[Strip],
    runners: Sequence[Runner],
    *,
    options: RunOptions | None = None,
    clock: StageClock | None = None,
    on_windows: OnWindows | None = None,
) -> Generator[StripResult, None, None]:
    """Give the results of strips as they are finished, in any order.

    A strip's result depends on the slide, the plan and the models alone, not on what ran beside it. Whoever stops
    iterating stops the threads.

    Args:
        slide: Where windows are read.
        plan: What the strips are of.
        strips: Those to do.
        runners: The models of the plan, in its order.
        options: How the work is spread.
        clock: Counts the stages.
        on_windows: Is told how many windows a model has just done.

    Raises:
        RedlineError: a model refuses everything that it is given.
    """
    work = _Work(
        slide=slide,
        plan=plan,
        runners=runners,
        options=options or RunOptions(),
        clock=clock or StageClock(),
        on_windows=on_windows or (lambda _: None),
    )
    flow = _Flow(work, strips)
    work.clock.begin_models()
    try:
        flow.start()
        while (result := flow.results.get()) is not None:
            yield result
    finally:
        flow.stop()
    if flow.error is not None:
        raise flow.error


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Work:
    slide: Readable
    plan: Plan
    runners: Sequence[Runner]
    options: RunOptions
    clock: StageClock
    on_windows: OnWindows


class _Flow:
    """The threads and what joins them; the last thread of a kind tells the next kind that nothing more comes."""

    def __init__(self, work: _Work, strips: Sequence[Strip]) -> None:
        self._work = work
        self._permits = Permits(work.options.batches(work.plan, work.runners))
        self._feed = Feed(work.plan, strips, self._permits)
        self._all = len(strips) == len(work.plan.strips)
        self._lanes: list[Channel[Item]] = [Channel() for _ in work.runners]
        self._answered: Channel[Answered] = Channel(max(2, len(work.runners)))
        self.results: Channel[StripResult] = Channel()
        self.error: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._alive: dict[str, int] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start all threads."""
        options = self._work.options
        jobs: list[tuple[str, Callable[[], None], Callable[[], None]]] = []
        jobs += [("read", self._read, self._end_reading)] * options.reader_threads
        jobs += [(f"model {n}", partial(self._infer, n), self._end_models) for n in range(len(self._lanes))]
        jobs += [("decode", self._decode, self.results.close)] * options.decoder_threads
        for name, _, _ in jobs:
            kind = name.partition(" ")[0]
            self._alive[kind] = self._alive.get(kind, 0) + 1
        for name, job, end in jobs:
            thread = threading.Thread(target=self._guarded, args=(name, job, end), name=f"scale {name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Stop all threads where they have not ended, and wait for them."""
        self._halt()
        for thread in self._threads:
            thread.join()

    def _halt(self) -> None:
        self._permits.stop()
        for lane in self._lanes:
            lane.stop()
        self._answered.stop()
        self.results.stop()

    def _guarded(self, name: str, job: Callable[[], None], end: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 (the edge of a thread: whoever iterates raises it)
            with self._lock:
                self.error = self.error or error
            self._halt()
        kind = name.partition(" ")[0]
        with self._lock:
            self._alive[kind] -= 1
            last = not self._alive[kind]
        if last:
            end()

    def _end_reading(self) -> None:
        for lane in self._lanes:
            lane.close()

    def _end_models(self) -> None:
        self._answered.close()

    def _read(self) -> None:
        while (place := self._feed.next()) is not None:
            batch = place.batch
            try:
                batch.windows[place.slot] = self._window(place)
            except FailedError as failed:
                batch.state.fail(batch.start + place.slot, failed.stage, failed.error)
            if batch.arrived():
                self._submit(batch)

    def _window(self, place: Place) -> Any:
        work, group = self._work, place.batch.state.group
        image = self._retried("read", partial(self._pixels, place, group))
        with work.clock.stage("pre"):
            return self._retried("pre", partial(work.runners[group.models[0]].fit, image))

    def _pixels(self, place: Place, group: Group) -> Array:
        with self._work.clock.stage("read"):
            return self._work.slide.read(place.x0, place.y0, group.read_px, group.read_px, level=group.level)

    def _submit(self, batch: Batch) -> None:
        """Hand a batch whose windows are all there to its models."""
        models = batch.state.group.models
        with self._work.clock.stage("pre", count=0):
            batch.sealed = self._work.runners[models[0]].seal(batch.windows)
        batch.absent = frozenset(slot for slot, window in enumerate(batch.windows) if window is None)
        batch.windows.clear()
        for member, model in enumerate(models):
            self._lanes[model].put((batch, member))

    def _infer(self, model: int) -> None:
        work = self._work
        caller = Caller(
            work.runners[model],
            self._lanes[model],
            clock=work.clock,
            retries=work.options.retries,
            done=self._answered.put,
        )
        caller.run()
        refusal = caller.refusal() if self._all else None
        if refusal is not None:
            raise refusal from caller.failure

    def _decode(self) -> None:
        while (answer := self._answered.get()) is not None:
            with self._work.clock.stage("post"):
                found = self._found(answer)
                result = answer.batch.state.add(answer.member, answer.batch.start, found)
            self._work.on_windows(answer.batch.count)
            if result is not None:
                self.results.put(result)

    def _found(self, answer: Answered) -> Found:
        batch, state = answer.batch, answer.batch.state
        runner = self._work.runners[state.group.models[answer.member]]
        slots = np.array([slot for slot in range(batch.count) if slot not in batch.absent], np.int64)
        seen: list[Detections] = []
        if answer.outputs is not None:
            try:
                decoded = self._retried("post", partial(runner.decode, answer.outputs, answer.places))
                seen = [decoded[slot] for slot in slots]
            except FailedError as failed:
                for slot in slots.tolist():
                    state.fail(batch.start + slot, "post", failed.error, member=answer.member)
        if not seen:
            return Found.empty()
        at = batch.start + slots
        return localize(seen, state.strip.rows[at], state.strip.columns[at], state.layout, state.group)

    def _retried(self, stage: str, call: Callable[[], Any]) -> Any:
        return retried(stage, self._work.options.retries, call)
