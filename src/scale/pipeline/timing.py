"""Where the time of a slide went, stage by stage, and how long each model waited for work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

Clock = Callable[[], float]

#: In the order in which a window goes through them; ``decode`` is the part of ``read`` that turns tiles into pixels.
STAGES = ("read", "decode", "pre", "infer", "post", "merge", "write")


class StageClock:
    """Adds up seconds by stage, from any thread."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self.now = clock
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._started = self._last_busy = self._busy_since = clock()
        self._models_since: float | None = None
        self._busy, self._busy_s = 0, 0.0
        self._elsewhere_s = self._elsewhere_busy_s = 0.0

    def add_elsewhere(self, timing: Timing) -> None:
        """Count what another process did; its share of waiting counts as long as it took."""
        for stage, seconds in timing.stages_s.items():
            if stage in timing.counts:
                self.add(stage, seconds, count=timing.counts[stage])
        for model in timing.models:
            self.add(f"infer:{model.name}", model.infer_s)
            self.add(f"wait:{model.name}", model.waited_s)
        with self._lock:
            self._elsewhere_s += timing.wall_s
            self._elsewhere_busy_s += timing.wall_s * (1 - timing.waited_share)

    def begin_models(self) -> None:
        """From here on models are expected to have work; the first call counts."""
        with self._lock:
            if self._models_since is None:
                self._models_since = self._last_busy = self.now()

    def add(self, stage: str, seconds: float, *, count: int = 1) -> None:
        """Count seconds to a stage."""
        with self._lock:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
            self._counts[stage] = self._counts.get(stage, 0) + count

    @contextmanager
    def busy(self, name: str) -> Iterator[None]:
        """Like :meth:`stage` for a model's call; the time in which at least one model works is added up too."""
        start = self.now()
        with self._lock:
            if not self._busy:
                self._busy_since = start
            self._busy += 1
        try:
            yield
        finally:
            end = self.now()
            self.add(name, end - start)
            with self._lock:
                self._busy -= 1
                self._last_busy = end
                if not self._busy:
                    self._busy_s += end - self._busy_since

    @contextmanager
    def stage(self, name: str, *, count: int = 1) -> Iterator[None]:
        """Count the time of a block to a stage, also where it fails."""
        start = self.now()
        try:
            yield
        finally:
            self.add(name, self.now() - start, count=count)

    def report(self, models: Mapping[str, int]) -> Timing:
        """What has been counted so far.

        Args:
            models: How many windows each model saw.
        """
        with self._lock:
            seconds, counts = dict(self._seconds), dict(self._counts)
            since = self._started if self._models_since is None else self._models_since
            span_s = self._last_busy - since + self._elsewhere_s
            busy_s = self._busy_s + self._elsewhere_busy_s
        return Timing(
            wall_s=self.now() - self._started,
            waited_share=max(0.0, 1 - busy_s / span_s) if span_s > 0 else 0.0,
            stages_s={stage: seconds.get(stage, 0.0) for stage in STAGES if stage != "infer"},
            counts={stage: counts[stage] for stage in STAGES if stage in counts},
            models=tuple(
                ModelTiming.of(name, windows, seconds.get(f"infer:{name}", 0.0), seconds.get(f"wait:{name}", 0.0))
                for name, windows in models.items()
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTiming:
    """How busy one model was.

    Attributes:
        windows: How many it saw.
        infer_s: Time inside its calls.
        waited_s: Time between its calls in which it had nothing to do, from the start to its last one.
        waited_share: The share of its time that it waited, 0 to 1.
    """

    name: str
    windows: int
    infer_s: float
    waited_s: float
    waited_share: float

    @classmethod
    def of(cls, name: str, windows: int, infer_s: float, waited_s: float) -> ModelTiming:
        """With the share."""
        total_s = infer_s + waited_s
        share = waited_s / total_s if total_s > 0 else 0.0
        return cls(name=name, windows=windows, infer_s=infer_s, waited_s=waited_s, waited_share=share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where the time went.

    Attributes:
        wall_s: From the first to the last.
        stages_s: Seconds by stage, added up over the threads that worked on it; ``decode`` is a part of ``read``.
        counts: How often each stage was entered.
        models: The stage ``infer`` of each model.
        waited_share: The share of the time until the last call in which no model had anything to do, 0 to 1.
    """

    wall_s: float
    waited_share: float
    stages_s: Mapping[str, float]
    counts: Mapping[str, int]
    models: tuple[ModelTiming, ...]

    @property
    def windows(self) -> int:
        """How many windows the models saw, those of all models together."""
        return sum(model.windows for model in self.models)

    def lines(self) -> list[tuple[str, float, str]]:
        """Rows of a table: stage, seconds, what to know of it."""
        rows: list[tuple[str, float, str]] = []
        for stage in STAGES:
            if stage == "infer":
                rows += [(f"infer {m.name}", m.infer_s, f"waited {m.waited_share:.0%}") for m in self.models]
            else:
                rows.append((stage, self.stages_s.get(stage, 0.0), "part of read" if stage == "decode" else ""))
        return rows
