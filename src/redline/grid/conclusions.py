"""What a grid says, in words that claim no more than its intervals allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from redline.grid.scaling import Fit

Topic = Literal["fastest", "memory", "fp16", "int8", "scaling", "loader", "constraint", "baseline", "caution"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One sentence and the cells that it is about."""

    topic: Topic
    text: str
    cells: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to put into production for one goal, such as ``lowest latency at batch 1 on cpu``."""

    goal: str
    variant: str
    device: str
    cell: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusions:
    """Everything that is concluded from a grid."""

    sentences: tuple[Finding, ...] = ()
    fits: tuple[Fit, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()
