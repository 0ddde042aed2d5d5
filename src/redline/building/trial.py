"""Run the engines that were built: do they agree, and how fast are they here?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np

from redline.backends import open_engine
from redline.building.records import BuildRequest, BuiltEngine, Latency, Progress
from redline.core.artifact import Engine
from redline.core.errors import RedlineError
from redline.core.samples import Samples
from redline.core.session import Session, SupportsDeviceTiming, SupportsProfiles
from redline.core.tensor import Array
from redline.measurement.latency import time_calls
from redline.verification.compare import Agreement, compare_outputs, outputs_of
from redline.verification.tolerance import coarsest

_ROUNDS = 20
_WINDOW_S = 0.02
_DEVICE_CALLS = 20


class EngineTrial:
    """Holds the engines' sessions while they take turns."""

    def __init__(self, reference: Callable[[], Session], samples: Samples, progress: Progress | None) -> None:
        """Prepare it.

        Args:
            reference: Opens the FP32 model that the engines have to agree with; called when the first engine runs.
            samples: What they are verified and measured on.
            progress: Called with what is being done, steps done, steps in all.
        """
        self.agreements: dict[str, Agreement] = {}
        self.latencies: dict[str, list[Latency]] = {}
        self.notes: dict[str, tuple[str, ...]] = {}
        self._reference, self._samples, self._progress = reference, samples, progress
        self._sessions: dict[str, Session] = {}
        self._right: dict[str, Array] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._sessions.values():
            session.close()

    def open(self, name: str, engine: Engine) -> None:
        """Load an engine and compare its answers with the FP32 model's; a failure is a note."""
        try:
            session = open_engine(str(engine.path))
        except RedlineError as error:
            self.notes[name] = (f"not run: {error}",)
            return
        self._sessions[name] = session
        self._tell(f"verify {name}", 0, 1)
        if self._right is None:
            reference = self._reference()
            self._right = outputs_of(reference, self._samples, 8)
            reference.close()
        try:
            given = outputs_of(session, self._samples, _batches(session)[-1])
        except RedlineError as error:
            self.notes[name] = (f"failed when run: {error}",)
            self._sessions.pop(name).close()
            return
        self.agreements[name] = compare_outputs(
            self._right, given, labels=self._samples.labels, precision=coarsest(engine.layers)
        )

    def measure(self) -> None:
        """Time all of them, in rounds that take turns."""
        for batch in sorted({batch for session in self._sessions.values() for batch in _batches(session)}):
            self._measure_batch(batch, {n: one for n, one in self._sessions.items() if batch in _batches(one)})

    def _measure_batch(self, batch: int, able: dict[str, Session]) -> None:
        feed = self._samples.batch(0, batch)
        found = {name: Latency(batch=batch) for name in able}
        for session in able.values():
            for _ in range(3):
                session(feed)
        names = list(able)
        order = np.random.default_rng(batch)
        for index in range(_ROUNDS):
            self._tell(f"measure batch {batch}", index, _ROUNDS)
            for name in order.permutation(names):
                session = able[name]
                found[name].end_to_end_s.extend(time_calls(session, [feed], duration_s=_WINDOW_S, min_calls=2))
                if isinstance(session, SupportsDeviceTiming):
                    found[name].device_s.extend(session.device_times(feed, _DEVICE_CALLS))
        for name, latency in found.items():
            self.latencies.setdefault(name, []).append(latency)

    def _tell(self, what: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(what, done, total)


def _batches(session: Session) -> tuple[int, ...]:
    """The batch sizes to measure: those that the engine's profiles name, or the one that it is fixed at."""
    if isinstance(session, SupportsProfiles):
        return session.batch_sizes
    return (session.signature.fixed_batch or 1,)


def run_all(
    reference: Callable[[], Session], variants: list[BuiltEngine], samples: Samples, request: BuildRequest
) -> list[BuiltEngine]:
    """Verify and measure those that can run here; the others stay as they are, with the reason."""
    with EngineTrial(reference, samples, request.progress) as runner:
        for variant in variants:
            if variant.engine is not None:
                runner.open(variant.recipe.name, variant.engine)
        if request.options.measure:
            runner.measure()
        return [
            replace(
                variant,
                agreement=runner.agreements.get(variant.recipe.name),
                latencies=tuple(runner.latencies.get(variant.recipe.name, ())),
                notes=(*variant.notes, *runner.notes.get(variant.recipe.name, ())),
            )
            for variant in variants
        ]
