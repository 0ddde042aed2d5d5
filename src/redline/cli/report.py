"""``redline report``: a results file as a page, a text or a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redline.cli.common import JsonFlag, console, print_json

if TYPE_CHECKING:
    from redline.loadtesting.summary import Summary
    from redline.study.rows import Study


def report_command(
    run: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="What tune, bench or loadtest wrote, a file or a folder; or parts of one grid.",
        ),
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
    from redline.findings.conclusions import found_in
    from redline.loadtesting.summary import Summary
    from redline.reporting.table import for_machines

    study = report(run, out)
    if as_json:
        print_json(study.to_json() if isinstance(study, Summary) else for_machines(study, found_in(study)))
    elif out is not None:
        console.print(f"wrote {out}", markup=False, soft_wrap=True)
    elif isinstance(study, Summary):
        _print_loadtest(study)
    else:
        print_study(study)


def print_study(study: Study) -> None:
    """The table of a study, and what is said of it."""
    from redline.findings.conclusions import found_in
    from redline.reporting.terminal import study_table

    console.print(study_table(study))
    found = found_in(study)
    told = [("Odd", f"{anomaly.text} {anomaly.cause}") for anomaly in found.anomalies]
    told += [("Warning", warning) for warning in found.warnings]
    if study.conclusion is None:
        told += [(item.goal, item.text) for item in found.recommendations]
    for label, text in told:
        console.print(f"\n{label}: {text}", markup=False, soft_wrap=True)
    if study.conclusion is not None:
        console.print(f"\n{study.conclusion.headline}", style="bold", markup=False)
        console.print(" ".join(study.conclusion.sentences), markup=False)


def _print_loadtest(summary: Summary) -> None:
    from redline.reporting.loadtest_terminal import loadtest_table

    console.print(loadtest_table(summary))
    for text in (*summary.conclusion, *(f"Warning: {warning}" for warning in summary.warnings)):
        console.print(f"\n{text}", markup=False, soft_wrap=True)
