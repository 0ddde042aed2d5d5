"""What speed costs, and every call: the plots of a tune as Vega-Lite specifications."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from redline.reporting import formats
from redline.reporting.vega import (
    PRECISIONS,
    RIGHT,
    SHAPES,
    Spec,
    layer,
    log_axis,
    log_scale,
    nominal,
    plot,
    quantity,
    round_numbers,
    tooltip,
)
from redline.study.config import StudyConfig
from redline.study.rows import Row

Cost = Literal["latency", "memory", "size"]

_DOTS = 48
"""Samples drawn per variant: evenly spaced order statistics, the smallest and the largest among them."""

_COSTS = {"latency": "p50 latency, ms", "memory": "peak private memory, MB", "size": "size on disk, MB"}
_BODY_PX, _NAME_PX = 270, 19


@dataclass(frozen=True, slots=True)
class Quality:
    """What the Pareto plot shows downwards: how much of the original's answers is lost."""

    kind: Literal["accuracy", "agreement", "error"]
    title: str
    gate: float | None

    def of(self, row: Row) -> float | None:
        """The loss of one row in the plot's unit, or None where it was not measured."""
        match self.kind:
            case "accuracy":
                return None if row.accuracy_drop is None else 100 * row.accuracy_drop
            case "agreement":
                return None if row.top1_agreement is None else 100 * (1 - row.top1_agreement)
            case "error":
                return None if row.max_abs is None else max(row.max_abs, 1e-9)

    @property
    def knee(self) -> float:
        """Below this loss the scale is linear, above it logarithmic."""
        return self.gate / 2 if self.gate else 0.5

    def forward(self, loss: float) -> float:
        """Where a loss is on the scale; the same formula as Vega's ``symlog`` and ``log``."""
        if self.kind == "error":
            return math.log(loss)
        return math.copysign(math.log1p(abs(loss) / self.knee), loss)

    def backward(self, place: float) -> float:
        """The inverse of :meth:`forward`."""
        if self.kind == "error":
            return math.exp(place)
        return math.copysign(self.knee * math.expm1(abs(place)), place)


def quality_of(rows: Sequence[Row], settings: StudyConfig) -> Quality:
    """Accuracy where there are labels, else agreement with the original, else the largest error."""
    if any(row.accuracy_drop is not None for row in rows):
        return Quality("accuracy", "accuracy lost, points", 100 * settings.max_accuracy_drop)
    if any(row.top1_agreement is not None for row in rows):
        return Quality("agreement", "answers that changed, %", 100 * (1 - settings.min_agreement))
    return Quality("error", "largest error", None)


def pareto_spec(rows: Iterable[Row], quality: Quality, *, cost: Cost) -> Spec | None:
    """Cost to the right, loss downwards, so that the best are top left; None with fewer than two points."""
    points = [point for row in rows if (point := _point(row, quality, cost)) is not None]
    if len(points) < 2:
        return None
    costs = [point["x"] for point in points]
    height_px = _BODY_PX + _head_px(points)
    x = quantity("x", title=_COSTS[cost], scale=log_scale(costs), axis=log_axis(costs))
    y = quantity("y", title=quality.title, **_loss_scale(points, quality, height_px))
    front = {"type": "line", "interpolate": "step-after", "stroke": "var(--ink-3)", "strokeWidth": 1.2}
    ring = {"type": "point", "size": 560, "stroke": "var(--accent)", "strokeWidth": 1.5, "filled": False, "opacity": 1}
    layers = [
        *_gate(quality),
        *_names(),
        layer({**front, "strokeDash": [4, 3]}, {"order": quantity("x")}, only="datum.pareto"),
        layer(ring, {}, only="datum.recommended"),
        *_marks(points),
    ]
    return plot(layers, height_px, data={"values": points}, encoding={"x": x, "y": y})


def latency_spec(rows: Iterable[Row]) -> Spec | None:
    """Every variant's samples from the fastest call (bottom of its band) to the slowest (top), on one scale."""
    measured = [row for row in rows if row.calls > 1 and min(row.samples_s) > 0]
    if not measured:
        return None
    dots, heads = [dot for row in measured for dot in _dots(row)], [_head(row) for row in measured]
    values = [dot["x"] for dot in dots]
    x = quantity("x", title="latency of one call, ms", scale=log_scale(values), axis=log_axis(values))
    order = [row.variant for row in measured]
    y = nominal("variant", sort=order, axis=None, scale={"paddingInner": 0.5, "paddingOuter": 0.3})
    colour = {"condition": {"test": "datum.recommended", "value": "var(--accent)"}, "value": "var(--ink-3)"}
    offset = quantity("rank", scale={"domain": [1, 0]})
    name = {"type": "text", "dy": -24, "fontSize": 12}
    facts = tooltip("title", "p50", "p90", "p99", "samples")
    layers = [
        layer(
            {"type": "circle", "size": 14, "opacity": 0.75},
            {"x": x, "yOffset": offset, "color": colour, "tooltip": tooltip("title", "call")},
            data=dots,
        ),
        layer({"type": "tick", "thickness": 2, "size": 26}, {"x": x, "color": colour, "tooltip": facts}),
        layer({**name, "align": "left", "fill": "var(--ink)"}, {"x": {"value": 2}, "text": nominal("title")}),
        layer({**name, "align": "right", "fill": "var(--ink-2)"}, {"x": RIGHT, "text": nominal("p50")}),
    ]
    return plot(layers, 58 * len(measured), data={"values": heads}, encoding={"y": y})


def _marks(points: list[Spec]) -> list[Spec]:
    present = [name for name in PRECISIONS if any(point["precision"] == name for point in points)]
    backends = sorted({str(point["backend"]) for point in points})
    colours = {"domain": present, "range": [f"var(--p-{name})" for name in present]}
    shapes = {"domain": backends, "range": [SHAPES[number % len(SHAPES)] for number in range(len(backends))]}
    legend = {"orient": "bottom", "direction": "horizontal", "columns": 3, "title": None}
    encoding = {
        "color": nominal("precision", scale=colours, legend=legend),
        "shape": nominal("backend", scale=shapes, legend=legend),
        "tooltip": tooltip("title", "ran in", "p50", "memory", "size", "answers", "gate"),
    }
    good = {"type": "point", "size": 110, "filled": True, "opacity": 1}
    bad = {"type": "point", "size": 90, "filled": False, "fill": "var(--card)", "strokeWidth": 1.8, "opacity": 1}
    return [layer(good, encoding, only="datum.passed"), layer(bad, encoding, only="!datum.passed")]


def _names() -> list[Spec]:
    at = quantity("label_y")
    line = {"type": "rule", "stroke": "var(--line-2)", "strokeWidth": 1}
    layers = [layer(line, {"y": at, "y2": {"field": "y"}}, only="isValid(datum.label_y)")]
    for side, offset in (("left", 5), ("right", -5)):
        mark = {"type": "text", "align": side, "dx": offset, "fontSize": 12, "baseline": "middle"}
        for look in ({"stroke": "var(--card)", "strokeWidth": 4}, {"fill": "var(--ink)"}):
            encoding = {"y": at, "text": nominal("title")}
            layers.append(layer({**mark, **look}, encoding, only=f"datum.align == '{side}'"))
    return layers


def _gate(quality: Quality) -> list[Spec]:
    if quality.gate is None:
        return []
    data, y = [{"y": quality.gate, "text": "the gate"}], quantity("y")
    line = {"type": "rule", "stroke": "var(--accent)", "strokeWidth": 1, "opacity": 0.55}
    name = {"type": "text", "align": "right", "baseline": "top", "dy": 4, "fontSize": 11, "fill": "var(--accent-ink)"}
    return [
        layer(line, {"x": None, "y": y}, data=data),
        layer(name, {"x": RIGHT, "y": y, "text": nominal("text")}, data=data),
    ]


def _point(row: Row, quality: Quality, cost: Cost) -> Spec | None:
    value = {"latency": row.time_s, "memory": row.host_bytes, "size": row.size_bytes}[cost]
    loss = quality.of(row)
    if not value or loss is None or not math.isfinite(loss) or row.time_s is None or row.control:
        return None
    return {
        "x": value * 1e3 if cost == "latency" else value / 1e6,
        "y": loss,
        "named": row.recommended or row.is_baseline or row.pareto,
        "pareto": row.pareto and cost == "latency",
        "passed": row.passed is not False,
        "recommended": row.recommended,
        "backend": row.backend,
        "precision": row.precision,
        "title": row.title,
        "ran in": row.layers_text,
        "memory": f"{formats.megabytes(row.host_bytes)} MB",
        "size": f"{formats.megabytes(row.size_bytes)} MB",
        "p50": f"{formats.milliseconds(row.time_s)} ms",
        "answers": _quality_text(row, quality),
        "gate": formats.gate(row),
    }


def _quality_text(row: Row, quality: Quality) -> str:
    match quality.kind:
        case "accuracy":
            return f"{formats.percent(row.accuracy)} accurate, {formats.points(row.accuracy_drop)}"
        case "agreement":
            return f"{formats.percent(row.top1_agreement)} same top-1"
        case "error":
            return f"largest error {formats.error(row.max_abs)}"


def _dots(row: Row) -> list[Spec]:
    ordered = sorted(row.samples_s)
    last = len(ordered) - 1
    picks = sorted({round(number * last / (_DOTS - 1)) for number in range(_DOTS)})
    return [
        {
            "variant": row.variant,
            "title": row.title,
            "recommended": row.recommended,
            "x": float(f"{ordered[pick] * 1e3:.5g}"),
            "rank": round(pick / last, 4),
            "call": f"{formats.milliseconds(ordered[pick])} ms, slower than {formats.percent(pick / last, 0)}",
        }
        for pick in picks
    ]


def _head(row: Row) -> Spec:
    return {
        "variant": row.variant,
        "title": row.title,
        "x": (row.time_s or 0) * 1e3,
        "recommended": row.recommended,
        "p50": f"{formats.milliseconds(row.time_s)} ms",
        "p90": f"{formats.milliseconds(row.p90_s)} ms",
        "p99": f"{formats.milliseconds(row.p99_s)} ms" if row.calls >= formats.P99_SAMPLES else "not enough samples",
        "samples": formats.count(row.calls),
    }


def _loss_scale(points: list[Spec], quality: Quality, height_px: int) -> Spec:
    """The scale and axis of losses, with room above the points for one line of text per name.

    Names stand one below the other, each with a line down to its point: so they cannot cover each other, however
    narrow the page is.
    """
    places = [quality.forward(point["y"]) for point in points]
    best, worst = min(places), max(places)
    if quality.gate is not None:
        worst = max(worst, quality.forward(quality.gate * 1.15))
    worst = max(worst, best + 0.3)
    head_px = _head_px(points)
    per_px = (worst - best) / (height_px - head_px - 16)
    for number, point in enumerate(_line_up(points)):
        point["label_y"] = quality.backward(best - (head_px - 8 - number * _NAME_PX) * per_px)
    domain = [quality.backward(best - head_px * per_px), quality.backward(worst + 16 * per_px)]
    scale: Spec = {"domain": domain, "range": [0, height_px], "nice": False}
    low, high = quality.backward(best), quality.backward(worst)
    if quality.kind == "error":
        ticks = [number for number in round_numbers(low, high) if f"{number:e}".startswith("1.0")]
        scale |= {"type": "log"}
    else:
        ticks = [0.0, *round_numbers(quality.knee / 2, max(high, quality.knee))]
        scale |= {"type": "symlog", "constant": quality.knee}
    # As in the table: 1e-6, not 0.000001.
    form = "~e" if quality.kind == "error" else "~g"
    return {"scale": scale, "axis": {"values": ticks, "format": form, "labelOverlap": True}}


def _head_px(points: list[Spec]) -> int:
    return 16 + _NAME_PX * sum(1 for point in points if point["named"])


def _line_up(points: list[Spec]) -> list[Spec]:
    """The points to name, in the order of their lines: from either side the outermost is the highest."""
    named = sorted((point for point in points if point["named"]), key=lambda point: point["x"])
    costs = [point["x"] for point in points]
    middle = math.sqrt(min(costs) * max(costs))
    left = [point for point in named if point["x"] <= middle]
    right = [point for point in reversed(named) if point["x"] > middle]
    for point in named:
        point["align"] = "left" if point["x"] <= middle else "right"
    return [*left, *right]
