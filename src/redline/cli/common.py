"""What every command shares: where it prints, how it shows progress, the options that all of them have."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from redline.core.errors import InputError
from redline.core.plain import to_plain

if TYPE_CHECKING:
    from redline.study.config import StudyConfig
    from redline.study.plan import CellGroup

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def print_json(value: object) -> None:
    """Print a record, or plain values, as one JSON document on stdout."""
    sys.stdout.write(json.dumps(to_plain(value), indent=2, allow_nan=False) + "\n")


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


@contextmanager
def listening(title: str, *, quiet: bool) -> Iterator[Callable[[str, float, float], None]]:
    """A listener of a long command that moves a progress display while the block runs."""
    with progress(quiet=quiet) as bar:
        task = bar.add_task(title, total=None)

        def listener(text: str, done_s: float, total_s: float) -> None:
            bar.update(task, description=escape(text), completed=int(done_s), total=int(total_s) or None)

        yield listener


def study_values(defaults: StudyConfig, file: Path | None, **flags: object) -> StudyConfig:
    """The defaults with what a study's file says, and with the flags that were given before it.

    Raises:
        InputError: the file or a value is not usable; names it.
    """
    from redline.study.config import read_config

    values = read_config(file) if file else {}
    values |= {key: value for key, value in flags.items() if value not in (None, ())}
    return replace(defaults, **values)  # type: ignore[arg-type]


def print_plan(config: StudyConfig, groups: Sequence[CellGroup], seconds: float, *, as_json: bool) -> None:
    """Print the cells of a study and about how long they take."""
    cells = [cell for group in groups for cell in group.cells]
    if as_json:
        told = [{"cell": cell.id, "refused": cell.refused} for cell in cells]
        print_json({"cells": told, "expected_s": seconds})
        return
    for cell in cells:
        console.print(escape(cell.id) + (f"  [yellow]skipped: {escape(cell.refused)}[/]" if cell.refused else ""))
    minutes = seconds / 60
    text = f"{minutes:.0f} minutes" if minutes >= 2 else f"{seconds:.0f} s"
    again = f", the finalists again in {config.confirm}" if config.confirm else ""
    console.print(
        f"\n{len(cells)} cells, each in {config.repeats} processes with {config.rounds} turns{again}: about {text} "
        "for a network like ResNet-18"
    )
