"""Time one session. Knows nothing of any backend."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import NamedTuple, Protocol

from redline.core.session import Session
from redline.core.tensor import Array, Signature
from redline.measurement.disturbance import Turn, Watch

#: Filling the processor's caches again takes some milliseconds.
LONG_CALL_S = 1.0
Clock = Callable[[], float]
Inputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """What came before the timed calls.

    Attributes:
        first_call_s: The first call, which may compile, allocate and page in.
        calls: How many calls in all.
        stable: Whether two windows in a row had medians within 3 % before the time ran out.
        call_s: Median of the last window; the first call where there was none.
    """

    first_call_s: float
    calls: int
    stable: bool
    call_s: float = 0.0


class Stream(Protocol):
    """Batches that a loader makes as they are asked for, without an end."""

    @property
    def settled(self) -> bool:
        """Whether what was made ahead is as much as it will usually be: full, or used up by a faster model."""
        ...

    def __next__(self) -> Inputs:
        """The next batch."""
        ...

    def close(self) -> None:
        """Stop making batches."""
        ...


class Loader(Protocol):
    """Something that makes batches, while the model runs or in between."""

    def batches(self, *, prefetch: bool) -> Stream:
        """Begin to make batches: ahead in the background, or each when it is asked for."""
        ...


def time_calls(
    session: Session,
    inputs: Sequence[Inputs],
    *,
    duration_s: float,
    min_calls: int = 1,
    max_calls: int | None = None,
    clock: Clock = perf_counter,
) -> list[float]:
    """Seconds of each call for ``duration_s``, and of ``min_calls`` at least; inputs take turns.

    After ``max_calls`` it ends early.

    One call before them is not timed: it finds the processor's caches as whoever ran before left them. To a call of
    :data:`LONG_CALL_S` that makes less than 1 %, and then it is the first sample.
    The time is host arrays in to host arrays out. The garbage collector is off meanwhile, as in :mod:`timeit`.
    """
    with _no_garbage_collection():
        return _timed(session, inputs, _Length(duration_s, min_calls, max_calls), clock)


def take_turn(
    session: Session,
    inputs: Sequence[Inputs],
    *,
    duration_s: float,
    min_calls: int = 1,
    max_calls: int | None = None,
    clock: Clock = perf_counter,
) -> Turn:
    """The same, with what the kernel says disturbed these calls and the one before them; it is read in between."""
    with _no_garbage_collection():
        watch = Watch()
        samples = _timed(session, inputs, _Length(duration_s, min_calls, max_calls), clock)
        return Turn(tuple(samples), watch.disturbance())


class _Length(NamedTuple):
    """When a window ends."""

    duration_s: float
    min_calls: int
    max_calls: int | None


def _timed(session: Session, inputs: Sequence[Inputs], length: _Length, clock: Clock) -> list[float]:
    turns = itertools.cycle(inputs)
    most = float("inf") if length.max_calls is None else length.max_calls
    samples: list[float] = []
    start = clock()
    session(next(turns))
    now = clock()
    if now - start >= LONG_CALL_S:
        samples.append(now - start)
    else:
        start = now
    while len(samples) < most and (len(samples) < length.min_calls or clock() - start < length.duration_s):
        feed = next(turns)
        before = clock()
        session(feed)
        samples.append(clock() - before)
    return samples


def time_pipeline(
    session: Session,
    loader: Loader,
    *,
    duration_s: float,
    min_calls: int = 1,
    prefetch: bool,
    clock: Clock = perf_counter,
) -> list[float]:
    """Seconds of each batch, from asking the loader for it to the session's answer in host arrays.

    Batches before the first timed one are left out until the loader is settled; it makes none after the last.
    """
    samples: list[float] = []
    stream = loader.batches(prefetch=prefetch)
    try:
        with _no_garbage_collection():
            session(next(stream))
            while not stream.settled:
                session(next(stream))
            start = before = clock()
            while len(samples) < min_calls or before - start < duration_s:
                session(next(stream))
                after = clock()
                samples.append(after - before)
                before = after
    finally:
        stream.close()
    return samples


def clock_resolution_s(*, clock: Clock = perf_counter, readings: int = 10_000) -> float:
    """The smallest step by which the clock was seen to move on."""
    seen = [clock() for _ in range(readings)]
    return min((after - before for before, after in itertools.pairwise(seen) if after > before), default=float("inf"))


def harness_overhead_s(*, clock: Clock = perf_counter, calls: int = 10_000) -> float:
    """What :func:`time_calls` adds to the time of a call: the median of calls of a session that does nothing."""
    return median(time_calls(_Idle(), [{}], duration_s=0.0, min_calls=calls, clock=clock))


class _Idle:
    """A session that does nothing."""

    signature = Signature((), ())

    def __init__(self) -> None:
        self._outputs: dict[str, Array] = {}

    def __call__(self, _inputs: Inputs, /) -> dict[str, Array]:
        return self._outputs

    def close(self) -> None:
        """Nothing to free."""


def warm_up(
    session: Session,
    inputs: Sequence[Inputs],
    *,
    window_s: float = 0.2,
    limit_s: float = 3.0,
    clock: Clock = perf_counter,
) -> WarmUp:
    """Call until the time of a call is stable: two windows in a row with medians within 3 %, or ``limit_s``.

    The limit counts from the end of the first call, which may compile. Where it is 0, that is the only call.
    """
    before = clock()
    session(inputs[0])
    began = clock()
    first_call_s = began - before
    calls, previous = 1, float("inf")
    # Of long calls one is a window, and the first of them too: nothing is gained by more.
    long = first_call_s >= LONG_CALL_S
    if long:
        previous = first_call_s
    while (calls == 1 and limit_s > 0) or clock() - began < limit_s:
        window = time_calls(session, inputs, duration_s=window_s, min_calls=1 if long else 2, clock=clock)
        calls += len(window)
        current = median(window)
        if abs(current - previous) <= 0.03 * current:
            return WarmUp(first_call_s=first_call_s, calls=calls, stable=True, call_s=current)
        previous = current
    last = previous if previous != float("inf") else first_call_s
    return WarmUp(first_call_s=first_call_s, calls=calls, stable=False, call_s=last)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
