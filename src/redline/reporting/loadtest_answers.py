"""What a load test says in short: the claim, the figures beside it, and the load that they are taken at."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from redline.findings.claims import SAME_BAND
from redline.loadtesting.figures import bound_by_load
from redline.loadtesting.summary import Comparison, PointRatio, PointSummary, Ratio, Summary, TargetSummary
from redline.reporting import formats
from redline.reporting.page import Fact

#: What a ratio is called that is no number.
SAME, UNDECIDED = f"the same within {100 * SAME_BAND:.0f} %", "not decided"
_SAMPLES_FOR_P999 = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The main result: a figure, what it is of, and how sure it is."""

    figure: str
    unit: str
    text: str
    aside: str
    plain: bool


def name_of(summary: Summary) -> str:
    """What the load test is about."""
    names = [one.target.name for one in summary.targets]
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[1:-1])}{' and ' if names[1:-1] else ''}{names[-1]} against {names[0]}"


def leading(summary: Summary) -> Comparison | None:
    """The comparison that the page begins with: the largest gain that is none by chance, else the last target's."""
    gains = [one for one in summary.comparisons if one.rps is not None and one.rps.verdict == "more"]
    if gains:
        return max(gains, key=lambda one: one.rps.value if one.rps else 0.0)
    return summary.comparisons[-1] if summary.comparisons else None


def usual_point(summary: Summary) -> int | None:
    """Position of the load at which latencies are compared.

    The highest rate at which every target kept up, of Poisson arrivals where there are any, for those are what traffic
    looks like. Else the most users that all were given, else the lowest rate.
    """
    kept = [one for one in _common(summary) if one[0].mode == "open" and all(at.kept_up for at in one)]
    poisson = [one for one in kept if one[0].arrivals == "poisson"]
    if poisson or kept:
        return max(poisson or kept, key=lambda one: one[0].rate or 0.0)[0].point
    closed = [one for one in _common(summary) if one[0].mode == "closed"]
    if closed:
        return max(closed, key=lambda one: one[0].users or 0)[0].point
    return min(_common(summary), key=lambda one: one[0].rate or 0.0)[0].point if _common(summary) else None


def at_point(target: TargetSummary, point: int | None) -> PointSummary | None:
    """A target under one load."""
    return next((one for one in target.points if one.point == point), None)


def ratio_at(comparison: Comparison | None, point: int | None) -> PointRatio | None:
    """A comparison under one load."""
    return next((one for one in comparison.points if one.point == point), None) if comparison else None


def load_of(point: PointSummary) -> str:
    """A load in words.

    Arrivals are named, for the same rate is another load where they are random.
    """
    if point.mode == "closed":
        return f"with {point.label}"
    return f"at {point.label}, {'Poisson' if point.arrivals == 'poisson' else point.arrivals} arrivals"


def claim(summary: Summary) -> Claim | None:
    """The claim: the ratio of answered requests, where it is decided; of one target, its most."""
    comparison = leading(summary)
    if comparison is None:
        best = summary.targets[0].best if summary.targets else None
        if best is None:
            return None
        return Claim(
            figure=formats.digits(best.rps), unit="/s", text=f"requests answered, {load_of(best)}", aside="", plain=True
        )
    ratio = comparison.rps
    if ratio is None:
        return None
    if bound_by_load(summary.targets, comparison):
        return _tail_claim(summary, comparison)
    baseline = summary.targets[0].target.name
    equal = comparison.equal_load
    where = f"with {equal.label}" if equal and equal.rps else "where each answers most"
    sure = f"95 % confidence interval {formats.interval(ratio.low, ratio.high)}×, {ratio.rounds} rounds"
    if ratio.verdict in ("the same", "undecided"):
        name = summary.targets[comparison.candidate].target.name
        return _level(ratio, f"requests a second, {where}", (name, baseline), sure)
    text = f"the requests a second of {baseline}{_by(summary, comparison)}, {where}"
    return Claim(figure=formats.times(ratio.value), unit="", text=text, aside=sure, plain=ratio.verdict == "less")


def _level(ratio: Ratio, what: str, names: tuple[str, str], aside: str) -> Claim:
    """That two are level, or that nobody can say."""
    figure = SAME if ratio.verdict == "the same" else UNDECIDED
    text = f"{names[0]} against {names[1]} in {what}"
    return Claim(figure=figure, unit="", text=text, aside=f"{formats.times(ratio.value)}, {aside}", plain=True)


def _by(summary: Summary, comparison: Comparison) -> str:
    """Whose ratio it is, where the heading leaves that open."""
    return f" by {summary.targets[comparison.candidate].target.name}" if len(summary.comparisons) > 1 else ""


def _tail_claim(summary: Summary, comparison: Comparison) -> Claim | None:
    """The p99 in place of a rate."""
    point = usual_point(summary)
    there = ratio_at(comparison, point)
    load = at_point(summary.targets[comparison.candidate], point)
    if there is None or there.p99 is None or load is None:
        return None
    ratio, baseline = there.p99, summary.targets[0].target.name
    sure = f"95 % confidence interval {formats.interval(ratio.low, ratio.high)}×, {ratio.rounds} rounds"
    aside = f"{sure}; both answered all that they were asked"
    if ratio.verdict in ("the same", "undecided"):
        name = summary.targets[comparison.candidate].target.name
        return _level(ratio, f"p99, {load_of(load)}", (name, baseline), aside)
    text = f"the p99 of {baseline}{_by(summary, comparison)}, {load_of(load)}"
    return Claim(figure=formats.times(ratio.value), unit="", text=text, aside=aside, plain=ratio.verdict == "more")


def facts(summary: Summary) -> tuple[Fact, ...]:
    """The figures beside the claim, each with the baseline's."""
    if not summary.targets:
        return ()
    comparison = leading(summary)
    after = summary.targets[comparison.candidate if comparison else 0]
    before = summary.targets[0] if comparison else None
    point = usual_point(summary)
    found = [_knee(after, before), _tail(after, before, comparison, point), *_costs(after, before, point)]
    found += _answers(summary, after)
    return tuple(fact for fact in found if fact is not None)


def p99(point: PointSummary) -> str:
    """The 99th percentile, or how many requests there were where they are too few for one."""
    return _percentile(point, point.p99_s, formats.P99_SAMPLES)


def p999(point: PointSummary) -> str:
    """The 99.9th percentile, likewise."""
    return _percentile(point, point.p999_s, _SAMPLES_FOR_P999)


def small_ms(seconds: float | None) -> str:
    """Milliseconds of a part of a request, without digits that mean nothing.

    >>> small_ms(0.0041), small_ms(4.2e-6), small_ms(0.0), small_ms(None)
    ('4.10', '<0.01', '0', '–')
    """
    return "<0.01" if seconds is not None and 0 < seconds < 1e-5 else formats.milliseconds(seconds)


def ratio_text(ratio: Ratio | None) -> str:
    """A ratio in words: a number only where its interval leaves 1 out.

    >>> ratio_text(Ratio(1.98, 1.9, 2.1, 5)), ratio_text(Ratio(1.0, 0.97, 1.03, 5)), ratio_text(None)
    ('1.98×', 'the same within 5 %', '–')
    >>> ratio_text(Ratio(1.3, 0.4, 3.9, 3))
    'not decided'
    """
    if ratio is None:
        return formats.DASH
    if ratio.verdict == "the same":
        return SAME
    return UNDECIDED if ratio.low <= 1 <= ratio.high else formats.times(ratio.value)


def interval_text(ratio: Ratio | None) -> str:
    """The interval of a ratio."""
    return "" if ratio is None else formats.interval(ratio.low, ratio.high)


def signed(text: str) -> str:
    """A conclusion with the sign for "times" at its ratios, and nowhere else: names may end in an x too.

    >>> signed("yolo11x takes 0.52x the CPU time")
    'yolo11x takes 0.52× the CPU time'
    """
    return re.sub(r"(?<!\S)(\d+\.\d\d)x(?= (?:as|the) )", r"\1×", text)


def _common(summary: Summary) -> list[tuple[PointSummary, ...]]:
    """The loads that every target was given and answered under."""
    found = []
    for number in range(len(summary.document.points)):
        there = tuple(one for target in summary.targets if (one := at_point(target, number)) and one.requests)
        if there and len(there) == len(summary.targets):
            found.append(there)
    return found


def _percentile(point: PointSummary, seconds: float | None, least: int) -> str:
    if point.requests < least:
        return f"n={point.requests}" if point.requests else formats.DASH
    return formats.milliseconds(seconds)


def _from(text: str, unit: str) -> str:
    return f"from {text}{unit}"


def _knee(after: TargetSummary, before: TargetSummary | None) -> Fact | None:
    """What each keeps up with; in closed loops alone, the most that each answers."""
    if after.knee is not None and after.knee.rate is not None:
        aside = "" if after.saturated else "the most that was tried"
        if before is not None:
            rate = before.knee.rate if before.knee is not None else None
            aside = _from(f"{rate:g}", "/s") if rate else "the other kept up with none"
            aside = "both" if rate == after.knee.rate else aside
            aside += "" if after.saturated else ", the most that was tried"
        return Fact(label="keeps up with", value=f"{after.knee.rate:g}", unit="/s", aside=aside)
    if after.best is None:
        return None
    aside = _from(formats.digits(before.best.rps), "/s") if before is not None and before.best else ""
    return Fact(label="answers at most", value=formats.digits(after.best.rps), unit="/s", aside=aside)


def _tail(
    after: TargetSummary, before: TargetSummary | None, comparison: Comparison | None, point: int | None
) -> Fact | None:
    there = at_point(after, point)
    if there is None or there.p99_s is None or there.requests < formats.P99_SAMPLES:
        return None
    base = at_point(before, point) if before is not None else None
    ratio = ratio_at(comparison, point)
    aside = ""
    if base is not None:
        aside = _from(formats.milliseconds(base.p99_s), " ms")
        if ratio is not None and ratio.p99 is not None and ratio_text(ratio.p99) in (SAME, UNDECIDED):
            aside = f"{ratio_text(ratio.p99)} {aside}"
    label = f"p99 {'with' if there.mode == 'closed' else 'at'} {there.label}"
    return Fact(label=label, value=formats.milliseconds(there.p99_s), unit="ms", aside=aside)


def _costs(after: TargetSummary, before: TargetSummary | None, point: int | None) -> list[Fact | None]:
    at = at_point(after, point)
    base = at_point(before, point) if before is not None else None
    cpu = (one.server_cpu_per_request_s if one else None for one in (at, base))
    rss = (one.server_rss_bytes if one else None for one in (at, base))
    sizes = (after.target.size_bytes, before.target.size_bytes if before is not None else None)
    return [
        _cost("CPU a request", "ms", formats.milliseconds, *cpu),
        _cost("server's memory", "MB", formats.megabytes, *rss),
        _cost("size of the file", "MB", formats.megabytes, *sizes),
    ]


def _cost(
    label: str, unit: str, text: Callable[[float | None], str], now: float | None, was: float | None
) -> Fact | None:
    if now is None:
        return None
    aside = _from(text(was), f" {unit}") if was is not None else ""
    return Fact(label=label, value=text(now), unit=unit, aside=aside)


def _answers(summary: Summary, after: TargetSummary) -> list[Fact | None]:
    """Agreement was measured between the first target and the last."""
    agreement = summary.document.agreement
    if agreement is None or len(summary.targets) < 2 or after is not summary.targets[-1]:
        return [_accuracy(after, None)]
    aside = f"on {formats.count(agreement.inputs)} inputs"
    if agreement.top1 is not None:
        value = formats.percent(agreement.top1).removesuffix(" %")
        same = Fact(label="same answer", value=value, unit="%", aside=aside)
    elif agreement.relative_error is not None:
        same = Fact(label="relative error", value=formats.error(agreement.relative_error), unit="", aside=aside)
    else:
        return [_accuracy(after, summary.targets[0])]
    return [same, _accuracy(after, summary.targets[0])]


def _accuracy(after: TargetSummary, before: TargetSummary | None) -> Fact | None:
    if after.accuracy is None:
        return None
    was = before.accuracy if before is not None else None
    aside = f"{formats.points(was - after.accuracy)} against {before.target.name}" if before and was is not None else ""
    value = formats.percent(after.accuracy).removesuffix(" %")
    return Fact(label="accuracy", value=value, unit="%", aside=aside)
