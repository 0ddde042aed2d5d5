"""Workers on the machines of a Ray cluster: hired where there is room, asked who they are, given work, replaced."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from redline.core.errors import DeviceError, InputError, RedlineError
from redline.core.plain import to_plain
from scale.pipeline.batches import StripResult
from scale.pipeline.cluster_chunks import Chunk, chunks_of
from scale.pipeline.cluster_likeness import (
    other_file,
    processor,
    software,
    told_differences,
    why_other,
)
from scale.pipeline.cluster_places import ClusterPlace, places_of, wants_gpus
from scale.pipeline.cluster_queue import SlideQueue
from scale.pipeline.cluster_worker import Order, Ready, Refused, Searched, SlideWork, Worker
from scale.pipeline.plan import Plan, Strip
from scale.pipeline.run import OnWindows
from scale.pipeline.shards import differences
from scale.pipeline.slide_job import slide_identity
from scale.pipeline.timing import StageClock
from scale.slides.base import Slide

_POLL_S = 0.1
_CENSUS_S = 1.0
# Until the first worker is ready; after it others that are not are no longer waited for.
_START_S, _LATE_S = 300.0, 20.0
_HIRES = 3
_MOST_LETTERS = 300
# Chunks of a worker: one that it works on, one that waits there.
_AHEAD = 2


@dataclass(slots=True, eq=False)
class _Hired:
    """A worker, with what it was given and has not answered, the oldest first."""

    place: ClusterPlace
    actor: Any
    ready: bool = False
    sent: deque[_Call] = field(default_factory=deque)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Call:
    """A question to a worker; with the chunk that it is about, if it is about one."""

    hired: _Hired
    then: Callable[[Any], None]
    queue: SlideQueue | None = None
    chunk: Chunk | None = None


class Fleet:
    """The workers of one run; slides are searched from any number of threads.

    One thread of its own speaks to the workers; a chunk whose worker dies goes to another.
    """

    def __init__(self, ray: Any, order: Order, *, note: Callable[[str], None]) -> None:
        """Take a connection.

        Args:
            ray: Connected.
            order: What workers are to be ready for.
            note: Is told what the user should know.
        """
        self._ray, self._order, self._note = ray, order, note
        self._gpus = wants_gpus(ray.nodes(), order.device)
        self._hired: dict[ClusterPlace, _Hired] = {}
        self._calls: dict[Any, _Call] = {}
        self._spoilt: dict[ClusterPlace, int] = {}
        self._queues: list[SlideQueue] = []
        self._ready: Ready | None = None
        self._software: dict[str, str] = software()
        self._notes: set[str] = set()
        self._error: BaseException | None = None
        self._reason = "there is no room for one"
        self._begun = self._stopping = False
        self._next_census_s = 0.0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._guarded, name="scale cluster", daemon=True)

    def begin(self) -> Ready:
        """Hire workers and wait until they have opened the models; what they have opened.

        Raises:
            RedlineError: a worker has other software or models, cannot open the models, or none can be had.
        """
        self._thread.start()
        start_s = time.monotonic()
        first_s: float | None = None
        with self._changed:
            while self._error is None:
                now_s = time.monotonic()
                first_s = now_s if first_s is None and self._ready is not None else first_s
                if first_s is None and now_s - start_s > _START_S:
                    self._error = DeviceError(f"no worker was ready after {_START_S:.0f} s: {self._reason}; {_STATUS}")
                elif self._ready is not None and (self._all_ready() or now_s - (first_s or now_s) > _LATE_S):
                    self._begun = True
                    return self._ready
                else:
                    self._changed.wait(_POLL_S)
        raise self._error

    @property
    def size(self) -> int:
        """How many workers are ready."""
        return sum(hired.ready for hired in list(self._hired.values()))

    def search(
        self, slide: Slide, plan: Plan, strips: Sequence[Strip], *, clock: StageClock, on_windows: OnWindows
    ) -> Generator[StripResult, None, None]:
        """Give the results of a slide's strips as they come.

        Raises:
            RedlineError: the slide cannot be searched by the workers, or there are none left.
            KeyboardInterrupt: :meth:`interrupt` was called.
        """
        if not strips:
            return
        path = slide.path.absolute()
        work = self._ray.put(SlideWork(path=path, identity=slide_identity(slide), plan=plan))
        slowest_s = max((pace.window_s for pace in self._ready.paces), default=0.0) if self._ready else 0.0
        chunks = chunks_of(plan, strips, workers=self.size, window_s=slowest_s)
        queue = SlideQueue(work, plan, chunks)
        with self._changed:
            self._queues.append(queue)
            if self._error is not None:
                queue.fail(self._error)
        try:
            for chunk, results, timing in queue.results():
                if timing is not None:
                    clock.add_elsewhere(timing)
                on_windows(chunk.windows)
                yield from results
        finally:
            with self._changed:
                self._queues.remove(queue)

    def interrupt(self) -> None:
        """Have every search end at once by KeyboardInterrupt."""
        self._fail(KeyboardInterrupt())

    def close(self) -> None:
        """Let all workers go."""
        self._stopping = True
        if self._thread.is_alive():
            self._thread.join()
        for hired in self._hired.values():
            self._kill(hired)
        self._hired.clear()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            for queue in self._queues:
                queue.fail(self._error)
            self._changed.notify_all()

    def _guarded(self) -> None:
        try:
            while not self._stopping and self._error is None:
                self._hire()
                self._hand_out()
                self._listen()
        except RedlineError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 (the edge of a thread: whoever waits raises it)
            self._fail(DeviceError(f"the connection to the cluster broke: {type(error).__name__}: {error}"))

    def _hire(self) -> None:
        """Look which machines there are now, and put a worker wherever there is none."""
        if time.monotonic() < self._next_census_s:
            return
        self._next_census_s = time.monotonic() + _CENSUS_S
        places = places_of(self._ray.nodes(), gpus=self._gpus, threads=self._order.threads)
        for place in [place for place, hired in self._hired.items() if place not in places and not hired.sent]:
            self._let_go(self._hired[place])
        able = [place for place in places if self._spoilt.get(place, 0) < _HIRES]
        for place in able:
            if place not in self._hired:
                self._start(place)
        if not able and not self._hired:
            raise DeviceError(f"the cluster has no machine left that can search: {self._reason}; {_STATUS}")

    def _start(self, place: ClusterPlace) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(place.node, soft=False)
        remote = self._ray.remote(max_restarts=0, max_task_retries=0)(Worker)
        actor = remote.options(scheduling_strategy=there, **place.demands()).remote(place.cores)
        hired = _Hired(place=place, actor=actor)
        self._hired[place] = hired
        self._ask(hired, actor.software.remote(), lambda told: self._met(hired, told))

    def _met(self, hired: _Hired, told: dict[str, str]) -> None:
        other = why_other(self._software, told)
        if other is not None:
            advice = "every machine of the cluster needs the same software, or results would not be the same"
            self._refuse(hired, DeviceError(f"{hired.place.name}: {other}; {advice}"))
            return
        self._software = {**told, **self._software}
        self._ask(hired, hired.actor.open.remote(self._order), lambda ready: self._opened(hired, ready))

    def _opened(self, hired: _Hired, ready: Ready | Refused) -> None:
        other = self._objection(hired.place, ready)
        if other is not None or isinstance(ready, Refused):
            self._refuse(hired, other or InputError(""))
            return
        self._tell(hired.place, ready)
        with self._changed:
            hired.ready = True
            self._spoilt.pop(hired.place, None)
            self._ready = self._ready or ready
            self._changed.notify_all()

    def _objection(self, place: ClusterPlace, ready: Ready | Refused) -> RedlineError | None:
        """Why a worker's answers would not be those of the others, or of this machine."""
        if isinstance(ready, Refused):
            return InputError(f"{place.name}: {ready.reason}")
        for model in ready.models:
            name = model.info.name
            other = other_file(name, ready.files.get(name, ""), str(model.info.identity["sha256"]))
            if other is not None:
                return DeviceError(f"{place.name}: {other}")
        if self._ready is None:
            return None
        known, found = ({m.info.name: to_plain(m) for m in one.models} for one in (self._ready, ready))
        texts = differences(known, found)
        if not texts:
            return None
        return DeviceError(f"{place.name}: {told_differences(texts)}; results would depend on chance")

    def _tell(self, place: ClusterPlace, ready: Ready) -> None:
        notes = list(ready.notes)
        if place.gpu and not ready.on_gpu:
            notes.append("workers have a GPU each, but their models run on the CPU; --device cpu would use all cores")
        if not place.gpu and ready.processor != processor():
            notes.append(
                f"{place.name} has another processor ({ready.processor['cpu']}) than this machine "
                f"({processor()['cpu']}); the last digits of scores may differ"
            )
        for note in notes:
            if note not in self._notes:
                self._notes.add(note)
                self._note(note)

    def _refuse(self, hired: _Hired, error: RedlineError) -> None:
        """Do without a worker; before the work has begun that ends the run."""
        self._spoilt[hired.place] = _HIRES
        self._reason = str(error)
        self._let_go(hired)
        if not self._begun:
            raise error
        self._note(f"left out: {error}")

    def _hand_out(self) -> None:
        ready = [hired for hired in self._hired.values() if hired.ready]
        names = {hired.place.name for hired in ready}
        with self._changed:
            queues = list(self._queues)
        for depth in range(_AHEAD):
            for hired in ready:
                if len(hired.sent) == depth:
                    self._give(hired, queues, names)

    def _give(self, hired: _Hired, queues: Sequence[SlideQueue], places: set[str]) -> None:
        for queue in queues:
            chunk = queue.take(hired.place.name, places)
            if chunk is not None:
                task = hired.actor.search.remote(queue.work, chunk.strips)
                self._ask(hired, task, _delivery(queue, chunk, hired.place.name), queue=queue, chunk=chunk)
                return

    def _ask(
        self,
        hired: _Hired,
        task: Any,
        then: Callable[[Any], None],
        *,
        queue: SlideQueue | None = None,
        chunk: Chunk | None = None,
    ) -> None:
        call = _Call(hired=hired, then=then, queue=queue, chunk=chunk)
        self._calls[task] = call
        hired.sent.append(call)

    def _listen(self) -> None:
        """Take the answers that are there; wait a little where there are none."""
        if not self._calls:
            with self._changed:
                self._changed.wait(_POLL_S)
            return
        answered, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=_POLL_S)
        for task in answered:
            call = self._calls[task]
            try:
                answer = self._ray.get(task)
            except self._ray.exceptions.RayError as error:
                self._lose(call, error)
                continue
            del self._calls[task]
            call.hired.sent.remove(call)
            call.then(answer)

    def _lose(self, call: _Call, error: Exception) -> None:
        """A worker is gone: what it worked on counts as tried, what waited there goes elsewhere."""
        hired, reason = call.hired, _told(error)
        self._reason = f"{hired.place.name}: {reason}"
        if hired.ready:
            self._note(f"lost the worker on {hired.place.name} ({reason}); what it worked on goes elsewhere")
        else:
            self._spoilt[hired.place] = self._spoilt.get(hired.place, 0) + 1
            if self._spoilt[hired.place] == _HIRES:
                self._note(f"left out: {self._reason}")
        calls = list(hired.sent)
        self._let_go(hired)
        self._next_census_s = 0.0
        for position, one in reversed(list(enumerate(calls))):
            if one.queue is None or one.chunk is None:
                continue
            if position:
                one.queue.give_back(one.chunk)
            else:
                one.queue.died(one.chunk, hired.place.name, reason)

    def _let_go(self, hired: _Hired) -> None:
        with self._changed:
            self._hired.pop(hired.place, None)
            for task in [task for task, call in self._calls.items() if call.hired is hired]:
                del self._calls[task]
        self._kill(hired)

    def _kill(self, hired: _Hired) -> None:
        with suppress(self._ray.exceptions.RayError, ConnectionError):  # whoever is gone need not be ended
            self._ray.kill(hired.actor)

    def _all_ready(self) -> bool:
        return bool(self._hired) and all(hired.ready for hired in self._hired.values())


_STATUS = "see: ray status"


def _delivery(queue: SlideQueue, chunk: Chunk, place: str) -> Callable[[Any], None]:
    def deliver(answer: Searched | Refused) -> None:
        if isinstance(answer, Refused):
            queue.refused(chunk, place, answer.reason)
        else:
            queue.deliver(chunk, answer.results, answer.timing)

    return deliver


def _told(error: Exception) -> str:
    """What Ray says of it, whose last line is the reason; after that come guesses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1].partition(" Some common causes")[0] if lines else "no reason given"
    return f"{type(error).__name__}: {reason[:_MOST_LETTERS]}"
