"""What one tune works on, and how it says how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.commands.ways import Place
from redline.core.samples import Samples
from redline.tuning.journal import Journal
from redline.tuning.options import TuneOptions
from redline.variants import Variant

Listener = Callable[[str, float, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneJob:
    """One tune: what it works on and where it writes."""

    folder: Path
    model: dict[str, Any]
    description: dict[str, Any]
    variants: tuple[Variant, ...]
    baseline: str
    options: TuneOptions
    threads: int
    journal: Journal
    verification: Samples
    scratch: Path
    progress: Progress

    @property
    def place(self) -> Place:
        """The model, as what is made of it needs it."""
        weights = self.model["weights_file"]
        return Place(
            name=self.model["name"],
            ref=self.model["ref"],
            weights=self.path(weights) if weights else None,
            signature=self.description["signature"],
            engines=self.folder / "engines",
            calibration=self.scratch / "calibration.npz",
            batches=self.options.batches,
            threads=self.threads,
            method=self.options.method,
        )

    def path(self, name: str) -> Path:
        """A path within the folder."""
        return self.folder / name


class Progress:
    """Adds up expected seconds of work, and tells a listener what is being done and how much of it is done."""

    def __init__(self, listener: Listener | None, total_s: float) -> None:
        self._listener = listener
        self._total_s = total_s
        self._done_s = 0.0

    def say(self, text: str) -> None:
        """Name what is being done now."""
        if self._listener:
            self._listener(text, self._done_s, self._total_s)

    def advance(self, seconds: float, text: str) -> None:
        """So much of the expected work is done."""
        self._done_s = min(self._done_s + seconds, self._total_s)
        self.say(text)
