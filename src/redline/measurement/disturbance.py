"""How much of a window's time other work took, and how much is known of a comparison."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from redline.core.files import text_of
from redline.measurement.stats import Ratio

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """What the kernel says of one window; None where it does not say.

    Attributes:
        run_delay: Seconds that the worker's threads waited for a core, over the window's seconds times its threads.
        steal: Share of all processor time that the hypervisor gave to others.
        pressure: Share of the window in which some task on the machine waited for a core (PSI, cpu, some).
        switches: Involuntary context switches of the worker.
    """

    run_delay: float | None = None
    steal: float | None = None
    pressure: float | None = None
    switches: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a row's ratio rests on.

    Attributes:
        processes: Generations of fresh processes in which both sides were measured.
        confirmed: Whether they are other processes than those by which the row was chosen.
        rounds: Rounds in all of them.
        kept: Rounds that other work did not disturb.
        calls_per_window: Of the slower side, typically.
        window_s: How long a window was.
        run_delay: The median over windows, of the worse side.
        steal: The mean over windows; the kernel's ticks are too coarse for a median.
        control: The baseline's second process against the first, where it was measured beside them.
        stable: Whether most of their warm-ups settled.
        threads: Of every runtime; 0 is as many as each takes by itself.
    """

    processes: int
    confirmed: bool
    rounds: int
    kept: int
    calls_per_window: float
    window_s: float
    run_delay: float | None = None
    steal: float | None = None
    control: Ratio | None = None
    stable: bool = True
    threads: int = 0


#: A round is left out, and a comparison withheld, where others took more than this share.
MOST_DISTURBED = 0.05
#: So much of the rounds is kept at least, the least disturbed ones.
LEAST_KEPT = 1 / 3
_TICK_S = 0.01
_BY_ITSELF = 0.25
_STAT = Path("/proc/stat")
# Of the numbers in a line of it: user nice system idle iowait irq softirq steal (the man page proc_stat(5)).
_STEAL = 7


@dataclass(frozen=True, slots=True)
class Turn:
    """One window of a worker: seconds of each call, and what disturbed them."""

    samples_s: tuple[float, ...]
    disturbance: Disturbance


def kept_rounds(rounds: Sequence[Sequence[Disturbance]]) -> tuple[bool, ...]:
    """Which rounds count, for all cells of a group alike: those in which no window was disturbed.

    Steal is counted by the kernel in ticks of 10 ms, far too coarse for one window: it is judged over the whole round.

    Args:
        rounds: Of each round, the windows of all cells.

    Returns:
        One answer a round; a third of them at least is kept, the least disturbed.
    """
    worst = [_worst(one) for one in rounds]
    least = math.ceil(LEAST_KEPT * len(worst))
    limit = max(MOST_DISTURBED, sorted(worst)[least - 1]) if worst else 0.0
    return tuple(value <= limit for value in worst)


def sound_windows(kept: Sequence[bool], windows: Sequence[Disturbance]) -> tuple[bool, ...]:
    """Which windows of one process count: those of kept rounds; of rounds kept though disturbed, the undisturbed ones.

    Where many cells take turns, others hit one of them in nearly every round, so that few rounds or none are free of
    them; a cell whose own window was not hit still has its time.

    Args:
        kept: From :func:`kept_rounds`.
        windows: What the kernel said of the same rounds; may be empty where it says nothing.

    Returns:
        One answer a round. Where not one window would be left, all of kept rounds count.
    """
    sound = [
        keeps and (window is None or (window.run_delay or 0.0) <= MOST_DISTURBED)
        for keeps, window in zip_longest(kept, windows[: len(kept)])
    ]
    return tuple(sound if any(sound) else kept)


def _worst(windows: Sequence[Disturbance]) -> float:
    delays = [window.run_delay for window in windows if window.run_delay is not None]
    steals = [window.steal for window in windows if window.steal is not None]
    return max(max(delays, default=0.0), sum(steals) / len(steals) if steals else 0.0)


class _Counts(NamedTuple):
    clock_s: float
    ran_s: float
    waited_s: float
    pressure_s: float | None
    stat: str | None
    switches: int


class Watch:
    """What the kernel counts of this process and of the machine, read before and after a window."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._before = self._read()

    def _read(self) -> _Counts:
        ran, waited = _schedule()
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0
        return _Counts(self._clock(), ran, waited, _pressure(), text_of(_STAT), switches)

    def disturbance(self) -> Disturbance:
        """Since it was made."""
        before, after = self._before, self._read()
        wall_s, ran_s, waited_s = (now - was for was, now in zip(before[:3], after[:3], strict=True))
        if wall_s <= 0:
            return Disturbance()
        # Threads that are busy, on average: a runtime keeps many more asleep, which wait for nobody.
        threads = max((ran_s + waited_s) / wall_s, 1.0)
        steal = steal_share(before.stat, after.stat)
        pressure = None
        if after.pressure_s is not None and before.pressure_s is not None:
            pressure = (after.pressure_s - before.pressure_s) / wall_s
        return Disturbance(
            run_delay=round(waited_s / (wall_s * threads), 5) if ran_s or waited_s else None,
            steal=None if steal is None else round(steal, 5),
            pressure=None if pressure is None else round(pressure, 5),
            switches=after.switches - before.switches,
        )


def idle_cores(
    *, seconds: float = 1.0, sleep: Callable[[float], None] = time.sleep, read: Callable[[], str | None] | None = None
) -> float | None:
    """Cores' worth of work that others do on the cores that this process may use, this process asleep.

    Work of the hypervisor's other guests (steal) is work of others too. None where the system does not say.
    """
    read = read or (lambda: text_of(_STAT))
    before = _busy(read())
    sleep(seconds)
    after = _busy(read())
    if before is None or after is None or seconds <= 0:
        return None
    return max(0.0, (after - before) * _TICK_S / seconds)


def free_threads(available: int, busy: float, *, cores: int | None = None) -> int:
    """How many threads find a core of their own: the cores less those that others use, rounded down, 1 at least.

    A quarter of a core is what a machine does by itself.

    Args:
        available: Cores that may be used at once, by affinity and by a container's quota.
        busy: From :func:`idle_cores`.
        cores: That the quota may be spent on, where they are more.

    >>> free_threads(2, 0.1), free_threads(2, 0.6), free_threads(8, 2.3), free_threads(1, 1.0)
    (2, 1, 5, 1)
    >>> free_threads(2, 30.0, cores=64)
    2
    """
    free = math.floor((cores or available) - max(0.0, busy - _BY_ITSELF))
    return max(1, min(available, free))


def _busy(text: str | None) -> float | None:
    """Ticks of work on the cores that this process may use; on all of them where they are not told apart."""
    lines = {words[0]: words[1:9] for line in (text or "").splitlines() if len(words := line.split()) >= 9}
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    mine = [lines[name] for name in map("cpu{}".format, allowed) if name in lines] or [lines.get("cpu", [])]
    if not mine[0]:
        return None
    return sum(float(ticks) for words in mine for place, ticks in enumerate(words) if place not in (3, 4))


def steal_share(before: str | None, after: str | None) -> float | None:
    """Share of all processor time between two texts of ``/proc/stat`` that the hypervisor gave to others.

    >>> steal_share("cpu  10 0 0 90 0 0 0 0 0 0", "cpu  20 0 0 170 0 0 0 10 0 0")
    0.1
    """
    was, now = ([float(word) for word in (text or "").split("\n", 1)[0].split()[1:9]] for text in (before, after))
    total = sum(now) - sum(was)
    return (now[_STEAL] - was[_STEAL]) / total if len(was) == len(now) == _STEAL + 1 and total > 0 else None


def _schedule() -> tuple[float, float]:
    """Seconds that the threads of this process ran, and waited for a core while they could have run."""
    ran = waited = 0.0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        words = (text_of(task) or "").split()
        if len(words) >= 2:
            ran, waited = ran + int(words[0]) / 1e9, waited + int(words[1]) / 1e9
    return ran, waited


def _pressure() -> float | None:
    """Seconds since the start in which some task of the machine waited for a core."""
    for line in (text_of(Path("/proc/pressure/cpu")) or "").splitlines():
        if line.startswith("some "):
            return int(line.rpartition("total=")[2]) / 1e6
    return None
