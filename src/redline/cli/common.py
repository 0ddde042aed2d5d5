"""What every command shares: where it prints, how it shows progress, the options that all of them have."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from redline.core.errors import InputError

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


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from ``224`` or ``224x256``.

    >>> parse_size("224"), parse_size("480x640")
    ((224, 224), (480, 640))
    """
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"got size {text!r}, expected 224 or 224x256 (height x width)")
    return int(parts[0]), int(parts[-1])


def parse_sizes(text: str, what: str) -> tuple[int, ...]:
    """Whole numbers from ``1,8``.

    >>> parse_sizes("1,8", "batch")
    (1, 8)
    """
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"got {what} {text!r}, expected whole numbers of at least 1, as 1 or 1,8")
    return tuple(dict.fromkeys(int(part) for part in parts))
