"""A sample of what a model answered, answered again by a reference in the background."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from queue import Empty, SimpleQueue
from random import Random
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from redline.core.errors import InputError, RedlineError
from redline.core.tensor import Array
from redline.serving.scheduling import Run
from redline.verification.accuracy import top1_of
from redline.verification.compare import compare_outputs

if TYPE_CHECKING:
    from redline.serving.metrics import Metrics

RECENT = 16
_RESERVOIR = 1024
_CLOSE_TIMEOUT_S = 0.5
# A thread of this priority gets about a tenth of a core that an answering thread wants too. It is not lower because
# the thread holds Python's lock for some microseconds before and after each run: were it put aside just then, every
# answer would wait until it gets a core again.
_NICE = 10
_logger = logging.getLogger("redline.serving")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far one request's answers are from the reference's.

    Attributes:
        relative_error: Norm of the difference over the norm of the reference's answer, of the output that is worst.
        rows: How many rows have a class; 0 where no output looks like classes.
        classes: The model's and the reference's class of each row where they differ; -1 where a row holds NaN.
    """

    relative_error: float
    rows: int
    classes: tuple[tuple[int, int], ...]


class Disagreement(TypedDict):
    """A row of which the model and its reference gave another class; ``error`` is that of its request."""

    when_s: float
    served: int
    reference: int
    error: float | None


class ShadowFigures(TypedDict):
    """What was found so far; ``recent`` has the newest disagreements first, and nothing of any input."""

    sampled: int
    compared: int
    dropped: int
    failed: int
    last_failure: str | None
    disagreed: int
    rows: int
    rows_disagreed: int
    disagreement: float | None
    error: dict[str, float | None]
    recent: list[Disagreement]


class ShadowSummary(ShadowFigures):
    """The same with what is compared; ``rate`` is the share that is sampled."""

    model: str
    reference: str
    rate: float


class Shadow:
    """Runs a reference on a sample of requests that were answered already, and keeps what differs.

    One thread of low priority runs the reference, a second one compares. Neither the caller nor any answer waits for
    them: what comes while ``queue`` samples wait is dropped and counted.
    """

    def __init__(
        self,
        reference: Run,
        rate: float,
        metrics: Metrics | None = None,
        *,
        model: str = "",
        name: str = "reference",
        seed: int = 0,
        queue: int = 8,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start both threads.

        Args:
            reference: What is right; only this object may run it. Its runtime should use one thread, as the low
                priority is that of the thread that calls it.
            rate: The share of requests that is sampled, 0 to 1.
            metrics: Is told of every comparison.
            model: The name that answers.
            name: The reference's.
            seed: Of the sample.
            queue: How many may wait.
            clock: Seconds since 1970.
        """
        if not 0 <= rate <= 1:
            raise InputError(f"the shadow's rate is {rate}, expected 0 to 1 (0.05 is every twentieth request)")
        if queue < 1:
            raise InputError(f"the shadow's queue holds {queue} samples, expected 1 or more")
        self.rate = rate
        self.model, self.name = model, name
        self._reference = reference
        self._draw = Random(seed).random  # noqa: S311 (a sample, not a secret)
        self._series = metrics.shadow(model, name) if metrics is not None else None
        self._clock = clock
        self._closed = False
        # Queues in C, whose locks nobody holds while Python runs: a slow thread can never keep a caller waiting.
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(queue):
            self._places.put(None)
        self._samples: SimpleQueue[tuple[Mapping[str, Array], Mapping[str, Array]] | None] = SimpleQueue()
        self._answers: SimpleQueue[_Answer | None] = SimpleQueue()
        self._lock = threading.Lock()  # of the figures; never taken by the thread of low priority
        self._figures = _Figures(seed)
        self._idle = threading.Condition(self._lock)
        self._threads = [
            threading.Thread(target=work, name=f"redline-shadow-{word}", daemon=True)
            for work, word in ((self._run, "run"), (self._compare, "compare"))
        ]
        for thread in self._threads:
            thread.start()

    def offer(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Take one answered request into the sample, perhaps; never waits and never raises.

        Nothing is copied: a sampled request's arrays are read later, so they must not be views of a buffer that is
        written again.
        """
        if self._draw() >= self.rate or self._closed:
            return
        try:
            self._places.get_nowait()
        except Empty:
            self._drop()
            return
        with self._lock:
            self._figures.sampled += 1
        self._samples.put((inputs, outputs))

    def summary(self) -> ShadowSummary:
        """What was found so far."""
        with self._lock:
            return {"model": self.model, "reference": self.name, "rate": self.rate, **self._figures.to_json()}

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until everything sampled is compared; says whether that came about."""
        with self._lock:
            return self._idle.wait_for(lambda: self._figures.settled, timeout_s)

    def close(self) -> None:
        """Stop, within a second also where the reference is in the middle of a run; again does nothing."""
        if self._closed:
            return
        self._closed = True
        self._samples.put(None)
        until = time.monotonic() + _CLOSE_TIMEOUT_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    @property
    def stopped(self) -> bool:
        """Whether the reference runs no more, so that it can be freed; true soon after :meth:`close`."""
        return not self._threads[0].is_alive()

    def _drop(self) -> None:
        with self._lock:
            self._figures.dropped += 1
        if self._series is not None:
            self._series.dropped()

    def _run(self) -> None:
        _lower_priority()
        while (sample := self._samples.get()) is not None and not self._closed:
            self._places.put(None)
            inputs, outputs = sample
            try:
                expected: Mapping[str, Array] | Exception = self._reference(inputs)
            except Exception as error:  # noqa: BLE001 (counted; the requests themselves were answered)
                expected = error
            self._answers.put((outputs, expected))
            del inputs, outputs, sample, expected  # or the last request's arrays would live until the next one
        self._answers.put(None)

    def _compare(self) -> None:
        while (answer := self._answers.get()) is not None:
            outputs, expected = answer
            if isinstance(expected, Exception):
                self._failed(expected)
            else:
                self._judge(expected, outputs)
            del answer, outputs, expected

    def _judge(self, expected: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        try:
            found = difference(expected, outputs)
        except Exception as error:  # noqa: BLE001 (a comparison that fails is counted, and the next one is made)
            self._failed(error)
            return
        if self._series is not None:
            self._series.compared(disagreed=bool(found.classes), relative_error=found.relative_error)
        when_s = self._clock()
        with self._lock:
            self._figures.add(found, when_s)
            self._idle.notify_all()

    def _failed(self, error: Exception) -> None:
        with self._lock:
            first = not self._figures.failed
            self._figures.failed += 1
            self._figures.last_failure = str(error) if isinstance(error, RedlineError) else type(error).__name__
            self._idle.notify_all()
        if first:
            _logger.warning(
                "the reference %s of %s did not answer; more such are counted", self.name, self.model, exc_info=error
            )


_Answer = tuple[Mapping[str, Array], Mapping[str, Array] | Exception]


def difference(reference: Mapping[str, Array], served: Mapping[str, Array]) -> Difference:
    """Compare one request's answers.

    Raises:
        InputError: they cannot be compared: other names, shapes or types.

    >>> right = {"y": np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)}
    >>> difference(right, {"y": np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)}).classes
    ((1, 0),)
    """
    agreement = compare_outputs(reference, served)
    errors = [output.errors for output in agreement.outputs]
    if not errors or None in errors:
        raise InputError(agreement.reason or "an output that is no number cannot be compared")
    relative = [error.relative for error in errors if error is not None]
    worst = max((error if isfinite(error) else float("inf") for error in relative), default=0.0)
    if agreement.top1_output is None:
        return Difference(relative_error=worst, rows=0, classes=())
    name = agreement.top1_output
    position = list(reference).index(name)
    ours = served[name] if name in served else list(served.values())[position]
    right, given = top1_of(reference[name].astype(np.float64)), top1_of(ours.astype(np.float64))
    differ = np.flatnonzero((right != given) | (right < 0))
    pairs = tuple((int(given[row]), int(right[row])) for row in differ)
    return Difference(relative_error=worst, rows=len(right), classes=pairs)


class _Figures:
    """What was found; whoever calls it holds the lock."""

    def __init__(self, seed: int) -> None:
        self.sampled = self.compared = self.dropped = self.failed = 0
        self.last_failure: str | None = None
        self._disagreed = self._rows = self._rows_disagreed = 0
        self._largest = 0.0
        self._random = Random(seed)  # noqa: S311
        self._errors: list[float] = []
        self._recent: deque[Disagreement] = deque(maxlen=RECENT)

    @property
    def settled(self) -> bool:
        return self.compared + self.failed == self.sampled

    def add(self, found: Difference, when_s: float) -> None:
        error = found.relative_error
        self.compared += 1
        self._disagreed += bool(found.classes)
        self._rows += found.rows
        self._rows_disagreed += len(found.classes)
        self._largest = max(self._largest, error)
        for served, reference in found.classes[-RECENT:]:
            self._recent.append({"when_s": when_s, "served": served, "reference": reference, "error": _number(error)})
        if len(self._errors) < _RESERVOIR:
            self._errors.append(error)
        elif (place := self._random.randrange(self.compared)) < _RESERVOIR:
            self._errors[place] = error

    def to_json(self) -> ShadowFigures:
        ordered = sorted(self._errors)
        quantiles = {
            f"p{percent}": _number(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]) if ordered else None
            for percent in (50, 90, 99)
        }
        return {
            "sampled": self.sampled,
            "compared": self.compared,
            "dropped": self.dropped,
            "failed": self.failed,
            "last_failure": self.last_failure,
            "disagreed": self._disagreed,
            "rows": self._rows,
            "rows_disagreed": self._rows_disagreed,
            "disagreement": self._rows_disagreed / self._rows if self._rows else None,
            "error": {**quantiles, "max": _number(self._largest) if self.compared else None},
            "recent": list(reversed(self._recent)),
        }


def _number(value: float) -> float | None:
    """JSON has no infinity."""
    return value if isfinite(value) else None


def _lower_priority() -> None:
    """Of the calling thread alone; on Linux a thread has a priority of its own."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
