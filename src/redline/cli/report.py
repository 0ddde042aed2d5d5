"""``redline report``: a results file as a page, a text or a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redline.cli.common import JsonFlag, console, print_json


def report_command(
    run: Annotated[Path, typer.Argument(metavar="RUN.jsonl", help="The results.jsonl that a run wrote.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The file to write: .html, .md or .csv; without it, a table.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a run: one self-contained HTML page, Markdown, CSV, or a table in the terminal.

    Example: `redline report out/results.jsonl -o report.html`
    """
    from redline.commands.report import report
    from redline.reporting.table import terminal_table, values_of

    study = report(run, out)
    if as_json:
        print_json({"rows": [values_of(row) for row in study.rows], "conclusion": study.conclusion})
    elif out is not None:
        console.print(f"wrote {out}", markup=False, soft_wrap=True)
    else:
        console.print(terminal_table(study))
