"""What requests that wait for a model share: a bounded queue, deadlines, draining."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from redline.core.errors import RequestError
from redline.core.tensor import Array

Run = Callable[[Mapping[str, Array]], dict[str, Array]]
Executed = Callable[[int, float], None]
Clock = Callable[[], float]

CLOSE_TIMEOUT_S = 30.0
_SMOOTHING = 0.1  # weight of the newest run in the recent time of a request


@dataclass(slots=True, kw_only=True)
class Timing:
    """Where a request's time went; ``run_s`` and ``batch_rows`` are those of the batch that it was part of."""

    queue_s: float
    run_s: float
    batch_rows: int


class Scheduler(ABC):
    """Lets as many calls run at once as there are runs; subclasses change their state under ``_lock`` only."""

    def __init__(self, runs: Sequence[Run], queue: int, on_executed: Executed | None, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._quiet = threading.Condition(self._lock)
        self._watchers = 0
        self._closed = False
        self._runs = len(runs)
        self._queue = queue
        self._request_s = 0.0
        self._on_executed = on_executed
        self._clock = clock

    @property
    @abstractmethod
    def waiting(self) -> int:
        """Requests in the queue."""

    @property
    @abstractmethod
    def running(self) -> int:
        """Runs in use."""

    @abstractmethod
    def run(
        self, inputs: Mapping[str, Array], *, rows: int | None, deadline: float | None
    ) -> tuple[dict[str, Array], Timing]:
        """Run the model on one request; the outputs are the caller's to keep.

        Args:
            inputs: Checked against the signature already.
            rows: The first size of every input; None where the inputs have no batch dimension.
            deadline: By the clock; a request that has not begun to run by then never does.

        Raises:
            RequestError: 503 where the queue is full or the scheduler closed, 504 where the deadline passed first.
                Whatever the model raises on this request is raised as it is.
        """

    @abstractmethod
    def _turn_away(self) -> None:
        """Tell everyone who waits that this is closed; called under the lock."""

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing waits and nothing runs; says whether that came about.

        What comes meanwhile is still taken, so that no request fails that began before its model was replaced.
        """
        with self._lock:
            return self._wait_for(lambda: not self.running and not self.waiting, timeout_s)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Turn away whoever waits or comes later, with 503, and wait for what runs; again does no harm.

        Returns:
            Whether every run has ended, so that the model can be closed.
        """
        with self._lock:
            if not self._closed:
                self._closed = True
                self._turn_away()
            return self._wait_for(lambda: not self.running, timeout_s)

    def _wait_for(self, quiet: Callable[[], bool], timeout_s: float) -> bool:
        self._watchers += 1
        try:
            return self._quiet.wait_for(quiet, min(timeout_s, threading.TIMEOUT_MAX))
        finally:
            self._watchers -= 1

    def _changed_load(self) -> None:
        """Fewer wait, or fewer run; called under the lock."""
        if self._watchers:
            self._quiet.notify_all()

    def _note(self, run_s: float, requests: int) -> None:
        """A run for so many requests has ended; called under the lock."""
        each_s = run_s / requests
        self._request_s += (_SMOOTHING if self._request_s else 1.0) * (each_s - self._request_s)

    def _refusal(self) -> RequestError | None:
        """Why one more request cannot wait; called under the lock."""
        if self._closed:
            return closed()
        waiting = self.waiting
        if waiting < self._queue + self._runs - self.running:
            return None
        retry_after_s = float(max(1, math.ceil(self._request_s * (waiting + 1) / self._runs)))
        return RequestError(
            f"the queue is full: {waiting} requests wait already; try again in {retry_after_s:.0f} s",
            status=503,
            retry_after_s=retry_after_s,
        )

    def _wait(self, signal: threading.Lock, deadline: float | None) -> bool:
        """Wait for a signal; False if the deadline came first."""
        if deadline is None:
            return signal.acquire()
        return signal.acquire(timeout=min(max(0.0, deadline - self._clock()), threading.TIMEOUT_MAX))


def held_lock() -> threading.Lock:
    """A lock whose release is a signal to one thread; cheaper than an event."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def late() -> RequestError:
    """The answer to a request whose time ran out in the queue."""
    return RequestError("the request's deadline passed before the model was free for it", status=504)


def closed() -> RequestError:
    """The answer to a request that comes to a model that is being closed."""
    return RequestError("the model is being closed; try again", status=503, retry_after_s=1.0)
