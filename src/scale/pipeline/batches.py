"""Windows of a plan in the order of reading, each with its place in a batch; what becomes of a strip's batches."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scale.merging.found import Found
from scale.pipeline.channels import Permits
from scale.pipeline.plan import Group, Layout, Plan, Strip, reading_order
from scale.pipeline.runners import Sealed


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

    def to_json(self) -> dict[str, Any]:
        """A JSON value that :meth:`from_json` reads back."""
        return {name: getattr(self, name) for name in self.__slots__} | {"models": list(self.models)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Failure:
        """The inverse of :meth:`to_json`."""
        return cls(**{**value, "models": tuple(value["models"])})


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

    def fail(self, position: int, stage: str, error: BaseException, *, member: int | None = None) -> None:
        """Say that a window of the strip is missing, for one model of the group or for all."""
        models = self._names if member is None else (self._names[member],)
        failure = Failure(
            region=self._region,
            x0=self.layout.grid.columns_x0[int(self.strip.columns[position])],
            y0=self.layout.grid.rows_y0[int(self.strip.rows[position])],
            window_px=self.group.window_px,
            models=models,
            stage=stage,
            reason=f"{type(error).__name__}: {' '.join(str(error).split())}",
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
class Place:
    """Where a window is on the slide and in which place of which batch it goes."""

    batch: Batch
    slot: int
    x0: int
    y0: int


class Feed:
    """Hands out the windows of some strips in the order of reading, from any thread.

    A batch is begun when its first window is handed out, with one of ``permits``. There must be more of them than
    groups: each group has at most one batch that waits for windows, all others come to an end by themselves.
    """

    def __init__(self, plan: Plan, strips: Sequence[Strip], permits: Permits) -> None:
        self._plan, self._strips, self._permits = plan, strips, permits
        self._owner, self._within = reading_order(plan, strips)
        self._next = 0
        self._lock = threading.Lock()
        self._open: dict[int, Batch] = {}
        self._states: dict[int, StripState] = {}

    def next(self) -> Place | None:
        """The next window; None where there is none, or everything was stopped."""
        with self._lock:
            if self._next >= len(self._owner):
                return None
            owner, within = int(self._owner[self._next]), int(self._within[self._next])
            slot = within % self._plan.group_of(self._strips[owner]).batch
            if slot == 0 and not self._begin(owner, within):
                return None
            self._next += 1
            batch = self._open[owner]
            if slot == batch.count - 1:
                del self._open[owner]
        grid, strip = batch.state.layout.grid, batch.state.strip
        x0, y0 = grid.columns_x0[int(strip.columns[within])], grid.rows_y0[int(strip.rows[within])]
        return Place(batch=batch, slot=slot, x0=x0, y0=y0)

    def _begin(self, owner: int, within: int) -> bool:
        if not self._permits.acquire():
            return False
        strip = self._strips[owner]
        state = self._states.pop(owner, None) or StripState(self._plan, strip)
        batch = Batch(state, within, self._permits)
        self._open[owner] = batch
        if within + batch.count < len(strip):
            self._states[owner] = state
        return True
