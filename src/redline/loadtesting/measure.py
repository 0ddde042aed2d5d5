"""Windows of load, one after the other, with what the server's processes and statistics say of each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace

from redline.core.errors import InputError
from redline.loadtesting.generators import Generator
from redline.loadtesting.job import Job, Measured
from redline.loadtesting.plan import Turn, schedule
from redline.loadtesting.results import Load, Point, ServerSplit, Window
from redline.loadtesting.targets import Server

#: A window that is to have so many requests is ended after this time, however few it has then.
LONGEST_S = 600.0
_LEAD_SHARE = 0.2
_LONGEST_LEAD_S = 1.0
_WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How long windows are.

    Attributes:
        seconds: How long each measures; the lead-in before it is a fifth of that, at most a second.
        rounds: How often each target has its turn under each load.
        requests: How many requests each target gets under each load, over all rounds, in place of ``seconds``.
        timeout_s: When a request is given up.
        connections: The most at once in an open loop.
    """

    seconds: float = 3.0
    rounds: int = 5
    requests: int | None = None
    timeout_s: float = 10.0
    connections: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.05 <= self.seconds <= 3600:
            raise InputError(f"got {self.seconds:g} s a window, expected 0.05 to 3600")
        if not 1 <= self.rounds <= 1000:
            raise InputError(f"got {self.rounds} rounds, expected 1 to 1000 (at least 3 for an interval)")
        if self.requests is not None and self.requests < self.rounds:
            raise InputError(f"got {self.requests} requests in {self.rounds} rounds, expected at least one a round")

    def measured_s(self, load: Load) -> float:
        """How long a window of this load measures; for a number of requests of users, ``seconds`` is a guess."""
        if self.requests is None or load.rate is None:
            return self.seconds
        return self.in_window / load.rate

    def expected_s(self, load: Load) -> float:
        """How long it takes with its lead-in."""
        return self.measured_s(load) + self.lead_s(load)

    def lead_s(self, load: Load) -> float:
        """How long its lead-in is."""
        return min(_LONGEST_LEAD_S, _LEAD_SHARE * self.measured_s(load))

    @property
    def in_window(self) -> int:
        """Requests of one window, where their number is given."""
        return math.ceil((self.requests or 0) / self.rounds)

    def job(self, turn: Turn, parcel: str, *, order: int) -> Job:
        """What the generator is told for a turn."""
        load, lead_s, seconds = turn.load, self.lead_s(turn.load), self.measured_s(turn.load)
        common = Job(parcel=parcel, lead_s=lead_s, seconds=seconds, timeout_s=self.timeout_s, first=order)
        if load.rate is None:
            if self.requests is None:
                return replace(common, users=load.users)
            return replace(common, users=load.users, requests=self.in_window, seconds=LONGEST_S)
        # The same arrivals for all targets of a round.
        seed = self.seed * 1_000_003 + turn.round
        ahead = schedule(load.arrivals or "constant", rate=load.rate, seconds=lead_s, seed=seed + 500_009)
        due = schedule(load.arrivals or "constant", rate=load.rate, seconds=seconds, seed=seed)
        due = [one for one in ahead if one < lead_s] + [lead_s + one for one in due]
        return replace(common, due=due, connections=self.connections)


class Measurement:
    """Measures turns and keeps their windows by load.

    Attributes:
        notes: What the generators said.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        parcels: Sequence[str],
        generator: Generator,
        windows: Windows,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._servers, self._parcels, self._generator, self._windows = servers, parcels, generator, windows
        self._clock = clock
        self._start: float | None = None
        self._order = 0
        self._found: dict[Load, list[Window]] = {}
        self.notes: list[str] = []

    @property
    def points(self) -> tuple[Point, ...]:
        """What was measured so far."""
        return tuple(Point(**asdict(load), windows=tuple(found)) for load, found in self._found.items())

    def warm_up(self) -> None:
        """Load every target for a second; nothing is kept."""
        load = Load(mode="closed", users=2)
        for target, parcel in enumerate(self._parcels):
            job = self._windows.job(Turn(load=load, target=target, round=0), parcel, order=0)
            self._generator.run(replace(job, lead_s=0.0, seconds=min(_WARM_UP_S, job.seconds), requests=None))

    def measure(self, all_turns: Iterable[Turn], on_turn: Callable[[Turn], None]) -> None:
        """Measure each turn; ``on_turn`` is called after each."""
        for turn in all_turns:
            self._found.setdefault(turn.load, []).append(self._window(turn))
            on_turn(turn)

    def best(self, target: int) -> float:
        """The most requests per second that a target answered in a closed loop."""
        rates = []
        for load, found in self._found.items():
            ours = [window for window in found if window.target == target and load.rate is None]
            seconds = sum(window.seconds for window in ours)
            rates.append(sum(len(window.response_s) for window in ours) / seconds if seconds else 0.0)
        return max(rates, default=0.0)

    def _window(self, turn: Turn) -> Window:
        server = self._servers[turn.target]
        job = self._windows.job(turn, self._parcels[turn.target], order=self._order)
        split, cpu_s = server.split(), server.tree.cpu_s() if server.tree else None
        begun = self._clock()
        self._start = begun if self._start is None else self._start
        outcome = self._generator.run(job)
        used = server.tree.cpu_s() - cpu_s if server.tree and cpu_s is not None else None
        rss = server.tree.rss_bytes() if server.tree else None
        self.notes += [note for note in outcome.notes if note not in self.notes]
        window = Window(
            target=turn.target,
            order=self._order,
            round=turn.round,
            start_s=begun - self._start,
            server=_grown(split, server.split()),
            # A tree that is gone (the server died) has used less than before: that is no measurement.
            server_cpu_s=used if used is not None and used >= 0 else None,
            server_rss_bytes=rss or None,
            **{field.name: getattr(outcome, field.name) for field in fields(Measured)},
        )
        self._order += 1
        return window


def _grown(before: ServerSplit | None, after: ServerSplit | None) -> ServerSplit | None:
    if before is None or after is None or after.inferences < before.inferences:
        return None
    was = asdict(before)
    return ServerSplit(**{name: value - was[name] for name, value in asdict(after).items()})
