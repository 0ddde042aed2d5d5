"""The plots of a load test as Vega-Lite specifications: one colour a target in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.loadtesting.summary import PointSummary, Summary
from redline.reporting import formats
from redline.reporting.loadtest_answers import at_point
from redline.reporting.loadtest_table import loads, mode_of, statuses_text
from redline.reporting.vega import RIGHT, Spec, layer, log_axis, log_scale, nominal, plot, quantity, tooltip

_CURVE_PX, _SMALL_PX = 360, 280
_COLOURS = ("var(--p-fp32)", "var(--accent)", "var(--p-bf16)", "var(--p-fp16)", "var(--p-fp8)")
_FEW_TICKS = {"tickCount": 8, "labelOverlap": True}
_TAIL_DASH = [6, 4]
_RESPONSE, _SERVICE = "response", "service"
#: One in how many requests is slower, where the axis of percentiles has its names.
_ONE_IN = {2.0: "50 %", 10.0: "90 %", 100.0: "99 %", 1000.0: "99.9 %", 10_000.0: "99.99 %"}
#: Service times are drawn only where they tell something: where waiting to be sent is this much of a percentile.
_HIDDEN = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a target is drawn in every plot."""

    target: int
    name: str
    colour: str


def looks(summary: Summary) -> tuple[Look, ...]:
    """A colour for each target; the baseline is grey."""
    return tuple(
        Look(target=number, name=one.target.name, colour=colour_of(number))
        for number, one in enumerate(summary.targets)
    )


def colour_of(target: int) -> str:
    """A variable of the page's style; where there are more targets than colours they come again."""
    return _COLOURS[0] if target == 0 else _COLOURS[1 + (target - 1) % (len(_COLOURS) - 1)]


def curve_spec(summary: Summary, mode: str) -> Spec | None:
    """Latency against the rate that was answered, p50 and p99 of each target; None with fewer than two loads."""
    if len(loads(summary, mode)) < 2:
        return None
    points = [
        _curve_point(summary, point, percentile, seconds)
        for target in summary.targets
        for point in target.points
        for percentile, seconds in (("p50", point.p50_s), ("p99", point.p99_s))
        if mode_of(point) == mode and seconds
    ]
    if not points:
        return None
    slo_ms = summary.document.slo_ms
    values = [point["y"] for point in points] + ([slo_ms] if slo_ms else [])
    most = max(point["x"] for point in points)
    x = quantity(
        "x", title="requests answered a second", axis=_FEW_TICKS, scale={"domain": [0, 1.06 * most], "nice": False}
    )
    y = quantity("y", title="response time, ms", axis=_ms_axis(values), scale=log_scale(values))
    colour = nominal("colour", scale=None, legend=None)
    dash = nominal("percentile", scale={"domain": ["p50", "p99"], "range": [[1, 0], _TAIL_DASH]}, legend=None)
    facts = tooltip("title", "load", "answered a second", "p50", "p99", "p99.9", "errors")
    fill = {"condition": {"test": "datum.kept", **colour}, "value": "var(--card)"}
    layers = [
        *_objective(slo_ms),
        layer(
            {"type": "line", "strokeWidth": 1.8},
            {"stroke": colour, "strokeDash": dash, "detail": nominal("title"), "order": quantity("order")},
        ),
        # Under the points, which the outline of the names would hide.
        *_knees(summary, mode, most),
        layer(
            {"type": "point", "size": 58, "opacity": 1, "strokeWidth": 1.8},
            {"stroke": colour, "fill": fill, "tooltip": facts},
        ),
    ]
    return plot(layers, _CURVE_PX, data={"values": points}, encoding={"x": x, "y": y})


def distribution_spec(summary: Summary, number: int) -> Spec | None:
    """Response time from the median to the slowest requests at one load; None where too few were answered."""
    lines = []
    for look in looks(summary):
        response, service = times_of(summary, look.target, number)
        if len(response) < 10:
            continue
        lines += _percentiles(look, _RESPONSE, response)
        if _waited(response, service):
            lines += _percentiles(look, _SERVICE, service)
    if not lines:
        return None
    slo_ms = objective_shown(summary, number)
    values = [line["y"] for line in lines]
    rarest = max(line["x"] for line in lines)
    names = {place: text for place, text in _ONE_IN.items() if place <= 1.2 * rarest}
    texts = ", ".join(f"'{place:g}': '{text}'" for place, text in names.items())
    axis = {"values": list(names), "labelExpr": f"({{{texts}}})[format(datum.value, '.12~g')]"}
    scale = {"type": "log", "domain": [2, 1.2 * rarest], "nice": False}
    x = quantity("x", title="percentile", axis=axis, scale=scale)
    domain = [*values, slo_ms] if slo_ms is not None else values
    y = quantity("y", title="response time, ms", axis=_ms_axis(domain), scale=log_scale(domain))
    colour = nominal("colour", scale=None, legend=None)
    dash = nominal("of", scale={"domain": [_RESPONSE, _SERVICE], "range": [[1, 0], [2, 3]]}, legend=None)
    layers = [
        *_objective(slo_ms),
        layer(
            {"type": "line", "strokeWidth": 1.8, "interpolate": "monotone"},
            {"stroke": colour, "strokeDash": dash, "detail": nominal("line")},
        ),
        layer(
            {"type": "point", "size": 50, "opacity": 1, "filled": True},
            {"color": colour, "tooltip": tooltip("title", "percentile", "time")},
            only="datum.named",
        ),
    ]
    return plot(layers, _SMALL_PX, data={"values": lines}, encoding={"x": x, "y": y})


def offered_spec(summary: Summary, mode: str) -> Spec | None:
    """Answered against offered rate, with the line on which both are the same; None for a closed loop."""
    points: list[Spec] = [
        {
            "x": _short(point.offered_per_s),
            "y": _short(point.rps),
            "kept": point.kept_up,
            "colour": colour_of(point.target),
            "title": target.target.name,
            "load": point.label,
            "offered a second": formats.digits(point.offered_per_s),
            "answered a second": formats.digits(point.rps),
            "errors": statuses_text(point.statuses, point.dropped) or "none",
        }
        for target in summary.targets
        for point in target.points
        if mode_of(point) == mode and point.offered_per_s
    ]
    if mode == "closed" or len({point["x"] for point in points}) < 2:
        return None
    most = 1.06 * max(max(point["x"], point["y"]) for point in points)
    scale = {"domain": [0, most], "nice": False}
    x = quantity("x", title="requests offered a second", axis=_FEW_TICKS, scale=scale)
    y = quantity("y", title="answered a second", scale=scale)
    colour = nominal("colour", scale=None, legend=None)
    fill = {"condition": {"test": "datum.kept", **colour}, "value": "var(--card)"}
    facts = tooltip("title", "load", "offered a second", "answered a second", "errors")
    ends = [{"x": 0, "y": 0}, {"x": most, "y": most}]
    layers = [
        layer({"type": "line", "stroke": "var(--line-2)", "strokeWidth": 1.2, "strokeDash": [4, 3]}, {}, data=ends),
        layer({"type": "line", "strokeWidth": 1.8}, {"stroke": colour, "detail": nominal("title")}),
        layer(
            {"type": "point", "size": 58, "opacity": 1, "strokeWidth": 1.8},
            {"stroke": colour, "fill": fill, "tooltip": facts},
        ),
    ]
    return plot(layers, _SMALL_PX, data={"values": points}, encoding={"x": x, "y": y})


def curve_in_words(summary: Summary, mode: str) -> str:
    """What the plot of a curve shows, for those who cannot see it: each target's lightest and heaviest load."""
    told = []
    for target in summary.targets:
        points = [point for load in loads(summary, mode) if (point := at_point(target, load.point)) and point.p50_s]
        ends = [
            f"{formats.digits(point.rps)} requests a second with p50 {formats.milliseconds(point.p50_s)} ms and p99 "
            f"{formats.milliseconds(point.p99_s)} ms"
            for point in (points[:1] if len(points) < 2 else (points[0], points[-1]))
        ]
        told.append(f"{target.target.name} from {' to '.join(ends)}" if ends else f"{target.target.name} no answers")
    return "; ".join(told)


def distribution_in_words(summary: Summary, number: int) -> str:
    """The percentiles of one load."""
    points = [(target.target.name, at_point(target, number)) for target in summary.targets]
    return "; ".join(
        f"{name} p50 {formats.milliseconds(point.p50_s)} ms, p90 {formats.milliseconds(point.p90_s)} ms, "
        f"p99 {formats.milliseconds(point.p99_s)} ms"
        for name, point in points
        if point is not None and point.requests
    )


def times_of(summary: Summary, target: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Response and service times of a target under one load, all windows together."""
    windows = [window for window in summary.document.points[number].windows if window.target == target]
    response = [seconds for window in windows for seconds in window.response_s]
    service = [seconds for window in windows for seconds in window.service_s]
    return np.asarray(response, dtype=np.float64), np.asarray(service, dtype=np.float64)


def objective_shown(summary: Summary, number: int) -> float | None:
    """The objective in milliseconds where it is near enough to a load's times to be drawn with them."""
    slo_ms = summary.document.slo_ms
    if slo_ms is None:
        return None
    points = [point for target in summary.targets if (point := at_point(target, number)) and point.p50_s]
    return (
        slo_ms if any((point.p50_s or 0.0) / 3 < slo_ms / 1e3 < 3 * (point.max_s or 0.0) for point in points) else None
    )


def service_shown(summary: Summary, number: int) -> bool:
    """Whether the plot of percentiles has lines of service time."""
    return any(_waited(*times_of(summary, look.target, number)) for look in looks(summary))


def _curve_point(summary: Summary, point: PointSummary, percentile: str, seconds: float) -> Spec:
    name = summary.targets[point.target].target.name
    return {
        "x": _short(point.rps),
        "y": _short(1e3 * seconds),
        "order": point.rate or point.users or 0,
        "percentile": percentile,
        "kept": point.kept_up or point.mode == "closed",
        "colour": colour_of(point.target),
        "title": f"{name}, {percentile}",
        "load": point.label,
        "answered a second": formats.digits(point.rps),
        "p50": f"{formats.milliseconds(point.p50_s)} ms",
        "p99": f"{formats.milliseconds(point.p99_s)} ms",
        "p99.9": f"{formats.milliseconds(point.p999_s)} ms",
        "errors": statuses_text(point.statuses, point.dropped) or "none",
    }


def _knees(summary: Summary, mode: str, most: float) -> list[Spec]:
    """A ring around the p99 of the highest load of this curve that each target kept up with, and its name."""
    data = []
    for target in summary.targets:
        knee = knee_of(summary, target.points, mode)
        if knee is None or not knee.p99_s:
            continue
        data.append(
            {
                "x": _short(knee.rps),
                "y": _short(1e3 * knee.p99_s),
                "colour": colour_of(knee.target),
                "text": f"knee {knee.label}",
                "left": knee.rps > most / 2,
            }
        )
    if not data:
        return []
    colour = nominal("colour", scale=None, legend=None)
    ring = {"type": "point", "size": 330, "strokeWidth": 1.6, "filled": False, "opacity": 1}
    text = {"type": "text", "fontSize": 12, "fontWeight": 600, "dy": -20}
    # First as an outline in the page's colour, so that a curve behind the words does not strike them through.
    outlined = ({"stroke": "var(--card)", "strokeWidth": 4, "strokeJoin": "round"}, {"fill": "var(--ink)"})
    sides = (({"align": "right", "dx": 10}, "datum.left"), ({"align": "left", "dx": -10}, "!datum.left"))
    return [
        layer(ring, {"stroke": colour}, data=data),
        *(
            layer({**text, **paint, **side}, {"text": nominal("text")}, data=data, only=only)
            for side, only in sides
            for paint in outlined
        ),
    ]


def knee_of(summary: Summary, points: Sequence[PointSummary], mode: str) -> PointSummary | None:
    """The knee of one curve.

    The summary names one knee a target, over all its loads; a curve of other arrivals has one of its own: the highest
    rate that was kept up with. A closed loop shares the summary's, and has none where that lies on another curve.
    """
    there = [point for point in points if mode_of(point) == mode]
    if mode != "closed":
        return max((point for point in there if point.kept_up), key=lambda point: point.rate or 0.0, default=None)
    knee = summary.targets[there[0].target].knee if there else None
    return knee if knee is not None and mode_of(knee) == mode else None


def _objective(slo_ms: float | None) -> list[Spec]:
    """A line across the plot; its name is in the key, for there is no place that no curve may cross."""
    if not slo_ms:
        return []
    rule = {"type": "rule", "stroke": "var(--warn)", "strokeWidth": 1.4, "strokeDash": [2, 3]}
    return [layer(rule, {"x": {"value": 0}, "x2": RIGHT, "y": quantity("y")}, data=[{"y": slo_ms}])]


def _percentiles(look: Look, of: str, times_s: np.ndarray) -> list[Spec]:
    """A line of percentiles, evenly spaced in how rare they are, as far as there are requests for them."""
    rarest = float(len(times_s))
    places = np.unique([*np.geomspace(2.0, rarest, 36), *(place for place in _ONE_IN if place <= rarest)])
    values = np.percentile(times_s, 100 * (1 - 1 / places))
    title = f"{look.name}{', from the actual sending' if of == _SERVICE else ''}"
    return [
        {
            "x": float(f"{place:.6g}"),
            "y": _short(1e3 * float(value)),
            "of": of,
            "line": f"{look.target} {of}",
            "colour": look.colour,
            "named": float(place) in _ONE_IN and of == _RESPONSE,
            "title": title,
            "percentile": _ONE_IN.get(float(place), ""),
            "time": f"{formats.milliseconds(float(value))} ms",
        }
        for place, value in zip(places, values, strict=True)
    ]


def _waited(response_s: np.ndarray, service_s: np.ndarray) -> bool:
    """Whether waiting to be sent is a visible part of the slow requests' time."""
    if not len(response_s) or len(response_s) != len(service_s):
        return False
    response, service = (np.percentile(times, (50, 90, 99)) for times in (response_s, service_s))
    return bool(np.any(response - service > _HIDDEN * response))


def _ms_axis(values: Sequence[float]) -> Spec:
    return {**log_axis(values), "format": ",.9~g"}


def _short(value: float | None) -> float:
    return float(f"{value or 0.0:.5g}")
