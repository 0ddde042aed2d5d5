"""A study as Markdown, for a README or a pull request."""

from __future__ import annotations

from pathlib import Path

from redline.core.files import write_whole
from redline.measurement.summary import Study
from redline.reporting import formats
from redline.reporting.conditions import conditions, skipped_files
from redline.reporting.markdown_text import escape, fenced, pairs, table
from redline.reporting.table import Cells, baseline_title, table_rows

_HEADINGS = (
    "variant",
    "ran in",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "samples/s",
    "speed-up",
    "memory MB",
    "size MB",
    "max error",
    "top-1 same",
    "accuracy",
    "gate",
)
_LEFT = (0, 1, len(_HEADINGS) - 1)


def write_markdown(study: Study, out: Path) -> None:
    """Write the conclusion, a table per batch size and the conditions as GitHub-flavoured Markdown."""
    write_whole(out, markdown(study))


def markdown(study: Study) -> str:
    """The text that :func:`write_markdown` writes."""
    name = escape(str(study.run.get("model", {}).get("name", "model")))
    blocks = [f"# {name}, tuned", *_conclusion(study)]
    blocks += [f"> **Warning:** {escape(warning)}" for warning in study.warnings]
    for batch in study.batches:
        blocks += [f"## Batch {batch}", _table(study, batch)]
    note = (
        f"Speed-up is against {escape(baseline_title(study))}, with its 99 % confidence interval. "
        f"A dash was not measured; p99 needs {formats.P99_SAMPLES} samples, n says how many there were."
    )
    return "\n\n".join([*blocks, note, *_losers(study), *_conditions(study)]) + "\n"


def _conclusion(study: Study) -> list[str]:
    if study.conclusion is None:
        return ["**This run was not finished: nothing is recommended.** What was measured is below."]
    headline = f"**{escape(str(study.conclusion['headline']))}**"
    return [headline, " ".join(escape(str(sentence)) for sentence in study.conclusion["sentences"])]


def _table(study: Study, batch: int) -> str:
    return table(_HEADINGS, [_line(cells) for cells in table_rows(study, batch)], left=_LEFT)


def _line(cells: Cells) -> list[str]:
    row = cells.row
    name = escape(row.title)
    precision = escape(cells.precision) + (f" (asked for {escape(cells.asked)})" if cells.asked else "")
    speedup = cells.speedup if row.verdict in ("faster", "slower") else cells.verdict
    if cells.interval:
        speedup += f" ({cells.interval})"
    numbers = (cells.p50_ms, cells.p90_ms, cells.p99_ms, cells.throughput, speedup, cells.memory_mb, cells.size_mb)
    answers = (cells.max_abs, cells.agreement, cells.accuracy, escape(cells.gate))
    return [f"**{name}**" if row.recommended else name, precision, *numbers, *answers]


def _losers(study: Study) -> list[str]:
    losers = (study.conclusion or {}).get("losers") or ()
    if not losers:
        return []
    return ["## Why not the others", pairs((str(item["variant"]), str(item["why"])) for item in losers)]


def _conditions(study: Study) -> list[str]:
    blocks = ["## Conditions"]
    for group in conditions(study):
        blocks += [f"### {group.title}", pairs(group.facts)]
    skipped = skipped_files(study)
    if skipped:
        blocks += ["### Skipped files", pairs(skipped)]
    command = str(study.run.get("command", ""))
    return [*blocks, "## Reproduce", fenced(command)] if command else blocks
