"""The plots of a grid as Vega-Lite specifications: time against batch and image size, one line a variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redline.reporting import formats
from redline.reporting.table import compared_text
from redline.reporting.vega import (
    PRECISIONS,
    SHAPES,
    Spec,
    layer,
    log_axis,
    log_scale,
    nominal,
    plot,
    quantity,
    tooltip,
)
from redline.study.rows import Row

_HEIGHT_PX = 300
_DASHES: tuple[tuple[int, ...], ...] = ((), (7, 3), (2, 3), (9, 3, 2, 3), (4, 2), (1, 2))
#: Outlines of Vega's shapes in a box of 14 by 14, for the key beside the plots.
_OUTLINES = {
    "circle": "M7 2.5a4.5 4.5 0 1 0 .01 0z",
    "square": "M3 3h8v8H3z",
    "triangle-up": "M7 2.2 12 11H2z",
    "diamond": "M7 1.6 11.4 7 7 12.4 2.6 7z",
    "cross": "M5.4 2.4h3.2v3h3v3.2h-3v3H5.4v-3h-3V5.4h3z",
    "triangle-down": "M7 11.8 12 3H2z",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a variant is drawn in every plot: colour by precision, shape and dashes by backend."""

    variant: str
    title: str
    precision: str
    backend: str
    shape: str
    dash: tuple[int, ...]
    hollow: bool

    @property
    def colour(self) -> str:
        """A variable of the page's style."""
        return f"var(--p-{self.precision if self.precision in PRECISIONS else 'none'})"

    @property
    def outline(self) -> str:
        """The path of its shape in a box of 14 by 14."""
        return _OUTLINES[self.shape]


def looks(rows: Sequence[Row]) -> dict[str, Look]:
    """A look for each variant that was measured; two that share precision and backend differ in the shape's filling."""
    first = {row.variant: row for row in reversed(rows) if row.time_s is not None}
    order = [name for name in dict.fromkeys(row.variant for row in rows) if name in first]
    backends = list(dict.fromkeys(first[name].backend for name in order))
    used: dict[tuple[str, str], int] = {}
    found = {}
    for name in order:
        row = first[name]
        place, twins = backends.index(row.backend), used.get((row.precision, row.backend), 0)
        used[row.precision, row.backend] = twins + 1
        found[name] = Look(
            variant=name,
            title=row.title,
            precision=row.precision,
            backend=row.backend,
            shape=SHAPES[(place + twins // 2) % len(SHAPES)],
            dash=_DASHES[(place + twins // 2) % len(_DASHES)],
            hollow=twins % 2 == 1,
        )
    return found


def batch_spec(rows: Sequence[Row], drawn: Mapping[str, Look], *, show: Literal["time", "throughput"]) -> Spec | None:
    """Time or throughput against the batch, both axes logarithmic; None with fewer than two batches."""
    value: Callable[[Row], float | None]
    if show == "time":
        value, title = (lambda row: _ms(row.time_s)), "time of a call, ms"
    else:
        value, title = (lambda row: row.throughput_per_s), "images a second"
    batches = sorted({row.batch for row in rows if value(row)})
    ticks = {float(batch): str(batch) for batch in batches}
    return _lines(rows, drawn, at=lambda row: float(row.batch), value=value, ticks=ticks, titles=("batch", title))


def size_spec(rows: Sequence[Row], drawn: Mapping[str, Look]) -> Spec | None:
    """Time against the pixels of an image, both axes logarithmic; None with fewer than two sizes."""
    square = all(row.height == row.width for row in rows)
    ticks = {
        float(row.height * row.width): str(row.height) if square else f"{row.height}×{row.width}"
        for row in sorted(rows, key=lambda row: row.height * row.width)
        if row.time_s
    }
    side = "side of the image, pixels" if square else "image size, pixels"
    return _lines(
        rows,
        drawn,
        at=lambda row: float(row.height * row.width),
        value=lambda row: _ms(row.time_s),
        ticks=ticks,
        titles=(side, "time of a call, ms"),
    )


def lines_in_words(rows: Sequence[Row], *, over: str, at: Callable[[Row], float]) -> str:
    """What a plot of lines shows, for those who cannot see it: its ends and who is fastest there."""
    measured = [row for row in rows if row.time_s]
    if not measured:
        return ""
    ends = sorted({at(row) for row in measured})
    told = []
    for end in dict.fromkeys((ends[0], ends[-1])):
        there = sorted((row for row in measured if at(row) == end), key=lambda row: row.time_s or 0.0)
        where = f"batch {there[0].batch}" if over == "batch" else there[0].size
        told.append(
            f"at {where} from {formats.milliseconds(there[0].time_s)} ms ({there[0].title}) "
            f"to {formats.milliseconds(there[-1].time_s)} ms ({there[-1].title})"
        )
    return "; ".join(told)


def _lines(
    rows: Sequence[Row],
    drawn: Mapping[str, Look],
    *,
    at: Callable[[Row], float],
    value: Callable[[Row], float | None],
    ticks: Mapping[float, str],
    titles: tuple[str, str],
) -> Spec | None:
    if len(ticks) < 2:
        return None
    points = [_point(row, at(row), float(value(row) or 0.0)) for row in rows if value(row) and row.variant in drawn]
    there = [look for name, look in drawn.items() if any(point["variant"] == name for point in points)]
    texts = ", ".join(f"'{place:g}': '{text}'" for place, text in ticks.items())
    axis = {"values": list(ticks), "labelExpr": f"({{{texts}}})[format(datum.value, '.12~g')]", "labelOverlap": True}
    x = quantity("x", title=titles[0], axis=axis, scale=log_scale(list(ticks)))
    values = [point["y"] for point in points]
    y = quantity("y", title=titles[1], axis={**log_axis(values), "format": ",.9~g"}, scale=log_scale(values))
    names = [look.variant for look in there]

    def by_variant(choices: list[Any]) -> Spec:
        return nominal("variant", scale={"domain": names, "range": choices}, legend=None)

    colour = by_variant([look.colour for look in there])
    fill = by_variant(["var(--card)" if look.hollow else look.colour for look in there])
    facts = tooltip("title", "ran in", "batch", "size", "time", "images a second", "speed-up")
    dashes = by_variant([list(look.dash) or [1, 0] for look in there])
    shapes = by_variant([look.shape for look in there])
    layers = [
        layer({"type": "line", "strokeWidth": 1.8}, {"color": colour, "strokeDash": dashes}),
        layer(
            {"type": "point", "size": 70, "opacity": 1, "strokeWidth": 1.8},
            {"stroke": colour, "fill": fill, "shape": shapes, "tooltip": facts},
        ),
    ]
    return plot(layers, _HEIGHT_PX, data={"values": points}, encoding={"x": x, "y": y})


def _point(row: Row, x: float, y: float) -> Spec:
    return {
        "x": x,
        "y": float(f"{y:.5g}"),
        "variant": row.variant,
        "title": row.title,
        "ran in": row.layers_text,
        "batch": str(row.batch),
        "size": f"{row.height}×{row.width}",
        "time": f"{formats.milliseconds(row.time_s)} ms",
        "images a second": formats.digits(row.throughput_per_s),
        "speed-up": compared_text(row),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds
