"""Two runs of a grid side by side, in a terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from redline.findings.claims import interval_text, ratio_text
from redline.findings.compare import CellChange, Comparison
from redline.reporting import formats

_STYLES = {"slower": "red", "faster": "green"}


def comparison_table(comparison: Comparison) -> Table:
    """A line for each cell that both runs measured; a ratio above 1 is time lost."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("cell", overflow="fold", min_width=24)
    for heading in ("before\nms", "after\nms", "time\nratio", "99 %\ninterval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for change in comparison.cells:
        # As Text, so that square brackets in a user's names are not read as markup.
        table.add_row(
            *[Text(text) for text in _words(change)],
            style=_STYLES.get(change.claim.verdict if change.claim else "", ""),
        )
    return table


def _words(change: CellChange) -> tuple[str, ...]:
    times = (_ms(row.time_s) for row in (change.before, change.after))
    ratio, claim = change.time_ratio, change.claim
    if ratio is None or claim is None:
        return (change.cell, *times, formats.DASH, formats.DASH, change.note or "")
    value = ratio_text(ratio.value, ratio.low, ratio.high)
    told = "; ".join(text for text in (claim.verdict, change.note) if text)
    return (change.cell, *times, value, interval_text(ratio.low, ratio.high), told)


def _ms(seconds: float | None) -> str:
    return formats.DASH if seconds is None else f"{seconds * 1e3:.3f}"
