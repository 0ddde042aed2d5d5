"""What waits of one slide, and what has come of it: between the slide's own thread and the one that hands out work."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from redline.core.errors import DataError
from scale.pipeline.batches import StripResult
from scale.pipeline.channels import Channel
from scale.pipeline.cluster_chunks import Chunk, missing
from scale.pipeline.plan import Plan
from scale.pipeline.timing import Timing

_ATTEMPTS = 3
# Answers that are not on the disk yet; a slide with more gets no further work until they are.
_MOST_UNSAVED = 8

Answer = tuple[Chunk, Sequence[StripResult], Timing | None]


class SlideQueue:
    """The chunks of one slide.

    Attributes:
        work: Of Ray: the slide and its plan.
    """

    def __init__(self, work: Any, plan: Plan, chunks: Sequence[Chunk]) -> None:
        self.work = work
        self._plan = plan
        self._waiting = deque(chunks)
        self._left = len(chunks)
        self._unsaved = 0
        self._answers: Channel[Answer] = Channel()
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def take(self, place: str, places: Collection[str]) -> Chunk | None:
        """The next chunk for a place; one that failed there waits for another of ``places`` where there is one."""
        with self._lock:
            if self._unsaved >= _MOST_UNSAVED or self._error is not None:
                return None
            for chunk in self._waiting:
                if place not in chunk.tried or chunk.tried.issuperset(places):
                    self._waiting.remove(chunk)
                    return chunk
            return None

    def deliver(self, chunk: Chunk, results: Sequence[StripResult], timing: Timing | None) -> None:
        """Hand over what was found."""
        with self._lock:
            self._unsaved += 1
            self._left -= 1
            last = not self._left
        self._answers.put((chunk, results, timing))
        if last:
            self._answers.close()

    def give_back(self, chunk: Chunk) -> None:
        """A chunk that nobody began goes first again."""
        with self._lock:
            self._waiting.appendleft(chunk)

    def died(self, chunk: Chunk, place: str, reason: str) -> None:
        """A worker died over a chunk; after three its windows are missing."""
        if self._again(chunk, place):
            return
        told = f"a worker died over it {_ATTEMPTS} times, last on {place}: {reason}"
        self.deliver(chunk, [missing(self._plan, strip, told) for strip in chunk.strips], None)

    def refused(self, chunk: Chunk, place: str, reason: str) -> None:
        """A worker cannot do a chunk; after three times that is the error of the slide."""
        if not self._again(chunk, place):
            self.fail(DataError(f"{place}: {reason}"))

    def fail(self, error: BaseException) -> None:
        """End it; whoever waits for results gets the error."""
        with self._lock:
            self._error = self._error or error
        self._answers.stop()

    def results(self) -> Iterator[Answer]:
        """The answers as they come, each once.

        Raises:
            BaseException: what :meth:`fail` was called with.
        """
        while (answer := self._answers.get()) is not None:
            yield answer
            with self._lock:
                self._unsaved -= 1
        if self._error is not None:
            raise self._error

    def _again(self, chunk: Chunk, place: str) -> bool:
        chunk.attempts += 1
        chunk.tried.add(place)
        if chunk.attempts >= _ATTEMPTS:
            return False
        self.give_back(chunk)
        return True
