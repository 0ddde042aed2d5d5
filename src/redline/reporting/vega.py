"""The words of a Vega-Lite specification: layers, scales, axes and the theme that every plot shares.

Plain JSON values as in https://vega.github.io/vega-lite/docs/: no plotting library is needed to say them. Colours are
the page's CSS variables, so they follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Spec = dict[str, Any]

RIGHT: Spec = {"value": {"expr": "width"}}
PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "int8", "fp8", "none")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
THEME: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
    "padding": {"left": 4, "right": 8, "top": 6, "bottom": 4},
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "ticks": False,
        "grid": True,
        "gridColor": "var(--line)",
        "labelColor": "var(--ink-2)",
        "titleColor": "var(--ink-2)",
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelPadding": 8,
        "titlePadding": 10,
    },
    "legend": {
        "labelColor": "var(--ink-2)",
        "labelFontSize": 12,
        "symbolSize": 90,
        "symbolFillColor": "var(--ink-3)",
        "symbolStrokeWidth": 0,
        "offset": 10,
        # Side by side, two legends would be wider than a phone.
        "layout": {"bottom": {"direction": "vertical", "anchor": "start", "margin": 4}},
    },
}


def layer(mark: Spec, encoding: Spec, *, data: list[Spec] | None = None, only: str | None = None) -> Spec:
    """One mark of a plot; ``only`` is an expression that picks its points."""
    spec: Spec = {"mark": mark, "encoding": encoding}
    if data is not None:
        spec["data"] = {"values": data}
    if only is not None:
        spec["transform"] = [{"filter": only}]
    return spec


def plot(layers: list[Spec], height_px: int, *, data: Spec, encoding: Spec) -> Spec:
    """A plot as wide as its box."""
    shape = {"width": "container", "height": height_px, "autosize": {"type": "fit-x", "contains": "padding"}}
    return {**shape, "config": THEME, "data": data, "encoding": encoding, "layer": layers}


def quantity(name: str, **options: Any) -> Spec:
    """A field of numbers."""
    return {"field": name, "type": "quantitative", **options}


def nominal(name: str, **options: Any) -> Spec:
    """A field of words."""
    return {"field": name, "type": "nominal", **options}


def tooltip(*names: str) -> list[Spec]:
    """What is told of a mark under the pointer, ``title`` as its heading."""
    return [nominal(name, title=name) for name in names]


def log_scale(values: Sequence[float]) -> Spec:
    """A logarithmic scale with a little room at both ends."""
    return {"type": "log", "domain": [min(values) / 1.2, max(values) * 1.2], "nice": False}


def log_axis(values: Sequence[float]) -> Spec:
    """Ticks at 1, 2 and 5 times powers of ten: a logarithmic axis that names only powers of ten says too little."""
    return {"values": round_numbers(min(values) / 1.2, max(values) * 1.2), "format": "~g", "labelOverlap": True}


def round_numbers(low: float, high: float) -> list[float]:
    """Numbers to put at an axis from ``low`` to ``high``."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    numbers = [float(f"{m}e{e}") for e in exponents for m in (1, 2, 5)]
    found = [number for number in numbers if low <= number <= high]
    # Between close values no such number may lie.
    return found if len(found) > 1 else [float(f"{low + (high - low) * part / 5:.3g}") for part in range(1, 5)]
