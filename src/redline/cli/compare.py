"""``redline compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from redline.cli.common import JsonFlag, console, print_json


def compare_command(
    before: Annotated[Path, typer.Argument(metavar="A.jsonl", help="A run of redline bench.")],
    after: Annotated[Path, typer.Argument(metavar="B.jsonl", help="The run to hold against it.")],
    fail_on_regression: Annotated[
        str | None, typer.Option(metavar="5%", help="End with exit code 1 if a cell is slower by more, noise apart.")
    ] = None,
    json: JsonFlag = False,
) -> int:
    """Hold two runs of a grid against each other: machines, versions or commits.

    Example: `redline compare before.jsonl after.jsonl --fail-on-regression 5%`
    """
    import redline
    from redline.findings.compare import regressions
    from redline.reporting.comparison_terminal import comparison_table

    limit = parse_share(fail_on_regression) if fail_on_regression else None
    comparison = redline.compare(before, after)
    slower = regressions(comparison, limit) if limit is not None else ()
    # What was asked for in both runs and was measured in the first alone is worse than slow.
    asked = {row.cell for row in comparison.after.rows}
    lost = [cell for cell in comparison.only_before if cell in asked] if limit is not None else []
    if json:
        print_json({**comparison.to_json(), "regressions": [change.cell for change in slower], "lost": lost})
    else:
        console.print(comparison_table(comparison))
        for difference in comparison.differences:
            console.print(f"[yellow]Not alike:[/] {escape(str(difference))}")
        for alone, which in ((comparison.only_before, before), (comparison.only_after, after)):
            if alone:
                console.print(f"Only in {which}: {len(alone)} cells, such as {escape(alone[0])}")
        for warning in comparison.warnings:
            console.print(f"[yellow]Warning:[/] {escape(warning)}")
        for change in slower:
            console.print(f"[red]Slower than allowed:[/] {escape(change.cell)}")
        for cell in lost:
            console.print(f"[red]Measured before and not now:[/] {escape(cell)}")
    return 1 if slower or lost else 0


def parse_share(text: str) -> float:
    """A share from ``5%`` or ``0.05``.

    >>> parse_share("5%"), parse_share("0.05")
    (0.05, 0.05)
    """
    from redline.core.errors import InputError

    try:
        value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise InputError(f"got {text!r}, expected a share such as 5% or 0.05") from error
    if not 0 <= value < 10:
        raise InputError(f"got {text!r}, expected 0% to 1000%")
    return value
