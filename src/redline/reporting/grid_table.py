"""The table of a grid: every cell as a line, with every number already in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redline.grid.rows import GridRow, GridStudy
from redline.reporting import formats
from redline.reporting.grid_conditions import model_of

_STAGES = {
    "build": "while building",
    "open": "while opening",
    "warm up": "while warming up",
    "measure": "while measuring",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCells:
    """One line of the table as text; what was not measured is a dash.

    Attributes:
        begins: True for the first line of a batch, device and loader.
        share: How many layers ran in the precision found, where it is not all of them.
        memory_mb: The device's on ``cuda``, else the host's.
        flags: What a reader should know before using the numbers.
    """

    row: GridRow
    begins: bool
    asked: str
    found: str
    share: str
    shape: str
    median_ms: str
    p90_ms: str
    host_ms: str
    loader_ms: str
    throughput: str
    memory_mb: str
    speedup: str
    interval: str
    agreement: str
    reason: str
    flags: tuple[str, ...]


def grid_lines(study: GridStudy, model: str, size: str) -> tuple[GridCells, ...]:
    """The table of one model at one image size, in the order of the grid."""
    channels = _channels(study, model)
    lines: list[GridCells] = []
    before: tuple[object, ...] | None = None
    for row in study.at(model=model, size=size):
        point = (row.batch, row.device, row.loader)
        lines.append(_line(row, channels, begins=point != before))
        before = point
    return tuple(lines)


def shape_of(study: GridStudy, row: GridRow) -> str:
    """The shape of a call's input in words."""
    return _shape(row, _channels(study, row.model))


def titles(study: GridStudy) -> Mapping[tuple[str, str], str]:
    """The title of each variant by its name and device."""
    return {(row.variant, row.device): row.title for row in study.rows}


def tally(rows: Iterable[GridRow]) -> str:
    """How many cells came out how.

    >>> tally([])
    'no cells'
    """
    outcomes = [row.outcome for row in rows]
    parts = [f"{formats.count(n)} {name}" for name in ("measured", "failed", "skipped") if (n := outcomes.count(name))]
    return ", ".join(parts) or "no cells"


def why_not(row: GridRow) -> str:
    """Why a cell has no numbers, in words; nothing for one that was measured."""
    if row.outcome == "measured":
        return ""
    stage = _STAGES.get(row.stage or "", f"at {row.stage}" if row.stage else "")
    return f"{row.outcome}{f' {stage}' if stage else ''}: {row.reason or 'no reason was recorded'}"


def speedup_text(row: GridRow) -> str:
    """The speed-up where it is a claim, in words where it is none.

    >>> from types import SimpleNamespace as row
    >>> speedup_text(row(verdict="faster", speedup=2.5)), speedup_text(row(verdict="no difference", speedup=1.01))
    ('2.50×', 'no difference')
    """
    return formats.times(row.speedup) if row.verdict in ("faster", "slower") else formats.verdict(row)


def values_of(row: GridRow) -> dict[str, Any]:
    """A row's values by name, for machines; the raw samples stay in the results file."""
    names = [name for name in GridRow.__dataclass_fields__ if name != "windows_s"]
    return {**{name: getattr(row, name) for name in names}, "size": row.size, "fell_back": row.fell_back}


def for_machines(study: GridStudy) -> dict[str, Any]:
    """The whole study as one JSON value, without its raw samples."""
    return {
        "rows": [values_of(row) for row in study.rows],
        "anomalies": [_fields(anomaly) for anomaly in study.anomalies],
        "conclusions": {
            "sentences": [_fields(finding) for finding in study.conclusions.sentences],
            "fits": [_fields(fit) for fit in study.conclusions.fits],
            "recommendations": [_fields(item) for item in study.conclusions.recommendations],
        },
        "warnings": list(study.warnings),
    }


def _line(row: GridRow, channels: _Channels, *, begins: bool) -> GridCells:
    memory = row.device_bytes if row.device == "cuda" else row.host_bytes
    measured = row.outcome == "measured"
    return GridCells(
        row=row,
        begins=begins,
        asked=row.requested or formats.DASH,
        found=row.precision if measured and row.precision != "none" else formats.DASH,
        share=row.layers_text.removeprefix(row.precision).strip(" ()") if measured else "",
        shape=_shape(row, channels),
        median_ms=formats.milliseconds(row.time_s),
        p90_ms=formats.milliseconds(row.p90_s),
        host_ms=formats.milliseconds(row.latency_s) if row.clock == "device" else "",
        loader_ms=formats.milliseconds(row.pipeline_s),
        throughput=formats.digits(row.throughput_per_s),
        memory_mb=formats.megabytes(memory),
        speedup=speedup_text(row),
        interval=formats.interval(row.speedup_low, row.speedup_high) if row.verdict != "baseline" else "",
        agreement=formats.percent(row.top1_agreement),
        reason=why_not(row),
        flags=_flags(row) if measured else (),
    )


def _flags(row: GridRow) -> tuple[str, ...]:
    told = [
        "not as asked" if row.fell_back else None,
        row.elsewhere,
        "never settled" if row.stable is False else None,
        f"throttled: {', '.join(row.throttled).replace('_', ' ')}" if row.throttled else None,
        "answers are not finite" if row.finite is False else None,
        "timed host to host" if row.device == "cuda" and row.time_s is not None and row.clock == "host" else None,
    ]
    return tuple(text for text in told if text)


_Channels = tuple[int, bool] | None
"""How many channels an input has, and whether they come last; None where that was not recorded."""


def _channels(study: GridStudy, name: str) -> _Channels:
    model = model_of(study, name)
    preprocess = model.get("preprocess") or {}
    if preprocess:
        return 1 if preprocess.get("color") == "gray" else 3, preprocess.get("layout") == "nhwc"
    shapes: Sequence[Any] = [spec["shape"] for spec in model.get("inputs") or () if len(spec["shape"]) == 4]
    return (int(shapes[0][1]), False) if shapes and isinstance(shapes[0][1], int) else None


def _shape(row: GridRow, channels: _Channels) -> str:
    pixels = (str(row.height), str(row.width))
    if channels is None:
        return "×".join((str(row.batch), *pixels))
    count, last = channels
    return "×".join((str(row.batch), *pixels, str(count)) if last else (str(row.batch), str(count), *pixels))


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}
