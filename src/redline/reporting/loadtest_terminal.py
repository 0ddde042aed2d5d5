"""A load test in a terminal: every load in 80 columns."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from redline.loadtesting.summary import Summary
from redline.reporting import formats
from redline.reporting.loadtest_answers import SAME, UNDECIDED
from redline.reporting.loadtest_table import Line, lines, modes, outcomes, statuses_text

_LONGEST_NAME = 20
_MODES = {"constant": "constant", "poisson": "Poisson", "closed": "closed loop"}


def loadtest_table(summary: Summary) -> Table:
    """The short form of the table; how requests failed stands under it, for a terminal is narrow.

    Faded lines are loads that the target did not keep up with.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", caption_justify="left")
    table.add_column("load", no_wrap=True)
    table.add_column("target", overflow="ellipsis", no_wrap=True, max_width=_LONGEST_NAME)
    for heading in ("answers\n/s", "p50\nms", "p99\nms", "p99.9\nms", "lost\n", "CPU\nms", "p99\nratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for mode in modes(summary):
        table.add_row(Text(_MODES[mode], style="dim"))
        for line in lines(summary, mode):
            kept = mode == "closed" or line.point.kept_up
            # As Text, so that square brackets in a user's names are not read as markup.
            table.add_row(*(Text(cell) for cell in _cells(line)), style="" if kept else "dim")
    failed = _failed(summary)
    table.caption = Text("\n" + "\n".join(failed)) if failed else None
    return table


def _cells(line: Line) -> tuple[str, ...]:
    load = line.point.label if line.begins else ""
    # The words of the page would be wider than all numbers.
    ratio = {SAME: "same", UNDECIDED: "?"}.get(line.p99_ratio, line.p99_ratio)
    return (load, line.target, line.rps, line.p50_ms, line.p99_ms, line.p999_ms, line.errors, line.cpu_ms, ratio)


def _failed(summary: Summary) -> list[str]:
    """How requests of each target ended otherwise than with 200."""
    found = outcomes(summary)
    told = []
    for number, target in enumerate(summary.targets):
        statuses = {status: counts[number] for status, counts in found}
        if words := statuses_text(statuses):
            told.append(f"{target.target.name}: {words} of {formats.count(sum(statuses.values()))} requests")
    return told
