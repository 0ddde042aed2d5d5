"""Several requests as one run of a model: inputs joined by rows, outputs taken apart again."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from redline.core.errors import InputError
from redline.core.tensor import Array
from redline.serving.queueing import CLOSE_TIMEOUT_S, Clock, Executed, Run, Scheduler, Timing, closed, held_lock, late

_log = logging.getLogger(__name__)

Kind = tuple[tuple[str, str, tuple[int, ...]], ...]


def kind_of(inputs: Mapping[str, Array], rows: int | None) -> Kind | None:
    """What two requests must have in common to share a batch: names, types and sizes but the first.

    None for a request that can share none: its inputs don't all have ``rows`` rows.

    >>> kind_of({"x": np.zeros((2, 3), np.float32)}, 2)
    (('x', '<f4', (3,)),)
    >>> kind_of({"x": np.zeros((2, 3), np.float32), "limit": np.zeros(1, np.float32)}, 2)
    """
    if not rows:
        return None
    kind = []
    for name, array in inputs.items():
        shape = array.shape
        if not shape or shape[0] != rows:
            return None
        kind.append((name, array.dtype.str, shape[1:]))
    if len(kind) > 1:
        kind.sort()
    return tuple(kind)


def join(requests: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The inputs of requests of one kind, one below the other.

    >>> join([{"x": np.array([1, 2])}, {"x": np.array([3])}])
    {'x': array([1, 2, 3])}
    """
    return {name: np.concatenate([inputs[name] for inputs in requests]) for name in requests[0]}


def split(outputs: Mapping[str, Array], rows: Sequence[int]) -> list[dict[str, Array]] | None:
    """Each request's own rows of what a batch gave, as views; None if an output's first size isn't the rows in all.

    >>> split({"y": np.array([1, 2, 3])}, [2, 1])
    [{'y': array([1, 2])}, {'y': array([3])}]
    >>> split({"y": np.array([1, 2, 3]), "mean": np.array(2.0)}, [2, 1])
    """
    total = sum(rows)
    if any(array.shape[:1] != (total,) for array in outputs.values()):
        return None
    parts, start = [], 0
    for count in rows:
        parts.append({name: array[start : start + count] for name, array in outputs.items()})
        start += count
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How requests share a run: at most ``max_rows`` rows; a batch that isn't full waits ``max_delay_s`` for more."""

    max_rows: int
    max_delay_s: float = 0.0

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            raise InputError(f"batches of at most {self.max_rows} rows, expected 1 or more")
        if not 0 <= self.max_delay_s < math.inf:
            raise InputError(f"a batch waits {self.max_delay_s} s for more requests, expected 0 or more")


@dataclass(slots=True, eq=False)
class _Member:
    """One request on its way through a batch; settled once, by whoever takes it out of the queue."""

    inputs: Mapping[str, Array]
    rows: int
    kind: Kind | None
    deadline: float | None
    asked: float
    due: float
    queued: bool = True
    outputs: dict[str, Array] = field(default_factory=dict)
    shared: bool = False
    timing: Timing | None = None
    error: BaseException | None = None
    settled: bool = False
    signal: threading.Lock = field(default_factory=held_lock)

    def late(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and now >= self.deadline

    def settle(self, error: BaseException | None = None) -> None:
        """Wake the caller, unless that is done."""
        if not self.settled:
            if self.error is None:
                self.error = error
            self.settled = True
            self.signal.release()

    def result(self) -> tuple[dict[str, Array], Timing]:
        """What the caller gets, in its own thread: copies of its rows, as views would keep the whole batch alive."""
        if self.timing is None:
            error, self.error = self.error, None
            try:
                raise error or RuntimeError("a request was settled without an answer")
            finally:
                del error  # or the error would hold this frame, and this frame the error
        if not self.shared:
            return self.outputs, self.timing
        return {name: part.copy() for name, part in self.outputs.items()}, self.timing


class Batcher(Scheduler):
    """One thread per run, each of which takes the oldest batch that is due."""

    def __init__(
        self, runs: Sequence[Run], queue: int, on_executed: Executed | None, clock: Clock, *, batch: Batching
    ) -> None:
        super().__init__(runs, queue, on_executed, clock)
        self._batch = batch
        self._changed = threading.Condition(self._lock)
        self._lines: dict[Kind | None, deque[_Member]] = {}
        self._waiting = 0
        self._busy = 0
        self._joins = True
        self._threads = [
            threading.Thread(target=self._work, args=(run,), name=f"redline-batch-{number}", daemon=True)
            for number, run in enumerate(runs)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Requests that no run has taken yet."""
        return self._waiting

    @property
    def running(self) -> int:
        """Runs that work on a batch."""
        return self._busy

    def run(
        self, inputs: Mapping[str, Array], *, rows: int | None, deadline: float | None
    ) -> tuple[dict[str, Array], Timing]:
        """Queue a request and wait for its answer."""
        asked = self._clock()
        if deadline is not None and asked >= deadline:
            raise late()
        member = _Member(inputs, rows or 1, kind_of(inputs, rows), deadline, asked, due=asked)
        if self._batch.max_delay_s and member.kind is not None:
            # Half of the time that is left, so that a short deadline is met although nobody else comes.
            left_s = math.inf if deadline is None else deadline - asked
            member.due += min(self._batch.max_delay_s, left_s / 2)
        with self._lock:
            if (refusal := self._refusal()) is not None:
                raise refusal
            self._lines.setdefault(member.kind, deque()).append(member)
            self._waiting += 1
            self._changed.notify()
        try:
            in_time = self._wait(member.signal, deadline)
        except BaseException:
            self._withdraw(member)
            raise
        if not in_time:
            if self._withdraw(member):
                raise late()
            member.signal.acquire()  # it began in time: its answer is on the way
        return member.result()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Turn away whoever waits, then wait for what runs; its threads end with it."""
        ended = super().close(timeout_s)
        if ended:
            for thread in self._threads:
                thread.join()
        return ended

    def _withdraw(self, member: _Member) -> bool:
        """Take a request out of the queue; False if it is out already."""
        with self._lock:
            if not member.queued:
                return False
            line = self._lines[member.kind]
            line.remove(member)
            if not line:
                del self._lines[member.kind]
            member.queued = False
            self._waiting -= 1
            self._changed_load()
            return True

    def _turn_away(self) -> None:
        for line in self._lines.values():
            for member in line:
                member.queued = False
                member.settle(closed())
        self._lines.clear()
        self._waiting = 0
        self._changed.notify_all()

    def _work(self, run: Run) -> None:
        while members := self._take():
            self._serve(run, members)
            del members  # or the last batch would live until the next

    def _serve(self, run: Run, members: list[_Member]) -> None:
        """Run a batch; whatever happens, every caller is woken, the last ones when the run is free again."""
        started, failure = self._clock(), None
        try:
            self._execute(run, members)
        except BaseException as error:  # noqa: BLE001 (the callers get it; the thread has more to do)
            _log.exception("a batch could not be finished")
            failure = error
        with self._lock:
            self._busy -= 1
            self._note(self._clock() - started, len(members))
            self._changed_load()
        for member in members:
            member.settle(failure)

    def _take(self) -> list[_Member]:
        """The next batch; empty once this is closed."""
        with self._lock:
            while not self._closed:
                now = self._clock()
                line, wait_s = self._next(now)
                if line is None:
                    self._changed.wait(wait_s)
                elif members := self._pop(line, now):
                    self._busy += 1
                    if self._waiting:  # another thread may sleep for longer than until the next batch is due
                        self._changed.notify()
                    return members
            return []

    def _next(self, now: float) -> tuple[deque[_Member] | None, float | None]:
        """The oldest line whose batch is due, or how long until one is: None if nothing is queued."""
        oldest: deque[_Member] | None = None
        soonest = math.inf
        for line in self._lines.values():
            due = self._due(line)
            if due > now:
                soonest = min(soonest, due)
            elif oldest is None or line[0].asked < oldest[0].asked:
                oldest = line
        return oldest, None if math.isinf(soonest) else min(soonest - now, threading.TIMEOUT_MAX)

    def _due(self, line: deque[_Member]) -> float:
        """When a batch is to run: at once if it is full, else when the first of its members wants to wait no more."""
        most = self._most(line)
        rows, due = 0, math.inf
        for member in line:
            rows += member.rows
            due = min(due, member.due)
            if rows >= most:
                return -math.inf
        return due

    def _most(self, line: deque[_Member]) -> int:
        """How many rows a batch of these may have; a first request is taken whatever its size."""
        return self._batch.max_rows if self._joins and line[0].kind is not None else 1

    def _pop(self, line: deque[_Member], now: float) -> list[_Member]:
        """Take a batch out of the queue; whoever is too late for it is told so."""
        kind, most = line[0].kind, self._most(line)
        members: list[_Member] = []
        rows = 0
        while line and (not members or rows + line[0].rows <= most):
            member = line.popleft()
            member.queued = False
            self._waiting -= 1
            if member.late(now):
                member.settle(late())
                continue
            members.append(member)
            rows += member.rows
        if not line:
            del self._lines[kind]
        self._changed_load()
        return members

    def _execute(self, run: Run, members: list[_Member]) -> None:
        if len(members) > 1 and self._together(run, members):
            return
        for member in members:
            self._alone(run, member)
            if member is not members[-1]:
                member.settle()

    def _together(self, run: Run, members: list[_Member]) -> bool:
        """Run a batch; False if it has to be run request by request."""
        rows = [member.rows for member in members]
        total = sum(rows)
        started = self._clock()
        try:
            outputs = run(join([member.inputs for member in members]))
            run_s = self._clock() - started
            parts = split(outputs, rows)
        except Exception as error:  # noqa: BLE001 (one request's fault: each runs alone, and that one shows it)
            _log.debug("a batch of %d requests failed, each runs alone: %s", len(members), error)
            return False
        if parts is None:
            self._joins = False
            _log.warning("a batch of %d rows gave outputs of another first size: no more batches", total)
            return False
        if self._on_executed is not None:
            self._on_executed(total, run_s)
        for member, part in zip(members, parts, strict=True):
            member.outputs, member.shared = part, True
            member.timing = Timing(queue_s=started - member.asked, run_s=run_s, batch_rows=total)
        return True

    def _alone(self, run: Run, member: _Member) -> None:
        started = self._clock()
        if member.late(started):
            member.error = late()
            return
        try:
            outputs = run(member.inputs)
        except BaseException as error:  # noqa: BLE001 (it belongs to the caller, whose thread raises it)
            member.error = error
            return
        run_s = self._clock() - started
        if self._on_executed is not None:
            self._on_executed(member.rows, run_s)
        member.outputs = outputs
        member.timing = Timing(queue_s=started - member.asked, run_s=run_s, batch_rows=member.rows)
