"""Who runs when: one bounded queue in front of a model, with or without batches.

Without batching the caller's own thread runs the model, so nothing is handed over; a caller waits only where all runs
are in use. With batching each run has a thread that takes what is queued.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from redline.core.errors import InputError
from redline.core.tensor import Array
from redline.serving.batching import Batcher, Batching
from redline.serving.queueing import Clock, Executed, Run, Scheduler, Timing, closed, held_lock, late

__all__ = ["Batching", "Executed", "Run", "Scheduler", "Timing", "scheduler_of"]

#: After so long in the queue nobody goes past any more. Waking a thread takes longer than a small network: a run that
#: waited for it each time would be idle for most of the time.
_PATIENCE_S = 0.005


def scheduler_of(
    runs: Sequence[Run],
    *,
    batch: Batching | None,
    queue: int,
    on_executed: Executed | None = None,
    clock: Clock = time.monotonic,
) -> Scheduler:
    """What lets as many calls run at once as there are runs, in the order in which they came.

    Batching is for models whose every output has the rows of the inputs first. A batch whose outputs don't is run again
    request by request, and no further one is made; but an output whose first size only happens to be the number of rows
    cannot be told apart, so whoever knows the model's signature decides.

    Args:
        runs: Ways to run the model; one thread at a time uses each.
        batch: How requests share a run; None where each runs alone.
        queue: How many requests may wait.
        on_executed: Told of each successful run of the model, with its rows (1 where it has none) and its seconds,
            before the callers have their answers.
        clock: Of deadlines and times.
    """
    if not runs:
        raise InputError("a scheduler got no run, expected 1 or more")
    if queue < 0:
        raise InputError(f"a queue of {queue} requests, expected 0 or more")
    if batch is None:
        return RunDesk(runs, queue, on_executed, clock)
    return Batcher(runs, queue, on_executed, clock, batch=batch)


@dataclass(slots=True, eq=False)
class _Waiter:
    """A caller in front of the desk."""

    since_s: float
    run: Run | None = None
    called: bool = False
    signal: threading.Lock = field(default_factory=held_lock)

    def call(self) -> None:
        """Wake it; called under the desk's lock."""
        if not self.called:
            self.called = True
            self.signal.release()


class RunDesk(Scheduler):
    """Hands each caller a run that nobody uses; the caller's thread runs it.

    Whoever is done with one calls the first who waits. Until that thread is awake somebody new may take the run, unless
    the first has waited for :data:`_PATIENCE_S`: then it is handed over.
    """

    def __init__(self, runs: Sequence[Run], queue: int, on_executed: Executed | None, clock: Clock) -> None:
        super().__init__(runs, queue, on_executed, clock)
        self._idle = list(runs)
        self._waiters: deque[_Waiter] = deque()

    @property
    def waiting(self) -> int:
        """Callers that have no run yet."""
        return len(self._waiters)

    @property
    def running(self) -> int:
        """Runs that a caller has."""
        return self._runs - len(self._idle)

    def run(
        self, inputs: Mapping[str, Array], *, rows: int | None, deadline: float | None
    ) -> tuple[dict[str, Array], Timing]:
        """Wait for a run and use it."""
        clock = self._clock
        asked = clock()
        if deadline is not None and asked >= deadline:
            raise late()
        run = self._enter(deadline)
        started = clock()
        try:
            outputs = run(inputs)
        finally:
            run_s = clock() - started
            self._leave(run, run_s)
        if self._on_executed is not None:
            self._on_executed(rows or 1, run_s)
        return outputs, Timing(queue_s=started - asked, run_s=run_s, batch_rows=rows or 1)

    def _enter(self, deadline: float | None) -> Run:
        with self._lock:
            if self._idle and not self._closed and not self._is_owed():
                return self._idle.pop()
            if (refusal := self._refusal()) is not None:
                raise refusal
            waiter = _Waiter(self._clock())
            self._waiters.append(waiter)
            self._call_next()
        in_time = False
        try:
            while in_time := self._wait(waiter.signal, deadline):
                if self._is_served(waiter):
                    break
        finally:
            if not in_time:
                self._withdraw(waiter)
        run = waiter.run
        if run is None:
            raise closed() if in_time else late()
        if deadline is not None and self._clock() >= deadline:
            self._leave(run, None)
            raise late()
        return run

    def _is_owed(self) -> bool:
        """Whether the first who waits has waited long enough; called under the lock."""
        return bool(self._waiters) and self._clock() - self._waiters[0].since_s >= _PATIENCE_S

    def _is_served(self, waiter: _Waiter) -> bool:
        """Whether a caller that was woken has a run now, or never will."""
        with self._lock:
            waiter.called = False
            if waiter.run is None and not self._closed:
                if not self._idle:
                    return False  # somebody new was quicker; whoever has it calls again
                waiter.run = self._idle.pop()
                self._waiters.remove(waiter)
                self._changed_load()
            return True

    def _call_next(self) -> None:
        """Wake as many as there are runs for; called under the lock."""
        for waiter, _ in zip(self._waiters, self._idle, strict=False):
            waiter.call()

    def _withdraw(self, waiter: _Waiter) -> None:
        """A caller gives up; a run that it has just been handed, or was called for, goes to the next."""
        with self._lock:
            run, waiter.run = waiter.run, None
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self._call_next()
                self._changed_load()
        if run is not None:
            self._leave(run, None)

    def _leave(self, run: Run, run_s: float | None) -> None:
        with self._lock:
            if self._is_owed():
                waiter = self._waiters.popleft()
                waiter.run = run
                waiter.call()
            else:
                self._idle.append(run)
                self._call_next()
            if run_s is not None:
                self._note(run_s, 1)
            self._changed_load()

    def _turn_away(self) -> None:
        for waiter in self._waiters:
            waiter.call()
        self._waiters.clear()
