"""The table of variants: which rows in which order, with every number already in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from rich.table import Table
from rich.text import Text

from redline.measurement.summary import Row, Study
from redline.reporting import formats

# The raw samples stay in the results file: hundreds of numbers do not belong into one cell; their count does.
VALUES: tuple[str, ...] = (*(field.name for field in fields(Row) if field.name != "windows_s"), "samples")
"""Names of what :func:`values_of` gives."""

_ORDER = {"ok": 0, "failed": 1, "skipped": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """One row of the table as text; what was not measured is a dash."""

    row: Row
    precision: str
    share: str
    asked: str | None
    p50_ms: str
    p90_ms: str
    p99_ms: str
    throughput: str
    speedup: str
    interval: str
    verdict: str
    memory_mb: str
    size_mb: str
    max_abs: str
    cosine: str
    agreement: str
    accuracy: str
    accuracy_change: str
    gate: str


def ordered(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Measured rows from the fastest to the slowest, then those that failed, then those that were skipped."""
    return tuple(
        sorted(rows, key=lambda row: (_ORDER[row.status], row.p50_s is None, row.p50_s or 0.0, row.title, row.variant))
    )


def rows_at(study: Study, batch: int) -> tuple[Row, ...]:
    """The rows of one batch size in the order of the table."""
    return ordered(row for row in study.rows if row.batch == batch)


def table_rows(study: Study, batch: int) -> tuple[Cells, ...]:
    """The table of one batch size; latencies of a column share their number of decimals so that they line up."""
    rows = rows_at(study, batch)
    decimals = formats.column_decimals((row.p50_s * 1e3 for row in rows if row.p50_s), significant=3)
    return tuple(_cells(row, decimals) for row in rows)


def values_of(row: Row) -> dict[str, Any]:
    """A row's values by name, for machines; None was not measured, as a p99 of too few samples is not."""
    return {name: getattr(row, name) for name in VALUES}


def baseline_row(study: Study, batch: int) -> Row | None:
    """The row that the others are compared with, where it was measured."""
    return next((row for row in study.rows if row.batch == batch and row.verdict == "baseline"), None)


def baseline_title(study: Study) -> str:
    """The baseline's title, or its name where it has no row."""
    name = str(study.run.get("settings", {}).get("baseline", "the baseline"))
    return next((row.title for row in study.rows if row.variant == name), name)


def recommended_row(study: Study) -> Row | None:
    """The recommended variant at the batch size that the recommendation is for."""
    batch = (study.conclusion or {}).get("batch")
    rows = [row for row in study.rows if row.recommended]
    return next((row for row in rows if row.batch == batch), rows[0] if rows else None)


def terminal_table(study: Study) -> Table:
    """The short form of the table, batch sizes below each other; reasons stand under it, for a terminal is narrow."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", caption_justify="left")
    table.add_column("variant", overflow="fold", min_width=12)
    table.add_column("ran\nin", no_wrap=True)
    for heading in ("p50\nms", "speed-\nup", "99 %\ninterval", "peak\nMB", "disk\nMB", "same\n%", "right\n%"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("gate", no_wrap=True)
    for number, batch in enumerate(study.batches):
        if number:
            table.add_row()
        table.add_row(Text(f"batch {batch}", style="dim"))
        for cells in table_rows(study, batch):
            table.add_row(*_terminal_cells(cells), style=_style(cells.row))
    reasons = _reasons(study.rows)
    if reasons:
        table.caption = Text("\n" + "\n".join(reasons))
    return table


def _terminal_cells(cells: Cells) -> list[Text]:
    row = cells.row
    # As Text, so that square brackets in a user's names are not read as markup.
    if row.status != "ok":
        return [Text(row.variant), Text(""), Text(row.status)]
    name = f"{row.variant} ★" if row.recommended else row.variant
    precision = row.precision + ("!" if cells.asked else "")
    words = {"baseline": "base", "no difference": "no diff"}
    speedup = words.get(row.verdict or "", cells.speedup)
    gate = {True: "ok", False: "no", None: formats.DASH}[row.passed]
    texts = [name, precision, cells.p50_ms, speedup, cells.interval, cells.memory_mb, cells.size_mb]
    shares = [cells.agreement.removesuffix(" %"), cells.accuracy.removesuffix(" %")]
    return [Text(text) for text in (*texts, *shares, gate)]


def _reasons(rows: Iterable[Row]) -> list[str]:
    """Why rows have no numbers or did not pass, and which precision was asked for; each said once."""
    reasons: dict[str, None] = {}
    for row in ordered(rows):
        if row.status != "ok" or row.passed is False:
            reasons[f"{row.variant} {formats.gate(row)}"] = None
        if row.fell_back:
            reasons[f"{row.variant} was asked for {row.requested} and ran in {row.layers_text}"] = None
    return list(reasons)


def _style(row: Row) -> str:
    if row.recommended:
        return "bold"
    return "dim" if row.status != "ok" or row.passed is False else ""


def _cells(row: Row, decimals: int) -> Cells:
    return Cells(
        row=row,
        precision=row.layers_text if row.precision != "none" else formats.DASH,
        share=row.layers_text.removeprefix(row.precision).strip(" ()"),
        asked=row.requested if row.fell_back else None,
        p50_ms=formats.milliseconds(row.p50_s, decimals),
        p90_ms=formats.milliseconds(row.p90_s, decimals),
        p99_ms=formats.p99(row, decimals),
        throughput=formats.digits(row.throughput_per_s),
        speedup=formats.times(row.speedup),
        interval=formats.interval(row.speedup_low, row.speedup_high) if row.verdict != "baseline" else "",
        verdict=formats.verdict(row),
        memory_mb=formats.megabytes(row.private_peak_bytes),
        size_mb=formats.megabytes(row.size_bytes or None),
        max_abs=formats.error(row.max_abs),
        cosine=formats.cosine(row.cosine),
        agreement=formats.percent(row.top1_agreement),
        accuracy=formats.percent(row.accuracy),
        accuracy_change=formats.points(row.accuracy_drop),
        gate=formats.gate(row),
    )
