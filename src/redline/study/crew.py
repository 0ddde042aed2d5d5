"""The open workers of one generation: started and warmed up together, each held to what its cells may take."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Self

from redline.core.artifact import Layers
from redline.core.errors import RedlineError, WorkerError
from redline.core.host import available_cores
from redline.core.tensor import Array
from redline.measurement.latency import WarmUp
from redline.measurement.worker import Worker
from redline.study.config import StudyConfig
from redline.study.inputs import Inputs
from redline.study.launch import Launch
from redline.study.plan import Cell
from redline.variants import Variant

_WARM_UP_WINDOW_S = 0.2
_MOST_OPENERS = 8
_LEAST_LIMIT_S = 1.0
VariantKey = tuple[str, str]


def key_of(variant: Variant) -> VariantKey:
    """What tells a variant from the others of a study."""
    return variant.device, variant.name


def openers(threads: int) -> int:
    """How many workers of so many threads are started and asked at once."""
    return max(1, min(_MOST_OPENERS, available_cores() // max(threads, 1)))


@dataclass(slots=True)
class Member:
    """A variant that is open, its answers where it was asked, and its warm-ups by loader."""

    launch: Launch
    worker: Worker
    layers: Layers
    answers: dict[str, Array] | RedlineError | None = None
    first_call_s: float | None = None
    warm: dict[str, WarmUp] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Started:
    worker: Worker
    answers: dict[str, Array] | RedlineError | None = None
    first_call_s: float | None = None


class Crew:
    """The workers of one generation; leaving it ends them.

    Attributes:
        members: Those that opened.
    """

    def __init__(self, config: StudyConfig, inputs: Inputs, order: random.Random) -> None:
        self.members: dict[VariantKey, Member] = {}
        self._config, self._inputs, self._order = config, inputs, order
        self._spent_s: dict[str, float] = {}
        self._starting: dict[VariantKey, Future[_Started]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # A worker ends with the thread that started it: the threads stay until the workers are closed.
        self._pool = self._stack.enter_context(ThreadPoolExecutor(openers(self._config.threads)))
        self._stack.callback(self._close_all)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(
        self, launches: Mapping[VariantKey, tuple[Variant, Launch, Path | None]], ask: Collection[VariantKey]
    ) -> None:
        """Begin to start a worker for each, in an order by chance: a fixed one would favour the same ones each time.

        Those of ``ask`` answer the samples to verify on as soon as they are open.
        """
        for key in self._order.sample(list(launches), len(launches)):
            self._starting[key] = self._pool.submit(self._open, *launches[key], asked=key in ask)

    def take(self, variant: Variant, launch: Launch, cells: Sequence[Cell]) -> Member:
        """The worker of a variant that was started.

        Raises:
            WorkerError: it did not open; says why.
        """
        started = self._starting[key_of(variant)].result()
        worker = started.worker
        for cell in cells:
            self._spend(cell, worker.load_s)
        member = Member(
            launch, worker, launch.layers or worker.attribute("layers"), started.answers, started.first_call_s
        )
        self.members[key_of(variant)] = member
        return member

    def warm_up(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, WorkerError]]:
        """Call each on a cell's inputs until it settles, as many at once as find cores; those of one worker in turn.

        Yields:
            What failed, with the reason; the other cells of that worker are left out.
        """
        of: dict[VariantKey, list[Cell]] = {}
        for cell in cells:
            of.setdefault(key_of(cell.variant), []).append(cell)
        # On a GPU all would wait for one device, and none would settle.
        alone = any(cell.variant.device != "cpu" for cell in cells)
        with ThreadPoolExecutor(1 if alone else openers(self._config.threads)) as pool:
            yield from (failed for failed in pool.map(self._warm_up, of.values()) if failed is not None)

    def _warm_up(self, cells: Sequence[Cell]) -> tuple[Cell, WorkerError] | None:
        for cell in cells:
            member = self.members[key_of(cell.variant)]
            try:
                with self.budget(cell, member.worker):
                    member.warm[cell.loader] = member.worker.prepare_shared(
                        cell.loader,
                        self._inputs.handle(cell.loader),
                        limit_s=self._config.warmup_s,
                        window_s=min(_WARM_UP_WINDOW_S, 2 * self._config.window_s),
                    )
            except WorkerError as error:
                return cell, error
        return None

    @contextmanager
    def budget(self, cell: Cell, worker: Worker) -> Iterator[Worker]:
        """Hold a worker to the seconds that a cell has left, and count those that it takes."""
        left = self._config.cell_timeout_s - self._spent_s.get(cell.id, 0.0)
        worker.limit_s = max(left, _LEAST_LIMIT_S)
        started = perf_counter()
        try:
            yield worker
        finally:
            self._spend(cell, perf_counter() - started)

    def _open(self, variant: Variant, launch: Launch, file: Path | None, *, asked: bool) -> _Started:
        gpu = 0 if variant.device == "cuda" else None
        worker = Worker(launch.source, timeout_s=self._config.cell_timeout_s, cuda_device=gpu, own_files=_files(file))
        try:
            for loader in self._inputs.loaders:
                if arguments := self._inputs.loader_arguments(loader):
                    worker.open_loader(loader, self._inputs.factory, arguments)
            return self._asked(worker) if asked else _Started(worker)
        except BaseException:
            worker.close()
            raise

    def _asked(self, worker: Worker) -> _Started:
        try:
            first_call_s, answers = self._inputs.ask(worker)
        except RedlineError as error:
            return _Started(worker, error)
        return _Started(worker, answers, first_call_s)

    def _spend(self, cell: Cell, seconds: float) -> None:
        self._spent_s[cell.id] = self._spent_s.get(cell.id, 0.0) + seconds

    def _close_all(self) -> None:
        for future in self._starting.values():
            if not future.cancel():
                with suppress(RedlineError):
                    future.result().worker.close()


def _files(file: Path | None) -> tuple[Path, ...]:
    return (file,) if file is not None else ()
