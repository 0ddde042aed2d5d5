"""A grid in a terminal: the short form of its table."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from redline.grid.rows import GridStudy
from redline.reporting.grid_table import GridCells, grid_lines, why_not


def grid_table(study: GridStudy) -> Table:
    """The short form of the table; why cells have no numbers stands under it, for a terminal is narrow."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", caption_justify="left")
    table.add_column("variant", overflow="fold", min_width=12)
    table.add_column("ran\nin", no_wrap=True)
    for heading in ("median\nms", "p90\nms", "images\n/s", "peak\nMB", "speed-\nup", "99 %\ninterval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for model in study.models:
        for size in dict.fromkeys(row.size for row in study.at(model=model)):
            for line in grid_lines(study, model, size):
                if line.begins:
                    heading = (
                        f"{model if len(study.models) > 1 else ''} {line.row.device} {line.shape} {line.row.loader}"
                    )
                    table.add_row(Text(heading.strip(), style="dim"))
                # As Text, so that square brackets in a user's names are not read as markup.
                table.add_row(*_cells(line), style="" if line.row.outcome == "measured" else "dim")
    reasons = "\n".join(_reasons(study))
    table.caption = Text("\n" + reasons) if reasons else None
    return table


def _cells(line: GridCells) -> list[Text]:
    row = line.row
    if row.outcome != "measured":
        return [Text(row.variant), Text(""), Text(row.outcome)]
    precision = row.precision + ("!" if row.fell_back else "")
    speedup = {"baseline": "base", "no difference": "no diff"}.get(row.verdict or "", line.speedup)
    numbers = (line.median_ms, line.p90_ms, line.throughput, line.memory_mb, speedup, line.interval)
    return [Text(text) for text in (row.variant, precision, *numbers)]


def _reasons(study: GridStudy) -> list[str]:
    """Why cells have no numbers, and which precision was asked for; each said once."""
    cells: dict[str, int] = {}
    for row in study.rows:
        text = f"{row.variant} on {row.device} {why_not(row)}"
        if row.outcome == "measured":
            if not row.fell_back:
                continue
            text = f"{row.variant} on {row.device} was asked for {row.requested} and ran in {row.layers_text}"
        cells[text] = cells.get(text, 0) + 1
    return [f"{text} ({count} cells)" if count > 1 else text for text, count in cells.items()]
