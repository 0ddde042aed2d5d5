"""What follows from a grid: sentences, exponents and recommendations, all made of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redline.grid.derive import GridRow
from redline.grid.effects import effects
from redline.grid.findings import Finding, winners
from redline.grid.recommend import Recommendation, recommend
from redline.grid.scaling import Fit, fit_rows
from redline.grid.wording import Scope
from redline.measurement.results import Record

__all__ = ["Conclusions", "Finding", "Fit", "Recommendation", "conclude"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusions:
    """Everything that is concluded from a grid."""

    sentences: tuple[Finding, ...] = ()
    fits: tuple[Fit, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()


def conclude(run: Record, rows: Sequence[GridRow]) -> Conclusions:
    """Say what those rows say; where nothing was measured, say that."""
    timed = [row for row in rows if row.time_s is not None]
    if not timed:
        nothing = Finding(topic="caution", text="Nothing was measured, so nothing can be concluded.")
        return Conclusions(sentences=(nothing,))
    scope, fits = Scope.of(timed), fit_rows(timed)
    sentences = (*winners(timed, scope), *effects(run, rows, fits, scope))
    return Conclusions(sentences=sentences, fits=fits, recommendations=recommend(timed))
