"""What happens to slides, told on stderr: the plan before the work, then a bar with an estimate.

Where several slides are searched at once they share the bar.
"""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape
from rich.progress import Progress, TaskID

from redline.cli.common import error_console
from scale.cli.common import counted, duration
from scale.pipeline.reports import Listener, Planned, SlideReport


class TerminalListener(Listener):
    """Prints plans and notes, and moves a bar that counts what the models have seen."""

    def __init__(self, bar: Progress, *, slides: int, quiet: bool) -> None:
        self._bar = bar
        self._slides = slides
        self._quiet = quiet
        self._done = 0
        self._open: list[Path] = []
        self._total = 0
        self._task: TaskID | None = None

    def note(self, text: str) -> None:
        """Print it."""
        self._print(f"[yellow]note:[/] {escape(text)}")

    def planned(self, planned: Planned) -> None:
        """Print what the slide will cost, and begin its bar."""
        name = escape(planned.slide.name)
        told = f"{name}: {counted(planned.windows, 'window')}, {counted(planned.inferences, 'inference')}"
        if planned.done:
            told += f", {planned.done:,} of them done"
        if planned.inferences > planned.done:
            told += f"; the models need about {duration(planned.estimate_s)}"
        self._print(told)
        for text in planned.notes:
            self.note(f"{planned.slide.name}: {text}")
        self._open.append(planned.slide)
        self._total += planned.inferences
        if self._task is None:
            self._task = self._bar.add_task("", total=self._total, completed=planned.done)
        else:
            self._bar.update(self._task, total=self._total)
            self._bar.advance(self._task, planned.done)
        self._name()

    def windows(self, count: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.advance(self._task, count)

    def finished(self, report: SlideReport) -> None:
        """Take the bar away; say at once what failed."""
        self._done += 1
        self._open = [slide for slide in self._open if slide != report.slide]
        if self._task is not None and not self._open:
            self._bar.remove_task(self._task)
            self._task, self._total = None, 0
        self._name()
        if report.status == "failed" and self._slides > 1:  # of a single one it is the error of the command
            self._print(f"[red]{escape(Path(report.slide).name)} failed:[/] {escape(report.error or '')}")

    def _name(self) -> None:
        """Say on the bar which slides are searched."""
        if self._task is not None:
            of = f" ({self._done + 1} of {self._slides})" if self._slides > 1 else ""
            names = ", ".join(slide.name for slide in self._open)
            self._bar.update(self._task, description=f"{escape(names)}{of}")

    def _print(self, text: str) -> None:
        if not self._quiet:
            error_console.print(text, soft_wrap=True)
