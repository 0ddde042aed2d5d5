"""Strips through the models: readers, threads that call the models, threads that decode, bounded in between.

Readers put windows straight into the batches that the models are called with, so that a model thread does nothing but
call its model. How many batches exist at one time is fixed, whatever the slide's size.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from functools import partial

import numpy as np

from scale.merging.found import Found
from scale.pipeline.batches import Batch, Failure, StripResult
from scale.pipeline.calling import Answered, Caller, Item
from scale.pipeline.channels import Channel, Permits
from scale.pipeline.localize import localize
from scale.pipeline.plan import Plan, Strip
from scale.pipeline.reader_pool import ReaderPool
from scale.pipeline.reading import Readable, Work, reading_of
from scale.pipeline.retrying import FailedError, reason_of, retried
from scale.pipeline.run_options import RunOptions
from scale.pipeline.runners import Runner, calls_of
from scale.pipeline.timing import StageClock

__all__ = ["Failure", "Readable", "RunOptions", "StripResult", "run_strips"]

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
    pool: ReaderPool | None = None,
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
        pool: Processes that read slides which they can open for themselves; threads read what they cannot.

    Raises:
        RedlineError: a model refuses everything that it is given.
    """
    work = Work(
        slide=slide,
        plan=plan,
        strips=strips,
        runners=runners,
        options=options or RunOptions(),
        clock=clock or StageClock(),
        pool=pool if pool is not None and pool.reads(slide) else None,
    )
    flow = _Flow(work, on_windows or (lambda _: None))
    work.clock.begin_models()
    try:
        flow.start()
        while (result := flow.results.get()) is not None:
            yield result
    finally:
        flow.stop()
    if flow.error is not None:
        raise flow.error


class _Flow:
    """The threads and what joins them; the last thread of a kind tells the next kind that nothing more comes."""

    def __init__(self, work: Work, on_windows: OnWindows) -> None:
        self._work, self._on_windows = work, on_windows
        processes = len(work.pool) if work.pool is not None else 0
        self._permits = Permits(work.options.batches(work.plan, work.runners, processes=processes))
        self._reading = reading_of(work, self._permits, self._submit)
        self._all = len(work.strips) == len(work.plan.strips)
        self._lanes: list[Channel[Item]] = [Channel() for _ in work.runners]
        self._answered: Channel[Answered] = Channel(max(2, len(work.runners)))
        self._calling = [calls_of(runner) for runner in work.runners]
        self._callers = [
            Caller(runner, lane, clock=work.clock, retries=work.options.retries, done=self._answered.put)
            for runner, lane in zip(work.runners, self._lanes, strict=True)
        ]
        self.results: Channel[StripResult] = Channel()
        self.error: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._alive: dict[str, int] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start all threads."""
        options = self._work.options
        jobs: list[tuple[str, Callable[[], None], Callable[[], None]]] = []
        readers = range(self._reading.threads)
        jobs += [(f"read {n}", partial(self._reading, n), self._end_reading) for n in readers]
        for n, calls in enumerate(self._calling):
            jobs += [(f"model {n}", partial(self._infer, n), self._answered.close)] * calls
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

    def _submit(self, batch: Batch) -> None:
        """Hand a batch whose windows are all there to its models."""
        for member, model in enumerate(batch.state.group.models):
            self._lanes[model].put((batch, member))

    def _infer(self, model: int) -> None:
        caller = self._callers[model]
        caller.run()
        with self._lock:
            self._calling[model] -= 1
            last = not self._calling[model]
        refusal = caller.refusal() if last and self._all else None
        if refusal is not None:
            raise refusal from caller.failure

    def _decode(self) -> None:
        while (answer := self._answered.get()) is not None:
            with self._work.clock.stage("post"):
                found = self._found(answer)
                result = answer.batch.state.add(answer.member, answer.batch.start, found)
            self._on_windows(answer.batch.count)
            if result is not None:
                self.results.put(result)

    def _found(self, answer: Answered) -> Found:
        batch, state = answer.batch, answer.batch.state
        runner = self._work.runners[state.group.models[answer.member]]
        if answer.outputs is None:
            return Found.empty()
        slots = np.array([slot for slot in range(batch.count) if slot not in batch.absent], np.int64)
        try:
            decode = partial(runner.decode, answer.outputs, answer.places)
            decoded = retried("post", self._work.options.retries, decode)
        except FailedError as failed:
            for slot in slots.tolist():
                state.fail(batch.start + slot, "post", reason_of(failed.error), member=answer.member)
            return Found.empty()
        there = decoded if decoded.count == len(slots) else decoded.take(np.isin(decoded.images, slots))
        at = batch.start + np.arange(batch.count)
        return localize(there, state.strip.rows[at], state.strip.columns[at], state.layout, state.group)
