"""Windows of a plan in the order of reading, each with its place in a batch; what becomes of a strip's batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scale.merging.found import Found
from scale.pipeline.channels import Permits
from scale.pipeline.plan import Group, Layout, Plan, Strip, reading_order
from scale.pipeline.runners import Sealed

# So many windows that follow each other are read by one process: fewer share fewer tiles, more take longer to come.
_RUN_WINDOWS = 192


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One window that could not be done, after retrying.

    Attributes:
        region: Its name.
        x0: Left edge of the window in level-0 pixels.
        y0: Upper edge.
        window_px: Its side.
        models: Whose answers are missing.
        stage: Where it failed: read, pre, infer or post.
        reason: In one line.
    """

    region: str
    x0: int
    y0: int
    window_px: int
    models: tuple[str, ...]
    stage: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StripResult:
    """What was found in a strip.

    Attributes:
        strip: Its position in the plan.
        found: Of each model of its group, in level-0 pixels, in the order of its windows.
        failures: Windows that are missing in it.
    """

    strip: int
    found: tuple[Found, ...]
    failures: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return sum(len(found.detections) for found in self.found)


class StripState:
    """Collects the parts of a strip, from any thread, until none is missing."""

    def __init__(self, plan: Plan, strip: Strip) -> None:
        self.strip = strip
        self.group: Group = plan.group_of(strip)
        self.layout: Layout = plan.layouts[strip.layout]
        self._names = tuple(plan.models[model].name for model in self.group.models)
        self._region = plan.regions[self.layout.region].name
        self._lock = threading.Lock()
        self._parts: dict[tuple[int, int], Found] = {}
        self._failures: dict[tuple[int, str], Failure] = {}
        self._missing = -(-len(strip) // self.group.batch) * len(self.group.models)

    def add(self, member: int, start: int, found: Found) -> StripResult | None:
        """Add what one model of the group found in the batch that begins at ``start``; the result with the last."""
        with self._lock:
            self._parts[member, start] = found
            self._missing -= 1
            return None if self._missing else self._result()

    def fail(self, position: int, stage: str, reason: str, *, member: int | None = None) -> None:
        """Say that a window of the strip is missing, for one model of the group or for all."""
        models = self._names if member is None else (self._names[member],)
        failure = Failure(
            region=self._region,
            x0=self.layout.grid.columns_x0[int(self.strip.columns[position])],
            y0=self.layout.grid.rows_y0[int(self.strip.rows[position])],
            window_px=self.group.window_px,
            models=models,
            stage=stage,
            reason=reason,
        )
        with self._lock:
            self._failures[position, "".join(models)] = failure

    def _result(self) -> StripResult:
        found = []
        for member in range(len(self.group.models)):
            starts = sorted(start for owner, start in self._parts if owner == member)
            found.append(Found.concatenate([self._parts[member, start] for start in starts]))
        failures = tuple(self._failures[key] for key in sorted(self._failures))
        self._parts.clear()
        return StripResult(strip=self.strip.index, found=tuple(found), failures=failures)


class Batch:
    """Some consecutive windows of a strip on their way through its models."""

    def __init__(self, state: StripState, start: int, permits: Permits) -> None:
        self.state = state
        self.start = start
        self._permits = permits
        self.count = min(state.group.batch, len(state.strip) - start)
        self.windows: list[Any] = [None] * self.count
        self.sealed = Sealed(inputs=None, places=())
        self.absent: frozenset[int] = frozenset()
        self._lock = threading.Lock()
        self._awaited = self.count
        self._uses = len(state.group.models)

    def place_of(self, slot: int) -> tuple[int, int]:
        """Left and upper edge of one of its windows in level-0 pixels."""
        grid, strip, position = self.state.layout.grid, self.state.strip, self.start + slot
        return grid.columns_x0[int(strip.columns[position])], grid.rows_y0[int(strip.rows[position])]

    def arrived(self) -> bool:
        """Count one window as read or given up; True with the last."""
        with self._lock:
            self._awaited -= 1
            return not self._awaited

    def used(self) -> None:
        """Count one model as done with the inputs; with the last they are gone, and another batch may begin."""
        with self._lock:
            self._uses -= 1
            if self._uses:
                return
            done, self.sealed = self.sealed.done, Sealed(inputs=None, places=())
        if done is not None:
            done()
        self._permits.release()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowPlace:
    """Where a window is on the slide and in which place of which batch it goes."""

    batch: Batch
    slot: int
    x0: int
    y0: int


class _Strips:
    """The strips that have begun, and the batches that may exist at one time."""

    def __init__(self, plan: Plan, strips: Sequence[Strip], permits: Permits) -> None:
        self._plan, self._strips, self._permits = plan, strips, permits
        self._lock = threading.Lock()
        self._states: dict[int, tuple[StripState, int]] = {}

    def begin(self, owner: int, start: int) -> Batch | None:
        """The batch of a strip that begins at that window, with a permit; None where everything was stopped."""
        if not self._permits.acquire():
            return None
        strip = self._strips[owner]
        with self._lock:
            if owner not in self._states:
                self._states[owner] = (StripState(self._plan, strip), 0)
            state, begun = self._states.pop(owner)
            batch = Batch(state, start, self._permits)
            if begun + batch.count < len(strip):
                self._states[owner] = (state, begun + batch.count)
        return batch


class Feed:
    """Hands out the windows of some strips in the order of reading, from any thread.

    A batch is begun when its first window is handed out, with one of ``permits``. There must be more of them than
    groups: each group has at most one batch that waits for windows, all others come to an end by themselves.
    """

    def __init__(self, plan: Plan, strips: Sequence[Strip], permits: Permits) -> None:
        self._plan, self._strips = plan, strips
        self._begun = _Strips(plan, strips, permits)
        self._owner, self._within = reading_order(plan, strips)
        self._next = 0
        self._lock = threading.Lock()
        self._open: dict[int, Batch] = {}

    def next(self) -> WindowPlace | None:
        """The next window; None where there is none, or everything was stopped."""
        with self._lock:
            if self._next >= len(self._owner):
                return None
            owner, within = int(self._owner[self._next]), int(self._within[self._next])
            slot = within % self._plan.group_of(self._strips[owner]).batch
            if slot == 0:
                begun = self._begun.begin(owner, within)
                if begun is None:
                    return None
                self._open[owner] = begun
            self._next += 1
            batch = self._open[owner]
            if slot == batch.count - 1:
                del self._open[owner]
        x0, y0 = batch.place_of(slot)
        return WindowPlace(batch=batch, slot=slot, x0=x0, y0=y0)


class BatchFeed:
    """Hands out whole batches of some strips in the order of reading, from any thread.

    A taker is given some that follow each other, since these lie side by side on the slide and share its tiles. It
    begins each when it comes to it, with one of ``permits``, so that a batch that has begun waits for nobody else.
    """

    def __init__(self, plan: Plan, strips: Sequence[Strip], permits: Permits, *, takers: int) -> None:
        self._begun = _Strips(plan, strips, permits)
        owner, within = reading_order(plan, strips)
        batch = np.array([plan.group_of(strip).batch for strip in strips], np.int64)
        first = within % batch[owner] == 0 if len(owner) else np.zeros(0, np.bool_)
        self._starts = list(zip(owner[first].tolist(), within[first].tolist(), strict=True))
        self._most = max(1, _RUN_WINDOWS // int(batch.max(initial=1)))
        self._takers = takers
        self._next = 0
        self._lock = threading.Lock()

    def batches(self) -> Iterator[Batch]:
        """The batches of one taker, until none is left or everything was stopped."""
        while run := self._run():
            for owner, start in run:
                batch = self._begun.begin(owner, start)
                if batch is None:
                    return
                yield batch

    def _run(self) -> list[tuple[int, int]]:
        with self._lock:
            left = len(self._starts) - self._next
            # Towards the end less and less, so that all takers end at about the same time.
            count = max(1, min(self._most, left // (2 * self._takers)))
            run = self._starts[self._next : self._next + count]
            self._next += len(run)
        return run
