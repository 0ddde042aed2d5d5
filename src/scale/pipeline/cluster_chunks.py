"""A slide's strips in pieces that one worker does at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from redline.core.errors import WorkerError
from scale.merging.found import Found
from scale.pipeline.batches import StripResult, StripState
from scale.pipeline.plan import Plan, Strip, reading_order
from scale.pipeline.retrying import reason_of

# So that workers end together: each gets about so many pieces of a slide …
_PIECES = 4
# … of at most so many windows, or so many seconds of the slowest model: that is what a death costs.
_MOST_WINDOWS, _MOST_S = 1024, 2.0


@dataclass(slots=True, eq=False)
class Chunk:
    """Strips that are read one after the other, with what became of them so far.

    Attributes:
        strips: Their positions in the plan.
        windows: How many the models see in them, all models together.
        attempts: How often it was tried in vain.
        tried: The places where.
    """

    strips: tuple[int, ...]
    windows: int
    attempts: int = 0
    tried: set[str] = field(default_factory=set)


def chunks_of(plan: Plan, strips: Sequence[Strip], *, workers: int, window_s: float) -> list[Chunk]:
    """Cut strips into chunks in the order of reading, so that a worker decodes each tile of the slide about once.

    Args:
        plan: Of the slide.
        strips: Those to do.
        workers: How many share them.
        window_s: How long the slowest model needs for a window.
    """
    owner, _ = reading_order(plan, strips)
    _, first = np.unique(owner, return_index=True)
    longest = max(_MOST_WINDOWS, _MOST_S / max(window_s, 1e-6))
    most = min(longest, sum(map(len, strips)) / (_PIECES * max(1, workers)))
    chunks: list[list[Strip]] = []
    for position in owner[np.sort(first)].tolist():
        strip = strips[position]
        if chunks and sum(map(len, chunks[-1])) + len(strip) <= most:
            chunks[-1].append(strip)
        else:
            chunks.append([strip])
    return [
        Chunk(
            strips=tuple(strip.index for strip in some),
            windows=sum(plan.inferences_of(some).values()),
        )
        for some in chunks
    ]


def missing(plan: Plan, strip: int, reason: str) -> StripResult:
    """The result of a strip that nobody could do: every window is told as missing."""
    state = StripState(plan, plan.strips[strip])
    for position in range(len(state.strip)):
        state.fail(position, "worker", reason_of(WorkerError(reason)))
    result = None
    for member in range(len(state.group.models)):
        for start in range(0, len(state.strip), state.group.batch):
            result = state.add(member, start, Found.empty())
    if result is None:
        raise AssertionError("unreachable")
    return result
