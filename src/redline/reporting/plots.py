"""Plots as Vega-Lite specifications; their colours are the page's CSS variables, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

import altair as alt
import vl_convert

from redline.measurement.summary import Row
from redline.reporting import formats

Cost = Literal["latency", "memory", "size"]
Spec = dict[str, Any]

_DOTS = 48
"""Samples drawn per variant: evenly spaced order statistics, the smallest and the largest among them."""

_PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "int8", "fp8", "none")
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
_COSTS = {"latency": "p50 latency, ms", "memory": "peak private memory, MB", "size": "size on disk, MB"}
_HEIGHT_PX, _NAME_PX = 380, 19
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


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


def quality_of(rows: Sequence[Row], settings: Mapping[str, Any]) -> Quality:
    """Accuracy where there are labels, else agreement with the original, else the largest error."""
    if any(row.accuracy_drop is not None for row in rows):
        drop = settings.get("max_accuracy_drop")
        return Quality("accuracy", "accuracy lost, points", None if drop is None else 100 * float(drop))
    if any(row.top1_agreement is not None for row in rows):
        share = settings.get("min_agreement")
        return Quality("agreement", "answers that changed, %", None if share is None else 100 * (1 - float(share)))
    return Quality("error", "largest error", None)


def pareto_spec(rows: Iterable[Row], quality: Quality, *, cost: Cost) -> Spec | None:
    """Cost to the right, loss downwards, so that the best are top left; None with fewer than two points."""
    points = [point for row in rows if (point := _point(row, quality, cost)) is not None]
    if len(points) < 2:
        return None
    costs = [point["x"] for point in points]
    y_scale, y_axis = _loss_scale(points, quality)
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=_COSTS[cost], scale=_cost_scale(costs), axis=_cost_axis(costs)),
        y=alt.Y("y:Q", title=quality.title, scale=y_scale, axis=y_axis),
    )
    front = base.transform_filter("datum.pareto").mark_line(
        interpolate="step-after", stroke="var(--ink-3)", strokeWidth=1.2, strokeDash=[4, 3]
    )
    ring = base.transform_filter("datum.recommended").mark_point(
        size=560, stroke="var(--accent)", strokeWidth=1.5, filled=False, opacity=1
    )
    layers = [*_gate(quality), *_names(base), front.encode(order="x:Q"), ring, *_marks(base, points)]
    return _vega(alt.layer(*layers, data=alt.Data(values=points)).properties(width="container", height=_HEIGHT_PX))


def latency_spec(rows: Iterable[Row]) -> Spec | None:
    """Every variant's samples from the fastest call (bottom of its band) to the slowest (top), on one scale."""
    measured = [row for row in rows if len(row.samples_s) > 1 and min(row.samples_s) > 0]
    if not measured:
        return None
    dots = [dot for row in measured for dot in _dots(row)]
    heads = [_head(row) for row in measured]
    order = [row.variant for row in measured]
    values = [dot["x"] for dot in dots]
    x = alt.X("x:Q", title="latency of one call, ms", scale=_cost_scale(values), axis=_cost_axis(values))
    y = alt.Y("variant:N", sort=order, axis=None, scale=alt.Scale(paddingInner=0.5, paddingOuter=0.3))
    colour = alt.condition("datum.recommended", alt.value("var(--accent)"), alt.value("var(--ink-3)"))
    tooltip = _tooltip("title", "p50", "p90", "p99", "samples")
    base = alt.Chart(alt.Data(values=heads))
    cloud = alt.Chart(alt.Data(values=dots)).mark_circle(size=14, opacity=0.75)
    middle = base.mark_tick(thickness=2, size=26)
    text = base.mark_text(align="left", dy=-24, fontSize=12, fill="var(--ink)")
    number = base.mark_text(align="right", dy=-24, fontSize=12, fill="var(--ink-2)")
    offset = alt.YOffset("rank:Q", scale=alt.Scale(domain=[1, 0]))
    chart = alt.layer(
        cloud.encode(x=x, y=y, yOffset=offset, color=colour, tooltip=_tooltip("title", "call")),
        middle.encode(x=x, y=y, color=colour, tooltip=tooltip),
        text.encode(x=alt.value(2), y=y, text="title:N"),
        number.encode(x=alt.value(alt.expr("width")), y=y, text="p50:N"),
    )
    return _vega(chart.properties(width="container", height=58 * len(measured)))


@cache
def script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that fetches nothing."""
    return vl_convert.javascript_bundle(snippet="window.vegaEmbed = vegaEmbed;")


def _marks(base: alt.Chart, points: list[Spec]) -> list[alt.Chart]:
    present = [name for name in _PRECISIONS if any(point["precision"] == name for point in points)]
    backends = sorted({str(point["backend"]) for point in points})
    colours = alt.Scale(domain=present, range=[f"var(--p-{name})" for name in present])
    shapes = alt.Scale(domain=backends, range=[_SHAPES[number % len(_SHAPES)] for number in range(len(backends))])
    key = alt.Legend(orient="bottom", direction="horizontal", columns=3, title=None)
    dotted = base.encode(
        color=alt.Color("precision:N", scale=colours, legend=key),
        shape=alt.Shape("backend:N", scale=shapes, legend=key),
        tooltip=_tooltip("title", "ran in", "p50", "memory", "size", "answers", "gate"),
    )
    good = dotted.transform_filter("datum.passed").mark_point(size=110, filled=True, opacity=1)
    bad = dotted.transform_filter("!datum.passed").mark_point(
        size=90, filled=False, fill="var(--card)", strokeWidth=1.8, opacity=1
    )
    return [good, bad]


def _names(base: alt.Chart) -> list[alt.Chart]:
    named = base.transform_filter("isValid(datum.label_y)")
    leader = named.mark_rule(stroke="var(--line-2)", strokeWidth=1).encode(y="label_y:Q", y2="y:Q")
    halo: Spec = {"fontSize": 12, "baseline": "middle"}
    texts = []
    for side, offset in (("left", 5), ("right", -5)):
        here = named.transform_filter(f"datum.align == '{side}'")
        for look in ({"stroke": "var(--card)", "strokeWidth": 4}, {"fill": "var(--ink)"}):
            mark = alt.MarkDef(type="text", align=side, dx=offset, **halo, **look)
            texts.append(here.mark_text().encode(y="label_y:Q", text="label:N").properties(mark=mark))
    return [leader, *texts]


def _gate(quality: Quality) -> list[alt.Chart]:
    if quality.gate is None:
        return []
    at = alt.Chart(alt.Data(values=[{"y": quality.gate, "text": "the gate"}])).encode(y="y:Q")
    line = at.mark_rule(stroke="var(--accent)", strokeWidth=1, opacity=0.55)
    name = at.mark_text(align="right", baseline="top", dy=4, fontSize=11, fill="var(--accent-ink)")
    return [line, name.encode(x=alt.value(alt.expr("width")), text="text:N")]


def _point(row: Row, quality: Quality, cost: Cost) -> Spec | None:
    value = {"latency": row.p50_s, "memory": row.private_peak_bytes, "size": row.size_bytes}[cost]
    loss = quality.of(row)
    if not value or loss is None or not math.isfinite(loss) or row.status != "ok" or row.control:
        return None
    return {
        "x": value * 1e3 if cost == "latency" else value / 1e6,
        "y": loss,
        "label": row.title,
        "named": row.recommended or row.verdict == "baseline" or row.pareto,
        "pareto": row.pareto and cost == "latency",
        "passed": row.passed is not False,
        "recommended": row.recommended,
        "backend": row.backend,
        "precision": row.precision,
        "title": row.title,
        "ran in": row.layers_text,
        "memory": f"{formats.megabytes(row.private_peak_bytes)} MB",
        "size": f"{formats.megabytes(row.size_bytes)} MB",
        "p50": f"{formats.milliseconds(row.p50_s)} ms",
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
        "x": (row.p50_s or 0) * 1e3,
        "recommended": row.recommended,
        "p50": f"{formats.milliseconds(row.p50_s)} ms",
        "p90": f"{formats.milliseconds(row.p90_s)} ms",
        "p99": f"{formats.milliseconds(row.p99_s)} ms" if row.samples >= formats.P99_SAMPLES else "not enough samples",
        "samples": formats.count(row.samples),
    }


def _tooltip(*names: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:N", title=name) for name in names]


def _cost_scale(values: Sequence[float]) -> alt.Scale:
    return alt.Scale(type="log", domain=[min(values) / 1.2, max(values) * 1.2], nice=False)


def _cost_axis(values: Sequence[float]) -> alt.Axis:
    """Ticks at 1, 2 and 5 times powers of ten: a logarithmic axis that names only powers of ten says too little."""
    return alt.Axis(values=_round_numbers(min(values) / 1.2, max(values) * 1.2), format="~g", labelOverlap=True)


def _round_numbers(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    numbers = [float(f"{m}e{e}") for e in exponents for m in (1, 2, 5)]
    found = [number for number in numbers if low <= number <= high]
    # Between close values no such number may lie.
    return found if len(found) > 1 else [float(f"{low + (high - low) * part / 5:.3g}") for part in range(1, 5)]


def _loss_scale(points: list[Spec], quality: Quality) -> tuple[alt.Scale, alt.Axis]:
    """The scale of losses, with room above the points for one line of text per name.

    Names stand one below the other, each with a line down to its point: so they cannot cover each other, however
    narrow the page is.
    """
    places = [quality.forward(point["y"]) for point in points]
    best, worst = min(places), max(places)
    if quality.gate is not None:
        worst = max(worst, quality.forward(quality.gate * 1.15))
    worst = max(worst, best + 0.3)
    named = _line_up(points)
    head_px = len(named) * _NAME_PX + 16
    per_px = (worst - best) / (_HEIGHT_PX - head_px - 16)
    for number, point in enumerate(named):
        point["label_y"] = quality.backward(best - (head_px - 8 - number * _NAME_PX) * per_px)
    domain = [quality.backward(best - head_px * per_px), quality.backward(worst + 16 * per_px)]
    low, high = quality.backward(best), quality.backward(worst)
    if quality.kind == "error":
        scale = alt.Scale(type="log", domain=domain, range=[0, _HEIGHT_PX], nice=False)
        ticks = [number for number in _round_numbers(low, high) if f"{number:e}".startswith("1.0")]
    else:
        scale = alt.Scale(type="symlog", constant=quality.knee, domain=domain, range=[0, _HEIGHT_PX], nice=False)
        ticks = [0.0, *_round_numbers(quality.knee / 2, max(high, quality.knee))]
    return scale, alt.Axis(values=ticks, format="~g", labelOverlap=True)


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


def _vega(chart: Any) -> Spec:
    themed = chart.configure(
        background="transparent", font=_FONT, padding={"left": 4, "right": 8, "top": 6, "bottom": 4}
    )
    themed = themed.configure_view(stroke=None).configure_axis(
        domain=False,
        ticks=False,
        grid=True,
        gridColor="var(--line)",
        labelColor="var(--ink-2)",
        titleColor="var(--ink-2)",
        titleFontWeight="normal",
        labelFontSize=12,
        titleFontSize=12,
        labelPadding=8,
        titlePadding=10,
    )
    themed = themed.configure_legend(
        labelColor="var(--ink-2)",
        labelFontSize=12,
        symbolSize=90,
        offset=10,
        symbolFillColor="var(--ink-3)",
        symbolStrokeWidth=0,
    )
    spec = cast("Spec", themed.to_dict())
    # The page brings its own Vega-Lite; a schema of another minor version would only make it warn.
    spec.pop("$schema", None)
    # Side by side, two legends would be wider than a phone.
    spec["config"]["legend"]["layout"] = {"bottom": {"direction": "vertical", "anchor": "start", "margin": 4}}
    return spec
