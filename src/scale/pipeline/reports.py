"""What is told about slides: before the work, while it goes on, and at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from redline.core.errors import RedlineError
from redline.core.plain import JsonObject, to_plain
from scale.pipeline.batches import Failure
from scale.pipeline.timing import Timing

#: ``incomplete``: some windows are missing. ``kept``: it was done before, and nothing was to be done.
Status = Literal["done", "kept", "incomplete", "failed", "interrupted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a slide will cost.

    Attributes:
        windows: That are read.
        inferences: Windows that the models see, all models together.
        done: Of the inferences, what an earlier run has done.
        estimate_s: How long the models will need for the rest, by their first calls here.
        regions: How many regions are searched.
        notes: What the user should know.
    """

    slide: Path
    windows: int
    inferences: int
    done: int
    estimate_s: float
    regions: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideReport:
    """What became of one slide.

    Attributes:
        folder: Of its results; None where it came to none.
        counts: Detections by class name.
        files: What was written, by format.
        failures: Windows that are missing in the results.
        full_windows: By model how many windows hold as many boxes as are kept of one, so that more may be there.
        error: Why there are no results, in one line.
        cause: The error itself.
    """

    slide: Path
    status: Status
    folder: Path | None = None
    windows: int = 0
    inferences: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    full_windows: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    timing: Timing | None = None
    notes: tuple[str, ...] = ()
    cause: RedlineError | OSError | None = None

    @property
    def good(self) -> bool:
        """Whether its results are there and whole."""
        return self.status in ("done", "kept")

    @property
    def detections(self) -> int:
        """How many objects were found."""
        return sum(self.counts.values())

    def to_json(self) -> JsonObject:
        """Plain JSON values."""
        return {
            "slide": str(self.slide),
            "status": self.status,
            "folder": str(self.folder) if self.folder else None,
            "windows": self.windows,
            "inferences": self.inferences,
            "detections": self.detections,
            "counts": dict(self.counts),
            "files": dict(self.files),
            "failures": to_plain(self.failures),
            "full_windows": dict(self.full_windows),
            "error": self.error,
            "seconds": self.timing.wall_s if self.timing else None,
            "notes": list(self.notes),
        }


class Listener:
    """Is told what happens; does nothing about it."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def planned(self, planned: Planned) -> None:
        """A slide is about to be worked on."""

    def windows(self, count: int) -> None:
        """A model has seen so many windows; told from any thread."""

    def finished(self, report: SlideReport) -> None:
        """A slide is done with."""
