"""``redline report``: a results file as a page, a text or a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redline.cli.common import JsonFlag, console, print_json

if TYPE_CHECKING:
    from redline.grid.rows import GridStudy
    from redline.loadtesting.summary import Summary
    from redline.measurement.summary import Study


def report_command(
    run: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="What redline tune, bench or loadtest wrote; or parts of one grid."),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The file to write: .html, .md or .csv; without it, a table.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a run: one self-contained HTML page, Markdown, CSV, or a table in the terminal.

    Example: `redline report out/results.jsonl -o report.html`
    """
    from redline.commands.report import report
    from redline.grid.rows import GridStudy
    from redline.loadtesting.summary import Summary

    study = report(run, out)
    if as_json:
        print_json(_as_json(study))
    elif out is not None:
        console.print(f"wrote {out}", markup=False, soft_wrap=True)
    elif isinstance(study, GridStudy):
        _print_grid(study)
    elif isinstance(study, Summary):
        _print_loadtest(study)
    else:
        from redline.reporting.table import terminal_table

        console.print(terminal_table(study))


def _as_json(study: Study | GridStudy | Summary) -> dict[str, Any]:
    from redline.grid.rows import GridStudy
    from redline.loadtesting.summary import Summary
    from redline.reporting.grid_table import for_machines
    from redline.reporting.table import values_of

    if isinstance(study, GridStudy):
        return for_machines(study)
    if isinstance(study, Summary):
        return study.to_json()
    return {"rows": [values_of(row) for row in study.rows], "conclusion": study.conclusion}


def _print_grid(study: GridStudy) -> None:
    from redline.reporting.grid_terminal import grid_table

    console.print(grid_table(study))
    told = [("Odd", f"{anomaly.text} {anomaly.cause}") for anomaly in study.anomalies]
    told += [("Warning", warning) for warning in study.warnings]
    told += [(item.goal, item.text) for item in study.conclusions.recommendations]
    for label, text in told:
        console.print(f"\n{label}: {text}", markup=False, soft_wrap=True)


def _print_loadtest(summary: Summary) -> None:
    from redline.reporting.loadtest_terminal import loadtest_table

    console.print(loadtest_table(summary))
    for text in (*summary.conclusion, *(f"Warning: {warning}" for warning in summary.warnings)):
        console.print(f"\n{text}", markup=False, soft_wrap=True)
