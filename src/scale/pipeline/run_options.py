"""How the work on a slide is spread over threads and processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from redline.core.errors import InputError
from redline.core.host import available_cores
from scale.pipeline.plan import Plan
from scale.pipeline.runners import Overlapping, Runner, calls_of

Reading = Literal["auto", "threads", "processes"]

# Beyond one batch that fills for each group: one that a model works on, one that is ready.
_SPARE_BATCHES = 2
# So many more that a model works on where it overlaps calls: one is copied in, one is computed, one copied out.
_OVERLAPPED_BATCHES = 3
_MOST_READERS, _MOST_DECODERS = 32, 8
# Decoding a window takes a fraction of what reading it takes.
_CORES_A_DECODER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How the work is spread.

    Attributes:
        readers: Threads or processes that read windows; 0 takes one a core, at most 32, of which processes leave two.
        decoders: Threads that make detections of a model's outputs; 0 takes one for four cores, at most 8.
        reading: By ``threads``, or by ``processes``, which are faster than a GPU where there are many cores and slower
            to start; ``auto`` takes processes where a GPU runs a model and there are four cores or more.
        retries: How often a window that cannot be read, or a batch that a model refuses, is tried again.
    """

    readers: int = 0
    decoders: int = 0
    reading: Reading = "auto"
    retries: int = 2

    def __post_init__(self) -> None:
        if self.reading not in get_args(Reading):
            raise InputError(f"got reading {self.reading!r}, expected one of {', '.join(get_args(Reading))}")

    @property
    def reader_threads(self) -> int:
        """How many threads read."""
        return self.readers or min(_MOST_READERS, available_cores())

    @property
    def decoder_threads(self) -> int:
        """How many threads decode."""
        return self.decoders or max(1, min(_MOST_DECODERS, available_cores() // _CORES_A_DECODER))

    def batches(self, plan: Plan, runners: Sequence[Runner], *, processes: int = 0) -> int:
        """How many batches are held at one time: those that fill, are ready, or are being answered.

        Each process fills one of its own. Threads that fill one batch have begun the next before it is whole: with many
        of them several fill at once.
        """
        smallest = min((group.batch for group in plan.groups), default=1)
        filling = processes or len(plan.groups) + (self.reader_threads - 1) // smallest
        overlapped = sum(isinstance(runner, Overlapping) for runner in runners)
        answered = sum(calls_of(runner) - 1 for runner in runners)
        return filling + _SPARE_BATCHES + answered + _OVERLAPPED_BATCHES * overlapped
