"""Several ways to run one model, measured beside each other as a study does: fresh processes, shuffled rounds."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from redline.core.errors import RedlineError
from redline.core.tensor import Array
from redline.measurement.disturbance import Disturbance, kept_rounds
from redline.measurement.stats import Ratio, ratio_of_processes
from redline.measurement.worker import Source, Worker

Feeds = Callable[[Worker], Sequence[Mapping[str, Array]]]


@dataclass
class Times:
    """What one entry took, ``[process][round]`` calls; ``failed`` says why there is nothing."""

    rounds_s: list[list[tuple[float, ...]]] = field(default_factory=list)
    disturbances: list[list[Disturbance]] = field(default_factory=list)
    kept: list[tuple[bool, ...]] = field(default_factory=list)
    failed: str | None = None

    @property
    def calls_s(self) -> list[float]:
        return [second for process in self.rounds_s for calls in process for second in calls]

    def means_s(self) -> list[list[float | None]]:
        return [
            [sum(calls) / len(calls) if kept and calls else None for calls, kept in zip(rounds, keeps, strict=True)]
            for rounds, keeps in zip(self.rounds_s, self.kept, strict=True)
        ]


def measure(
    sources: Mapping[str, Source], feeds: Feeds, *, processes: int, rounds: int, window_s: float, seed: int = 0
) -> dict[str, Times]:
    """Time all of them in so many generations of fresh processes; one that fails takes no part from then on."""
    found, order = {name: Times() for name in sources}, random.Random(seed)
    for _ in range(processes):
        with ExitStack() as stack:
            workers: dict[str, Worker] = {}
            for name in order.sample(list(sources), len(sources)):
                if found[name].failed:
                    continue
                try:
                    worker = stack.enter_context(Worker(sources[name]))
                    worker.prepare("x", feeds(worker))
                    workers[name] = worker
                except RedlineError as error:
                    found[name].failed = str(error)
            _generation(workers, found, order, rounds, window_s)
    return found


def _generation(
    workers: Mapping[str, Worker], found: Mapping[str, Times], order: random.Random, rounds: int, window_s: float
) -> None:
    for name in workers:
        found[name].rounds_s.append([])
        found[name].disturbances.append([])
    for _ in range(rounds):
        for name in order.sample(list(workers), len(workers)):
            turn = workers[name].window("x", duration_s=window_s)
            found[name].rounds_s[-1].append(turn.samples_s)
            found[name].disturbances[-1].append(turn.disturbance)
    kept = kept_rounds([[found[name].disturbances[-1][index] for name in workers] for index in range(rounds)])
    for name in workers:
        found[name].kept.append(kept)


def speedup(baseline: Times, candidate: Times) -> Ratio | None:
    """How many times faster the candidate is: 99 % over processes, pooled with what processes usually differ by."""
    return ratio_of_processes(baseline.means_s(), candidate.means_s(), shrink=True)
