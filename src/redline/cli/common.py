"""What every command shares: where it prints, how it shows progress, the options that all of them have."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, allow_nan=False) + "\n")


def progress(*, quiet: bool) -> Progress:
    """A progress display on stderr with an estimate; silent where stderr is not a terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=error_console,
        disable=quiet or not sys.stderr.isatty(),
        transient=True,
    )
