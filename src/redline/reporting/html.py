"""A study as one HTML page that needs nothing but a browser: no network, no other file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.core.files import write_whole
from redline.measurement.summary import Row, Study
from redline.reporting import formats, plots
from redline.reporting.conditions import conditions, skipped_files
from redline.reporting.page import Bar, Fact, render
from redline.reporting.table import Cells, baseline_row, baseline_title, recommended_row, rows_at, table_rows

_COSTS: tuple[tuple[plots.Cost, str], ...] = (("latency", "latency"), ("memory", "memory"), ("size", "size"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """All that is shown for one batch size; plots are keys into the page's specifications."""

    batch: int
    cells: tuple[Cells, ...]
    fastest: float
    pareto: tuple[tuple[str, str], ...]
    latency: str | None
    limits: tuple[Bar, ...]
    memory: tuple[Bar, ...]
    sizes: tuple[Bar, ...]


def write_html(study: Study, out: Path) -> None:
    """Write the page.

    Raises:
        MissingDependencyError: ``vl-convert`` is not installed.
    """
    write_whole(out, page(study))


def page(study: Study) -> str:
    """The text that :func:`write_html` writes."""
    specs: dict[str, Any] = {}
    panels = tuple(_panel(study, batch, specs) for batch in study.batches)
    best = recommended_row(study)
    context = {
        "study": study,
        "run": study.run,
        "name": str(study.run.get("model", {}).get("name", "model")),
        "best": best,
        "versus": _versus(study, best),
        "facts": _facts(study, best),
        "elsewhere": [row for row in study.rows if row.recommended and row is not best and row.p50_s],
        "baseline": baseline_title(study),
        "labelled": any(row.accuracy is not None for row in study.rows),
        "panels": panels,
        "conditions": conditions(study),
        "skipped": skipped_files(study),
        "titles": {row.variant: row.title for row in study.rows},
        "specs": specs,
    }
    return render("report.html.j2", context, styles=["report.css"], scripts=["report.js"])


def _panel(study: Study, batch: int, specs: dict[str, Any]) -> Panel:
    rows = rows_at(study, batch)
    quality = plots.quality_of(rows, study.run.get("settings", {}))
    pareto = []
    for cost, label in _COSTS:
        spec = plots.pareto_spec(rows, quality, cost=cost)
        if spec is not None:
            specs[f"pareto-{batch}-{cost}"] = spec
            pareto.append((f"pareto-{batch}-{cost}", label))
    latency = plots.latency_spec(rows)
    if latency is not None:
        specs[f"latency-{batch}"] = latency
    return Panel(
        batch=batch,
        cells=table_rows(study, batch),
        fastest=max((row.speedup_high or row.speedup or 0.0 for row in rows), default=0.0) or 1.0,
        pareto=tuple(pareto),
        latency=f"latency-{batch}" if latency is not None else None,
        limits=_limits(study, rows),
        memory=_bars(rows, lambda row: row.private_peak_bytes),
        sizes=_bars(rows, lambda row: row.size_bytes),
    )


def _limits(study: Study, rows: Sequence[Row]) -> tuple[Bar, ...]:
    known = sorted((row for row in rows if row.share_of_limit is not None), key=lambda row: -(row.share_of_limit or 0))
    bars = []
    for row in known:
        share = row.share_of_limit or 0.0
        if row.limit_by == "memory":
            limit = f"memory, {formats.digits(study.bandwidth)} GB/s"
        else:
            limit = f"{row.precision} arithmetic, {formats.digits(study.ceilings.get(row.precision))} GFLOP/s"
        bars.append(
            Bar(
                title=row.title,
                percent=100 * min(share, 1.0),
                value=formats.percent(share, 0),
                aside=f"of {limit}",
                recommended=row.recommended,
            )
        )
    return tuple(bars)


def _bars(rows: Sequence[Row], value: Callable[[Row], float | None]) -> tuple[Bar, ...]:
    known = sorted(((size, row) for row in rows if (size := value(row))), key=lambda pair: (pair[0], pair[1].variant))
    largest = max((size for size, _ in known), default=1.0)
    return tuple(
        Bar(
            title=row.title,
            percent=100 * size / largest,
            value=f"{formats.megabytes(size)} MB",
            aside="",
            recommended=row.recommended,
        )
        for size, row in known
    )


def _versus(study: Study, best: Row | None) -> tuple[Bar, ...]:
    """The baseline's bar and the recommended one's, on one scale."""
    base = baseline_row(study, best.batch) if best else None
    if best is None or base is None or base is best or not base.p50_s or not best.p50_s:
        return ()
    slowest = max(base.p50_s, best.p50_s)
    return tuple(
        Bar(
            title=row.title,
            percent=100 * (row.p50_s or 0.0) / slowest,
            value=f"{formats.milliseconds(row.p50_s)} ms",
            aside="",
            recommended=row is best,
        )
        for row in (base, best)
    )


def _facts(study: Study, best: Row | None) -> tuple[Fact, ...]:
    if best is None:
        return ()
    base = baseline_row(study, best.batch)
    facts = [_fact("median latency", formats.milliseconds, "ms", best, base, lambda row: row.p50_s)]
    if best.accuracy is not None:
        value = formats.percent(best.accuracy).removesuffix(" %")
        change = formats.points(best.accuracy_drop)
        facts.append(Fact(label="accuracy", value=value, unit="%", aside=f"{change} against the original"))
    if best.top1_agreement is not None:
        count = study.run.get("data", {}).get("verification")
        value = formats.percent(best.top1_agreement).removesuffix(" %")
        aside = f"on {formats.count(count)} samples" if count is not None else ""
        facts.append(Fact(label="same answer", value=value, unit="%", aside=aside))
    if best.top1_agreement is None and best.max_abs is not None:
        facts.append(Fact(label="largest error", value=formats.error(best.max_abs), unit="", aside="in any output"))
    facts.append(_fact("size", formats.megabytes, "MB", best, base, lambda row: row.size_bytes))
    facts.append(_fact("peak memory", formats.megabytes, "MB", best, base, lambda row: row.private_peak_bytes))
    return tuple(facts)


def _fact(
    label: str,
    text: Callable[[float | None], str],
    unit: str,
    best: Row,
    base: Row | None,
    value: Callable[[Row], float | None],
) -> Fact:
    before = value(base) if base is not None and base is not best else None
    aside = f"from {text(before)} {unit}" if before is not None else ""
    return Fact(label=label, value=text(value(best)), unit=unit, aside=aside)
