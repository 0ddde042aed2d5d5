"""What of a grid is drawn without a plotting library: bars for one point, and the heat map of speed-ups."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redline.findings.claims import claim_of, ratio_text, speed_text
from redline.reporting import formats
from redline.reporting.page import Bar
from redline.reporting.table import compared_text, why_not
from redline.study.rows import Row, Study

_STEPS = (1.25, 1.6, 2.2, 3.2, 5.0)
"""Speed-ups at which the heat map takes the next stronger colour."""
_WITH_LOADER = "loader working ahead"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartBar:
    """A bar of which a part is named apart; both lengths are from 0 to 100."""

    title: str
    percent: float
    part_percent: float
    value: str
    aside: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderBars:
    """What a variant does alone, with its loader working ahead, and with the loader's work in line."""

    title: str
    bars: tuple[Bar, ...]
    aside: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatCell:
    """One cell of the heat map: a word for its colour, and its text, which says the same."""

    look: str
    text: str
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatLine:
    """One variant of the heat map."""

    title: str
    cells: tuple[HeatCell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """Variants downwards; image sizes, and in each of them batches, to the right."""

    sizes: tuple[str, ...]
    batches: tuple[int, ...]
    lines: tuple[HeatLine, ...]


def heat_map(study: Study, *, model: str, device: str, loader: str) -> HeatMap | None:
    """The speed-ups of a device's variants at every batch and size; None where nothing was compared."""
    rows = tuple(row for row in study.at(model=model, device=device, loader=loader) if not row.control)
    if not any(claim_of(row) and not row.is_baseline for row in rows):
        return None
    sizes = tuple(dict.fromkeys(row.size for row in rows))
    batches = tuple(sorted({row.batch for row in rows}))
    found = {(row.variant, row.size, row.batch): row for row in rows}
    names = {row.variant: row.title for row in rows}
    lines = [
        HeatLine(
            title=title,
            cells=tuple(_heat(found.get((name, size, batch))) for size in sizes for batch in batches),
        )
        for name, title in names.items()
    ]
    return HeatMap(sizes=sizes, batches=batches, lines=tuple(lines))


def time_bars(rows: Sequence[Row]) -> tuple[Bar, ...]:
    """The variants of one point from the fastest to the slowest."""
    measured = sorted((row for row in rows if row.time_s), key=lambda row: row.time_s or 0.0)
    slowest = max((row.time_s or 0.0 for row in measured), default=1.0)
    return tuple(
        Bar(
            title=row.title,
            percent=100 * (row.time_s or 0.0) / slowest,
            value=f"{formats.milliseconds(row.time_s)} ms",
            aside=f"{formats.digits(row.throughput_per_s)} images a second, {compared_text(row)}",
            recommended=number == 0,
        )
        for number, row in enumerate(measured)
    )


def memory_bars(rows: Sequence[Row], *, of: Callable[[Row], int | None], with_weights: bool) -> tuple[PartBar, ...]:
    """Peak memory from the least to the most, the weights in it named apart where they lie there."""
    known = sorted(((size, row) for row in rows if (size := of(row))), key=lambda pair: (pair[0], pair[1].title))
    largest = max((size for size, _ in known), default=1)
    return tuple(
        PartBar(
            title=row.title,
            percent=100 * size / largest,
            part_percent=100 * min(row.weights_bytes or 0, size) / largest if with_weights else 0.0,
            value=f"{formats.megabytes(size)} MB",
            aside=_weights(row) if with_weights else "",
        )
        for size, row in known
    )


def limit_bars(study: Study, rows: Sequence[Row]) -> tuple[Bar, ...]:
    """How near each variant of one point comes to the machine's limit, and which limit that is."""
    known = sorted(
        (row for row in rows if row.share_of_limit is not None), key=lambda row: -(row.share_of_limit or 0.0)
    )
    return tuple(
        Bar(
            title=row.title,
            percent=100 * min(row.share_of_limit or 0.0, 1.0),
            value=formats.percent(row.share_of_limit, 0),
            aside=f"of {_limit(study, row)}",
            recommended=False,
        )
        for row in known
    )


def loader_bars(rows: Sequence[Row]) -> tuple[LoaderBars, ...]:
    """Images a second of the model alone and with its loader, on one scale; only of variants that have both.

    Args:
        rows: Of one point, with all its loaders.
    """
    real = sorted((row for row in rows if row.pipeline_s and row.latency_s), key=lambda row: row.pipeline_s or 0.0)
    rates = {row.cell: _rates(row, [other for other in rows if other.variant == row.variant]) for row in real}
    fastest = max((rate for some in rates.values() for _, rate in some), default=1.0)
    return tuple(
        LoaderBars(
            title=row.title,
            bars=tuple(
                Bar(
                    title=name,
                    percent=100 * rate / fastest,
                    value=formats.digits(rate),
                    aside="",
                    recommended=name == _WITH_LOADER,
                )
                for name, rate in rates[row.cell]
            ),
            aside=f"{formats.percent((row.latency_s or 0.0) / (row.pipeline_s or math.inf), 0)} of the model alone",
        )
        for row in real
    )


def _rates(row: Row, others: Sequence[Row]) -> list[tuple[str, float]]:
    alone = [(f"model alone, {other.loader} images", other.latency_s) for other in others if other is not row]
    times = [*alone, (f"model alone, {row.loader} images", row.latency_s)]
    times += [(_WITH_LOADER, row.pipeline_s), ("loader in line", row.serial_s)]
    return [(name, row.batch / seconds) for name, seconds in times if seconds]


def _weights(row: Row) -> str:
    parts = [
        f"weights {formats.megabytes(row.weights_bytes)} MB" if row.weights_bytes else None,
        f"allocator {formats.megabytes(row.allocator_bytes)} MB"
        if row.allocator_bytes and row.device != "cpu"
        else None,
    ]
    return ", ".join(part for part in parts if part)


def _limit(study: Study, row: Row) -> str:
    if row.limit_by == "memory":
        return f"memory, {formats.digits(study.bandwidth.get(row.device))} GB/s"
    rate = study.ceilings.get((row.device, row.precision))
    return f"{row.precision} arithmetic, {formats.digits(rate)} GFLOP/s"


def _heat(row: Row | None) -> HeatCell:
    if row is None:
        return HeatCell(look="none", text="", told="not in this grid")
    if row.outcome != "measured":
        return HeatCell(look=row.outcome, text="✕" if row.outcome == "failed" else "○", told=why_not(row))
    claim = claim_of(row)
    time = f"{formats.milliseconds(row.time_s)} ms"
    if claim is None:
        return HeatCell(look="none", text=formats.DASH, told=f"{time}, not compared")
    told = f"{time}, {speed_text(claim)}"
    match claim.verdict:
        case "baseline":
            return HeatCell(look="base", text="1", told=told)
        case "same":
            return HeatCell(look="same", text="=", told=told)
        case "faster" | "slower" if claim.value and claim.low is not None and claim.high is not None:
            ratio = max(claim.value, 1 / claim.value)
            step = 1 + sum(ratio >= limit for limit in _STEPS)
            text = ratio_text(claim.value, claim.low, claim.high)
            return HeatCell(look=f"{claim.verdict}-{step}", text=text, told=told)
        case _:
            return HeatCell(look="none", text="?", told=told)
