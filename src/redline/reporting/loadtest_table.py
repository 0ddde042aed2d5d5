"""Every load of a load test as lines of text: the targets under each other, so that figures stand side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from redline.loadtesting.summary import Comparison, PointRatio, PointSummary, Summary
from redline.reporting import formats
from redline.reporting.loadtest_answers import at_point, interval_text, p99, p999, ratio_at, ratio_text, small_ms

MODES = {"constant": "Constant arrivals", "poisson": "Poisson arrivals", "closed": "Closed loop"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One target under one load; ``begins`` is set on the first target of a load."""

    point: PointSummary
    target: str
    begins: bool
    offered: str
    rps: str
    p50_ms: str
    p90_ms: str
    p95_ms: str
    p99_ms: str
    p999_ms: str
    max_ms: str
    goodput: str
    errors: str
    statuses: str
    late_ms: str
    queue_ms: str
    infer_ms: str
    cpu_ms: str
    rps_ratio: str
    rps_interval: str
    p99_ratio: str
    p99_interval: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """One target against the first, every ratio as text."""

    name: str
    rps: str
    rps_interval: str
    p99: str
    p99_interval: str
    knee: str
    cpu: str
    size: str


def compared(summary: Summary, point: int | None) -> tuple[Against, ...]:
    """Every further target against the first; p99 under the load ``point``."""
    found = []
    for comparison in summary.comparisons:
        there = ratio_at(comparison, point)
        tail = there.p99 if there else None
        found.append(
            Against(
                name=summary.targets[comparison.candidate].target.name,
                rps=ratio_text(comparison.rps),
                rps_interval=interval_text(comparison.rps),
                p99=ratio_text(tail),
                p99_interval=interval_text(tail),
                knee=formats.times(comparison.knee),
                cpu=formats.times(comparison.cpu),
                size=formats.times(comparison.size),
            )
        )
    return tuple(found)


def mode_of(point: PointSummary) -> str:
    """Which curve a load belongs to; a key of :data:`MODES`."""
    return point.arrivals or "constant" if point.mode == "open" else "closed"


def modes(summary: Summary) -> tuple[str, ...]:
    """The curves that were measured, in the order of :data:`MODES`."""
    found = {mode_of(point) for target in summary.targets for point in target.points}
    return tuple(mode for mode in MODES if mode in found)


def loads(summary: Summary, mode: str) -> tuple[PointSummary, ...]:
    """Each load of a curve once, the lightest first, as the first target that was given it met it."""
    found: dict[int, PointSummary] = {}
    for target in summary.targets:
        for point in target.points:
            if mode_of(point) == mode:
                found.setdefault(point.point, point)
    return tuple(sorted(found.values(), key=lambda point: (point.rate or point.users or 0, point.point)))


def lines(summary: Summary, mode: str) -> tuple[Line, ...]:
    """Every load of a curve, and under each load every target."""
    compared = {one.candidate: one for one in summary.comparisons}
    found = []
    for load in loads(summary, mode):
        begins = True
        for number, target in enumerate(summary.targets):
            point = at_point(target, load.point)
            if point is not None:
                found.append(_line(point, target.target.name, begins, compared.get(number)))
                begins = False
    return tuple(found)


def outcomes(summary: Summary) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """How requests ended, over all loads: each status with its count for every target; 200 is first."""
    counts = [_outcomes(target.points) for target in summary.targets]
    names = sorted({name for count in counts for name in count}, key=lambda name: (name != "200", name))
    return tuple((name, tuple(count[name] for count in counts)) for name in names)


def statuses_text(statuses: Mapping[str, int], dropped: int = 0) -> str:
    """What went wrong, in words.

    >>> statuses_text({"200": 90, "503": 8, "timeout": 1}, dropped=2)
    '8× 503, 1× timeout, 2× not sent'
    """
    found = [f"{formats.count(count)}× {status}" for status, count in statuses.items() if status != "200" and count]
    return ", ".join([*found, *([f"{formats.count(dropped)}× not sent"] if dropped else [])])


def _outcomes(points: tuple[PointSummary, ...]) -> Counter[str]:
    found: Counter[str] = Counter()
    for point in points:
        found.update({status: count for status, count in point.statuses.items() if count})
        if point.dropped:
            found["not sent"] += point.dropped
    return found


def _line(point: PointSummary, target: str, begins: bool, comparison: Comparison | None) -> Line:
    ratio: PointRatio | None = ratio_at(comparison, point.point)
    rps, tail = (ratio.rps, ratio.p99) if ratio else (None, None)
    split = point.server
    return Line(
        point=point,
        target=target,
        begins=begins,
        offered=formats.digits(point.offered_per_s),
        rps=formats.digits(point.rps),
        p50_ms=formats.milliseconds(point.p50_s),
        p90_ms=formats.milliseconds(point.p90_s),
        p95_ms=formats.milliseconds(point.p95_s),
        p99_ms=p99(point),
        p999_ms=p999(point),
        max_ms=formats.milliseconds(point.max_s),
        goodput=formats.digits(point.goodput_per_s),
        errors=_lost(point),
        statuses=statuses_text(point.statuses, point.dropped),
        late_ms=formats.milliseconds(point.late_p99_s),
        queue_ms=small_ms(split.queue_s if split else None),
        infer_ms=small_ms(split.compute_infer_s if split else None),
        cpu_ms=formats.milliseconds(point.server_cpu_per_request_s),
        rps_ratio=ratio_text(rps) if comparison else "",
        rps_interval=interval_text(rps),
        p99_ratio=ratio_text(tail) if comparison else "",
        p99_interval=interval_text(tail),
    )


def _lost(point: PointSummary) -> str:
    if not point.errors + point.dropped:
        return "0"
    return formats.percent(point.lost, 1 if point.lost >= 0.001 else 2)
