"""The threads of one model: batches in as they are ready, calls one by one or overlapped, answers out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from redline.core.errors import DataError, RedlineError
from scale.pipeline.batches import Batch
from scale.pipeline.channels import Channel
from scale.pipeline.retrying import FailedError, reason_of, retried
from scale.pipeline.runners import Overlapping, Runner
from scale.pipeline.timing import StageClock

# A model that has never answered and refuses so many batches is not asked again; nor one for overlapped calls.
_PATIENCE = 3
_NOTHING = object()

#: A batch with the position of the model among those of its group.
Item = tuple[Batch, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answered:
    """A batch with what one model of its group made of it; no outputs where it failed."""

    batch: Batch
    member: int
    outputs: Any
    places: Any


class Caller:
    """Has batches answered by one model, in their order.

    Where the model overlaps calls it is given batches for as long as some are ready; when there is none, what is under
    way is finished first, so that no batch waits for the next. Where that breaks off, each batch is asked again alone.
    """

    def __init__(
        self,
        runner: Runner,
        lane: Channel[Item],
        *,
        clock: StageClock,
        retries: int,
        done: Callable[[Answered], object],
    ) -> None:
        """Take a model and what surrounds it.

        Args:
            runner: The model.
            lane: Its batches.
            clock: Counts its calls, and how long it waited for batches or for whoever takes its answers.
            retries: How often a batch that it refuses is tried again.
            done: Takes each answer; may make it wait.
        """
        self._runner, self._lane, self._clock, self._retries, self._done = runner, lane, clock, retries, done
        self._name = runner.info.name
        self._here = threading.local()
        self._refused = self._broken = 0
        self._answered = False
        self.failure: Exception | None = None

    def run(self) -> None:
        """Go on until there are no more batches; by as many threads as may call the model at one time.

        Raises:
            RedlineError: the model refuses everything.
        """
        runner = self._runner
        self._here.free = self._clock.now()
        while (item := self._lane.get()) is not None:
            if isinstance(runner, Overlapping) and self._broken < _PATIENCE:
                self._overlap(runner, item)
            else:
                self._call(item)
            del item

    def refusal(self) -> RedlineError | None:
        """What to say where not one batch was answered."""
        return None if self._answered or self.failure is None else self._refusal(self.failure)

    def _call(self, item: Item) -> None:
        batch, member = item
        outputs = None
        self._waited()
        try:
            with self._clock.busy(f"infer:{self._name}"):
                outputs = retried("infer", self._retries, lambda: self._runner.infer(batch.sealed.inputs))
            self._answered = True
        except FailedError as failed:
            self._refused, self.failure = self._refused + 1, failed.error
            if not self._answered and self._refused >= _PATIENCE:
                raise self._refusal(failed.error) from failed.error
            for slot in range(batch.count):
                batch.state.fail(batch.start + slot, "infer", reason_of(failed.error), member=member)
        self._hand_on(item, outputs)

    def _overlap(self, runner: Overlapping, first: Item) -> None:
        under_way: deque[Item] = deque()
        with closing(runner.stream(self._ready(first, under_way))) as answers:
            while (outputs := self._next(answers)) is not _NOTHING:
                self._answered = True
                self._hand_on(under_way.popleft(), outputs)
                del outputs
        while under_way:  # it broke off
            self._call(under_way.popleft())

    def _ready(self, first: Item, under_way: deque[Item]) -> Generator[Any, None, None]:
        item: Item | None = first
        while item is not None:
            under_way.append(item)
            yield item[0].sealed.inputs
            item = self._lane.get(wait=False)

    def _next(self, answers: Generator[Any, None, None]) -> Any:
        self._waited()
        try:
            with self._clock.busy(f"infer:{self._name}"):
                return next(answers, _NOTHING)
        except Exception:  # noqa: BLE001 (those under way are asked again one by one, and then told of)
            self._broken += 1
            return _NOTHING
        finally:
            self._here.free = self._clock.now()

    def _hand_on(self, item: Item, outputs: Any) -> None:
        self._here.free = self._clock.now()
        batch, member = item
        places = batch.sealed.places
        batch.used()
        self._done(Answered(batch=batch, member=member, outputs=outputs, places=places))

    def _waited(self) -> None:
        self._clock.add(f"wait:{self._name}", self._clock.now() - self._here.free)

    def _refusal(self, error: Exception) -> RedlineError:
        told = " ".join(str(error).split())
        text = f"model {self._name} refuses all that it is given ({type(error).__name__}: {told})"
        return DataError(f"{text}; try it by redline run on one image")
