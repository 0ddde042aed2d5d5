"""From a load test's raw times to its figures; percentiles, rates, ratios and the knee are derived here only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from redline.loadtesting.conclusion import conclude, warn
from redline.loadtesting.figures import Comparison, PointRatio, PointSummary, Split, Summary, TargetSummary
from redline.loadtesting.ratios import Ratio, ratio_of_rounds
from redline.loadtesting.results import LoadTest, Point, Window

__all__ = ["Comparison", "PointRatio", "PointSummary", "Ratio", "Split", "Summary", "TargetSummary", "summarize"]

#: An open loop kept up where at the end of its windows this share of what was offered was answered ...
KEEPS_UP = 0.95
#: ... and no more than this share of it failed or was dropped.
MOST_LOST = 0.01
#: A rate is within the SLO where this share of it was answered in time.
WITHIN_SLO = 0.99

_PERCENTS = (50, 90, 95, 99, 99.9)


def summarize(document: LoadTest) -> Summary:
    """All that follows from a load test, complete or interrupted."""
    targets = tuple(_target(document, index) for index in range(len(document.targets)))
    comparisons = tuple(_compare(document, targets, index) for index in range(1, len(targets)))
    return Summary(
        document=document,
        targets=targets,
        comparisons=comparisons,
        conclusion=conclude(document, targets, comparisons),
        warnings=warn(document, targets),
    )


def _target(document: LoadTest, index: int) -> TargetSummary:
    points = tuple(
        _point(document, number, windows)
        for number, point in enumerate(document.points)
        if (windows := [window for window in point.windows if window.target == index])
    )
    knee = _knee(points)
    answered = [point for point in points if point.requests]
    in_time = [point for point in points if point.within_slo is not None]
    rates = [point.rate for point in in_time if point.rate is not None and (point.within_slo or 0.0) >= WITHIN_SLO]
    accuracy = document.agreement.accuracy if document.agreement else None
    target = document.targets[index]
    return TargetSummary(
        target=target,
        points=points,
        best=max(answered, key=lambda point: point.rps, default=None),
        knee=knee,
        saturated=_saturated(points, knee),
        slo_rate=max(rates, default=None),
        goodput_per_s=max((point.goodput_per_s or 0.0 for point in in_time), default=None),
        accuracy=accuracy.get(target.name) if accuracy else None,
    )


def _knee(points: Sequence[PointSummary]) -> PointSummary | None:
    opened = sorted((point for point in points if point.rate is not None), key=lambda point: point.rate or 0.0)
    if opened:
        # A rate above one that was too much says nothing, even where it happened to be kept up with.
        best = None
        for point in opened:
            if not point.kept_up:
                break
            best = point
        return best
    closed = sorted((point for point in points if point.requests), key=lambda point: point.users or 0)
    highest = max((point.rps for point in closed), default=0.0)
    return next((point for point in closed if point.rps >= KEEPS_UP * highest), None)


def _saturated(points: Sequence[PointSummary], knee: PointSummary | None) -> bool:
    if knee is not None and knee.users is not None:
        return any((point.users or 0) > knee.users for point in points)
    return any(point.rate is not None and not point.kept_up for point in points)


def _point(document: LoadTest, number: int, windows: Sequence[Window]) -> PointSummary:
    point = document.points[number]
    response, service = _joined(window.response_s for window in windows), _joined(w.service_s for w in windows)
    seconds = sum(window.seconds for window in windows) or float("nan")
    offered, requests = sum(window.offered for window in windows), len(response)
    dropped, errors = sum(window.dropped for window in windows), sum(window.errors for window in windows)
    quantiles = [float(value) for value in np.percentile(response, _PERCENTS)] if requests else [None] * 5
    lates = [window.late_p99_s for window in windows if window.late_p99_s is not None]
    in_time = None if document.slo_ms is None else int(np.count_nonzero(response <= document.slo_ms / 1000))
    return PointSummary(
        target=windows[0].target,
        point=number,
        label=point.label,
        mode=point.mode,
        arrivals=point.arrivals,
        rate=point.rate,
        users=point.users,
        windows=len(windows),
        requests=requests,
        offered=offered,
        dropped=dropped,
        errors=errors,
        statuses=dict(sum((Counter(dict(window.statuses)) for window in windows), Counter())),
        offered_per_s=point.rate,
        rps=requests / seconds,
        mean_s=float(response.mean()) if requests else None,
        **dict(zip(("p50_s", "p90_s", "p95_s", "p99_s", "p999_s"), quantiles, strict=True)),
        max_s=float(response.max()) if requests else None,
        service_p50_s=float(np.percentile(service, 50)) if len(service) else None,
        service_p99_s=float(np.percentile(service, 99)) if len(service) else None,
        late_p99_s=max(lates) if lates else None,
        kept_up=_kept_up(point, windows),
        goodput_per_s=None if in_time is None else in_time / seconds,
        within_slo=None if in_time is None or not offered else in_time / offered,
        server=_split(windows),
        server_cpu_per_request_s=_cpu_per_request(windows),
        server_cores=_cores(windows, lambda window: window.server_cpu_s),
        server_rss_bytes=max((window.server_rss_bytes or 0 for window in windows), default=0) or None,
        client_cores=_cores(windows, lambda window: window.client_cpu_s) or 0.0,
        client_rss_bytes=max(window.client_rss_bytes for window in windows),
    )


def _joined(parts: Iterable[Sequence[float]]) -> np.ndarray:
    return np.array([second for part in parts for second in part], dtype=np.float64)


def _kept_up(point: Point, windows: Sequence[Window]) -> bool:
    offered = sum(window.offered for window in windows)
    lost = sum(window.errors + window.dropped for window in windows)
    if not any(window.response_s for window in windows) or lost > MOST_LOST * offered:
        return False
    if point.mode == "closed":
        return True
    smallest = min(second for window in windows for second in window.service_s)
    # The middle window speaks: one stall of the machine is no overload.
    return float(np.median([_backlog(window, smallest) for window in windows])) <= 1 - KEEPS_UP


def _backlog(window: Window, smallest_s: float) -> float:
    """How far behind its schedule the end of a window was answered, over the window's length."""
    last = window.response_s[-max(1, len(window.response_s) // 10) :]
    return max(0.0, float(np.mean(last)) - smallest_s) / window.seconds if last else 1.0


def _split(windows: Sequence[Window]) -> Split | None:
    found = [window.server for window in windows if window.server is not None and window.server.inferences > 0]
    inferences, executions = sum(one.inferences for one in found), sum(one.executions for one in found)
    if not inferences:
        return None
    phases = ("queue_s", "compute_input_s", "compute_infer_s", "compute_output_s")
    return Split(
        **{phase: sum(getattr(one, phase) for one in found) / inferences for phase in phases},
        batch=inferences / executions if executions else None,
    )


def _cpu_per_request(windows: Sequence[Window]) -> float | None:
    known = [(window.server_cpu_s, window.sent + window.lead) for window in windows if window.server_cpu_s is not None]
    sent = sum(count for _, count in known)
    return sum(seconds for seconds, _ in known) / sent if sent else None


def _cores(windows: Sequence[Window], cpu_s: Callable[[Window], float | None]) -> float | None:
    known = [(seconds, window.elapsed_s) for window in windows if (seconds := cpu_s(window)) is not None]
    elapsed = sum(one for _, one in known)
    return sum(seconds for seconds, _ in known) / elapsed if elapsed else None


def _compare(document: LoadTest, targets: Sequence[TargetSummary], candidate: int) -> Comparison:
    ratios = tuple(
        ratio
        for number in range(len(document.points))
        if (ratio := _point_ratio(document, number, candidate)) is not None
    )
    closed = [ratio for ratio in ratios if document.points[ratio.point].mode == "closed"]
    equal = max(closed, key=lambda ratio: document.points[ratio.point].users or 0, default=None)
    before, after = targets[0], targets[candidate]
    best = _best(document, before, after)
    rps = equal.rps if equal and equal.rps else best
    return Comparison(
        candidate=candidate,
        points=ratios,
        equal_load=equal,
        best=best,
        knee=_over(after.knee_rps, before.knee_rps),
        size=_over(after.target.size_bytes, before.target.size_bytes),
        cpu=_cpu(before, after, equal or (ratios[-1] if ratios else None)),
        rps=rps,
        verdict=rps.verdict if rps else None,
    )


def _point_ratio(document: LoadTest, number: int, candidate: int) -> PointRatio | None:
    windows = document.points[number].windows
    pairs = _pairs([w for w in windows if w.target == 0], [w for w in windows if w.target == candidate])
    if not pairs:
        return None
    return PointRatio(
        point=number,
        label=document.points[number].label,
        rps=_ratio(pairs, _rps),
        p50=_ratio(pairs, lambda window: _quantile(window, 50)),
        p99=_ratio(pairs, lambda window: _quantile(window, 99)),
    )


def _best(document: LoadTest, before: TargetSummary, after: TargetSummary) -> Ratio | None:
    if before.best is None or after.best is None:
        return None
    found = [
        [window for window in document.points[one.point].windows if window.target == one.target]
        for one in (before.best, after.best)
    ]
    return _ratio(_pairs(found[0], found[1]), _rps)


def _pairs(before: Sequence[Window], after: Sequence[Window]) -> list[tuple[Window, Window]]:
    rounds = {window.round: window for window in after}
    return [(window, rounds[window.round]) for window in before if window.round in rounds]


def _ratio(pairs: Sequence[tuple[Window, Window]], value: Callable[[Window], float]) -> Ratio | None:
    return ratio_of_rounds([(value(before), value(after)) for before, after in pairs])


def _rps(window: Window) -> float:
    return len(window.response_s) / window.seconds if window.seconds else 0.0


def _quantile(window: Window, percent: float) -> float:
    return float(np.percentile(window.response_s, percent)) if window.response_s else 0.0


def _cpu(before: TargetSummary, after: TargetSummary, at: PointRatio | None) -> float | None:
    found = [
        next((one.server_cpu_per_request_s for one in target.points if at and one.point == at.point), None)
        for target in (before, after)
    ]
    return _over(found[1], found[0])


def _over(after: float | None, before: float | None) -> float | None:
    return after / before if after and before else None
