"""A load test in sentences: what the second model gained and what it cost, and what limits the reading."""

from __future__ import annotations

from collections.abc import Sequence

from redline.findings.claims import SAME_BAND
from redline.loadtesting.figures import Comparison, PointSummary, TargetSummary, bound_by_load
from redline.loadtesting.results import LoadTest
from redline.verification.accuracy import percent

_BAND = f"{100 * SAME_BAND:.0f} %"
_BUSY_CLIENT = 0.9
_MANY_ERRORS = 0.01
_FEW_REQUESTS = 1000


def conclude(
    document: LoadTest, targets: Sequence[TargetSummary], comparisons: Sequence[Comparison]
) -> tuple[str, ...]:
    """The conclusion, most important sentence first."""
    if not any(target.best for target in targets):
        return ("Nothing was answered, so nothing can be said.",)
    told: list[str] = []
    for comparison in comparisons:
        told += _compared(targets, comparison)
    told += [sentence for target in targets if (sentence := _alone(document, target))]
    if comparisons:
        told += _answers(document, targets)
    return tuple(told)


def _compared(targets: Sequence[TargetSummary], comparison: Comparison) -> list[str]:
    before, after = targets[0].target.name, targets[comparison.candidate].target.name
    ratio = comparison.rps
    if ratio is not None and bound_by_load(targets, comparison):
        return [*_tail(targets, comparison), *_costs(after, comparison)]
    if ratio is None:
        return [f"Too few rounds were measured to compare {after} with {before}: at least 3 are needed."]
    at_best = comparison.equal_load is None or comparison.equal_load.rps is None
    where = "where each answers most" if at_best or not comparison.equal_load else f"at {comparison.equal_load.label}"
    if ratio.verdict == "the same":
        told = f"{after} and {before} answer the same within {_BAND}: {ratio.value:.2f}x the requests per second"
    elif ratio.verdict == "undecided":
        told = f"Whether {after} or {before} answers more is not decided: {ratio.value:.2f}x the requests per second"
    elif ratio.verdict == "more":
        told = f"{after} answers {ratio.value:.2f}x as many requests per second as {before}"
    else:
        told = f"{after} is slower: {ratio.value:.2f}x the requests per second of {before}"
    return [f"{told} {where} ({ratio.interval}).", *_costs(after, comparison)]


def _tail(targets: Sequence[TargetSummary], comparison: Comparison) -> list[str]:
    """What is told where both kept up with every rate: the p99 at the highest of them."""
    before, after = targets[0].target.name, targets[comparison.candidate].target.name
    rates = {point.point: point.rate or 0.0 for point in targets[0].points}
    told = [f"{before} and {after} answered all that they were offered, so their rates are those of the load."]
    there = max((one for one in comparison.points if one.p99), key=lambda one: rates.get(one.point, 0.0), default=None)
    if there is None or there.p99 is None:
        return told
    ratio = there.p99
    if ratio.verdict == "the same":
        return [*told, f"At {there.label} their p99 is the same within {_BAND}: {ratio.value:.2f}x ({ratio.interval})."]
    if ratio.verdict == "undecided":
        return [*told, f"At {there.label} it is not decided whose p99 is less: {ratio.value:.2f}x ({ratio.interval})."]
    return [*told, f"At {there.label} the p99 of {after} is {ratio.value:.2f}x that of {before} ({ratio.interval})."]


def _costs(after: str, comparison: Comparison) -> list[str]:
    costs = []
    if comparison.cpu is not None:
        costs.append(f"{comparison.cpu:.2f}x the CPU time a request")
    if comparison.size is not None:
        costs.append(f"{comparison.size:.2f}x the file size")
    return [f"{after} takes {' and '.join(costs)}."] if costs else []


def _alone(document: LoadTest, target: TargetSummary) -> str | None:
    name, knee, best = target.target.name, target.knee, target.best
    if best is None:
        return f"{name} answered nothing."
    if knee is None:
        return f"{name} kept up with none of the rates that it was given; it answered {best.rps:.4g}/s at most."
    if knee.rate is not None:
        told = f"{name} keeps up with {knee.rate:.4g} requests/s"
        told += "" if target.saturated else " (the highest rate that was tried)"
        told += f", p50 {_ms(knee.p50_s)}, p99 {_ms(knee.p99_s)} there"
    else:
        told = f"{name} answers {best.rps:.4g} requests/s at most; with {knee.label} it reaches {knee.rps:.4g}"
        told += f", p50 {_ms(knee.p50_s)}, p99 {_ms(knee.p99_s)}"
    if document.slo_ms is not None:
        within = f"99 % within {document.slo_ms:g} ms"
        if target.slo_rate is not None:
            told += f"; {within} up to {target.slo_rate:.4g} requests/s"
        elif any(point.rate is not None for point in target.points):
            told += f"; at no rate {within}"
        told += f"; goodput {target.goodput_per_s or 0.0:.4g} requests/s"
    return f"{told}."


def _answers(document: LoadTest, targets: Sequence[TargetSummary]) -> list[str]:
    agreement = document.agreement
    if agreement is None:
        return []
    told = []
    before, after = targets[0], targets[-1]
    if agreement.top1 is not None:
        told.append(f"the same class as {before.target.name} on {percent(agreement.top1)} of {agreement.inputs} inputs")
    if agreement.relative_error is not None:
        told.append(f"a relative error of {agreement.relative_error:.2g}")
    sentences = [f"{after.target.name} gives {' and '.join(told)}."] if told else []
    if before.accuracy is not None and after.accuracy is not None:
        sentences.append(
            f"Accuracy is {percent(after.accuracy)} against {percent(before.accuracy)} on {agreement.inputs} inputs."
        )
    return sentences


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.3g} ms"


def warn(document: LoadTest, targets: Sequence[TargetSummary]) -> tuple[str, ...]:
    """What limits the reading of the numbers."""
    told = list(document.notes)
    points = [point for target in targets for point in target.points]
    busy = [point for point in points if point.client_cores >= _BUSY_CLIENT]
    if busy:
        most = max(point.client_cores for point in busy)
        told.append(
            f"the client is the bottleneck at {_where(busy)}: it kept {100 * most:.0f} % of a core busy, so the server "
            "may be faster than measured; send less, or load from another machine"
        )
    failed = [point for point in points if point.offered and point.errors > _MANY_ERRORS * point.offered]
    if failed:
        kinds = sorted({status for point in failed for status in point.statuses if status != "200"})
        told.append(f"more than 1 % of the requests failed at {_where(failed)} ({', '.join(kinds)})")
    late = [
        point
        for point in points
        if point.kept_up and point.late_p99_s and point.p50_s and point.late_p99_s > max(0.005, point.p50_s)
    ]
    if late:
        told.append(
            f"requests were sent late at {_where(late)} (p99 {_ms(max(point.late_p99_s or 0.0 for point in late))}): "
            "the machine or the connections were busy; the response time counts that, the service time does not"
        )
    few = [point for point in points if 0 < point.requests < _FEW_REQUESTS]
    if few:
        least = min(point.requests for point in few)
        told.append(
            f"the 99.9th percentile is that of as few as {least} requests at some loads: hardly more than the "
            "slowest; --requests or --seconds give more"
        )
    noise = document.environment.noise
    if noise and noise.warning:
        told.append(noise.warning)
    return tuple(dict.fromkeys(told))


def _where(points: Sequence[PointSummary]) -> str:
    labels = list(dict.fromkeys(point.label for point in points))
    return ", ".join(labels[:4]) + (f" and {len(labels) - 4} more loads" if len(labels) > 4 else "")
