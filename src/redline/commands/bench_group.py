"""Measure one group of cells: every variant in a process of its own, all of them in interleaved rounds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from redline.commands.bench_inputs import VERIFICATION, Inputs
from redline.commands.bench_workshop import Workshop
from redline.commands.ways import reason_against
from redline.core.artifact import Layers
from redline.core.errors import RedlineError, WorkerError
from redline.core.host import available_cores
from redline.core.tensor import Array
from redline.grid.cells import Cell, Group, baseline_of
from redline.grid.config import GridConfig
from redline.measurement.gpu_state import state
from redline.measurement.latency import WarmUp
from redline.measurement.results import Record
from redline.measurement.worker import Source, Worker
from redline.variants import Variant
from redline.verification.compare import compare_outputs

_MOST_CALLS = 500
_MOST_DEVICE_CALLS = 20
_PIPELINE_ROUNDS = 2  # over all repeats, and one at least in each
_WARM_UP_WINDOW_S = 0.2
_MOST_OPENERS = 8
_PIPELINE_CALLS = 2
_LEAST_LIMIT_S = 1.0
Key = tuple[str, str]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Done:
    """What an interrupted run has finished: cells, and their rounds and processes by repeat."""

    cells: frozenset[str] = frozenset()
    rounds: frozenset[tuple[str, int, int]] = frozenset()
    processes: frozenset[tuple[str, int]] = frozenset()
    variants: frozenset[tuple[str, ...]] = frozenset()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a cell has no figures."""

    outcome: str
    stage: str | None
    reason: str


@dataclass(slots=True)
class Opened:
    """A variant that is open, the first call that it ever answered, and its warm-ups by loader."""

    worker: Worker
    layers: Layers
    first_call_s: float | None = None
    warm: dict[str, WarmUp] = field(default_factory=dict)


class GroupBench:
    """One group on its way; :meth:`records` yields what is to be written, as soon as it is known."""

    def __init__(self, group: Group, workshop: Workshop, config: GridConfig, done: Done, say: Say) -> None:
        self._group, self._workshop, self._config, self._done, self._say = group, workshop, config, done, say
        self._todo = [cell for cell in group.cells if cell.id not in done.cells]
        self._failures: dict[str, Failure] = {}
        self._spent_s: dict[str, float] = {}
        self._told: set[Key] = set()
        self._reference: dict[str, Mapping[str, Array]] = {}
        self._with_loader_s: dict[str, float] = {}

    def records(self) -> Iterator[Record]:
        """Everything that is found out about the cells that are not finished yet."""
        self._refuse_what_cannot_run()
        if self._alive():
            with ExitStack() as stack:
                inputs = stack.enter_context(Inputs(self._workshop, self._group, self._config))
                for cell in self._alive():
                    if reason := inputs.reason_against(cell.loader):
                        self._failures[cell.id] = Failure("skipped", None, reason)
                for repeat in range(self._config.repeats):
                    yield from self._repeat(repeat, inputs)
        for cell in self._todo:
            failure = self._failures.get(cell.id, Failure("measured", None, ""))
            yield {
                "kind": "cell",
                **cell.fields(),
                "outcome": failure.outcome,
                "stage": failure.stage,
                "reason": failure.reason or None,
            }

    def _refuse_what_cannot_run(self) -> None:
        reasons: dict[Key, str | None] = {}
        for cell in self._todo:
            key = _key(cell.variant)
            if key not in reasons:
                reasons[key] = cell.refused or self._reason_against(cell.variant)
            if reason := reasons[key]:
                self._failures[cell.id] = Failure("skipped", None, reason)

    def _reason_against(self, variant: Variant) -> str | None:
        interpreter = dict(self._config.interpreters).get(variant.backend, "")
        if (reason := reason_against(variant, interpreter)) is not None:
            return reason
        if self._workshop.model.ref is None and variant.file is None:
            return f"{self._group.model} is an ONNX file, and this runs PyTorch models"
        return None

    def _alive(self) -> list[Cell]:
        return [cell for cell in self._todo if cell.id not in self._failures]

    def _repeat(self, repeat: int, inputs: Inputs) -> Iterator[Record]:
        """One generation of processes: open, warm up, take turns, read the memory, close."""
        cells = [cell for cell in self._alive() if (cell.id, repeat) not in self._done.processes]
        if not cells:
            return
        self._spent_s.clear()
        variants = self._in_opening_order(cells)
        of = {_key(variant): [cell for cell in cells if _key(cell.variant) == _key(variant)] for variant in variants}
        sources = [(variant, self._build(variant, of[_key(variant)])) for variant in variants]
        with ExitStack() as stack:
            # A worker ends with the thread that started it: the threads stay until the workers are closed.
            pool = stack.enter_context(ThreadPoolExecutor(openers()))
            ready = [(variant, found) for variant, found in sources if found is not None]
            # A fixed order of starting would favour the same ones each time.
            by_chance = self._order(f"start/{repeat}").sample(ready, len(ready))
            starting = {_key(v): pool.submit(self._start, v, found[0], inputs) for v, found in by_chance}
            stack.callback(_close_all, starting.values())
            opened: dict[Key, Opened] = {}
            for variant, (_, layers) in ready:
                self._say(f"{self._group.title}: open {variant.title}")
                one = self._opened(starting[_key(variant)], layers, of[_key(variant)])
                if one is not None:
                    opened[_key(variant)] = one
                    yield from self._tell(variant, one, inputs)
                    self._warm_up(one, of[_key(variant)], inputs)
            yield from self._turns(repeat, cells, opened, inputs)
            for cell in cells:
                if cell.id not in self._failures:
                    yield _process_record(cell, repeat, opened[_key(cell.variant)])

    def _order(self, what: str) -> random.Random:
        return random.Random(f"{self._config.seed}/{self._group.title}/{what}")  # noqa: S311 (an order, no secret)

    def _in_opening_order(self, cells: list[Cell]) -> list[Variant]:
        """The baselines first, as their answers are the reference."""
        variants = {_key(cell.variant): cell.variant for cell in cells}
        for device in dict.fromkeys(cell.variant.device for cell in cells):
            baseline = baseline_of(self._config, device)
            if baseline is not None and device not in self._reference and self._reason_against(baseline) is None:
                variants = {_key(baseline): baseline, **variants}
        baselines = {_key(b) for d in ("cpu", "cuda") if (b := baseline_of(self._config, d)) is not None}
        return sorted(variants.values(), key=lambda variant: _key(variant) not in baselines)

    def _build(self, variant: Variant, cells: list[Cell]) -> tuple[Source, Layers | None] | None:
        """Make what it runs; one at a time, as TensorRT times its kernels meanwhile."""
        self._say(f"{self._group.title}: prepare {variant.title}")
        try:
            return self._workshop.open(variant)
        except WorkerError as error:
            self._fail(cells, "build", error)
            return None

    def _start(self, variant: Variant, source: Source, inputs: Inputs) -> Worker:
        gpu = 0 if variant.device == "cuda" else None
        worker = Worker(source, timeout_s=self._config.cell_timeout_s, cuda_device=gpu)
        try:
            for loader in inputs.loaders:
                if arguments := inputs.loader_arguments(loader):
                    worker.open_loader(loader, inputs.factory, arguments)
        except BaseException:
            worker.close()
            raise
        return worker

    def _opened(self, starting: Future[Worker], layers: Layers | None, cells: list[Cell]) -> Opened | None:
        try:
            worker = starting.result()
            for cell in cells:
                self._spend(cell, worker.load_s)
            return Opened(worker, layers or worker.attribute("layers"))
        except WorkerError as error:
            self._fail(cells, "open", error)
            return None

    def _warm_up(self, one: Opened, cells: list[Cell], inputs: Inputs) -> None:
        for cell in cells:
            try:
                with self._budget(cell, one.worker):
                    one.warm[cell.loader] = one.worker.prepare_shared(
                        cell.loader,
                        inputs.handle(cell.loader),
                        limit_s=self._config.warmup_s,
                        window_s=min(_WARM_UP_WINDOW_S, 2 * self._config.window_s),
                    )
            except WorkerError as error:
                self._fail(self._of_same_process(cell, cells), "warm up", error)
                return

    def _turns(self, repeat: int, cells: list[Cell], opened: Mapping[Key, Opened], inputs: Inputs) -> Iterator[Record]:
        order = self._order(f"turns/{repeat}")
        for index in range(self._config.rounds):
            turns = list(cells)
            order.shuffle(turns)
            self._say(f"{self._group.title}: round {index + 1} of {self._config.rounds}")
            for cell in turns:
                if cell.id in self._failures or (cell.id, repeat, index) in self._done.rounds:
                    continue
                try:
                    with self._budget(cell, opened[_key(cell.variant)].worker) as worker:
                        found = self._window(cell, worker, inputs, index)
                except WorkerError as error:
                    self._fail(self._of_same_process(cell, cells), "measure", error)
                    continue
                yield {"kind": "samples", "cell": cell.id, "repeat": repeat, "round": index, **found}

    def _window(self, cell: Cell, worker: Worker, inputs: Inputs, index: int) -> dict[str, Any]:
        window_s = self._config.window_s
        found: dict[str, Any] = {
            "samples_s": worker.time(cell.loader, duration_s=window_s, min_calls=2, max_calls=_MOST_CALLS)
        }
        if cell.variant.device == "cuda":
            usual = min(found["samples_s"])
            calls = max(3, min(_MOST_DEVICE_CALLS, int(window_s / usual)))
            found["device_s"] = worker.device_times(cell.loader, calls)
            if (gpu := state(0)) is not None:
                found["gpu"] = gpu.to_json()
        if self._wants_pipeline(cell, index) and inputs.loader_arguments(cell.loader):
            for name, prefetch in (("pipeline_s", True), ("serial_s", False)):
                found[name] = worker.time_pipeline(
                    cell.loader, duration_s=window_s, min_calls=_PIPELINE_CALLS, prefetch=prefetch
                )
            self._with_loader_s[cell.id] = min(found["serial_s"])
        return found

    def _wants_pipeline(self, cell: Cell, index: int) -> bool:
        """Twice a cell; once where a batch takes as long as a window, as that is decoding images most of the time."""
        if index * self._config.repeats >= _PIPELINE_ROUNDS:
            return False
        return self._with_loader_s.get(cell.id, 0.0) < self._config.window_s

    def _tell(self, variant: Variant, one: Opened, inputs: Inputs) -> Iterator[Record]:
        """What the variant is and whether it answers as the baseline does, once."""
        key = _key(variant)
        is_baseline = variant == baseline_of(self._config, variant.device)
        height, width = self._group.size
        known = key in self._told or (self._group.model, f"{height}x{width}", *key) in self._done.variants
        if known and not (is_baseline and variant.device not in self._reference):
            return
        outputs = self._answers(one, inputs)
        if outputs is not None and is_baseline:
            self._reference.setdefault(variant.device, outputs)
        if known:
            return
        self._told.add(key)
        about = {"model": self._group.model, "size": [height, width], "variant": variant.name, "device": variant.device}
        yield {**_variant_record(variant, one.layers, self._workshop), **about}
        reference = self._reference.get(variant.device)
        if outputs is not None and reference is not None:
            agreement = _agreement(reference, outputs, one.layers)
            # Which class random numbers look most like says nothing.
            real = self._workshop.verification[1]
            yield {"kind": "agreement", **about, **agreement, **({} if real else {"top1_agreement": None})}

    def _answers(self, one: Opened, inputs: Inputs) -> Mapping[str, Array] | None:
        try:
            handle, count = inputs.verification()
            one.first_call_s = one.worker.prepare_shared(VERIFICATION, handle, limit_s=0.0).first_call_s
            batches = [one.worker.call_shared(VERIFICATION, index) for index in range(count)]
        except RedlineError:
            return None  # the warm-up says why, or there are no samples
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def _budget(self, cell: Cell, worker: Worker) -> _Budget:
        left = self._config.cell_timeout_s - self._spent_s.get(cell.id, 0.0)
        return _Budget(worker, max(left, _LEAST_LIMIT_S), lambda seconds: self._spend(cell, seconds))

    def _spend(self, cell: Cell, seconds: float) -> None:
        self._spent_s[cell.id] = self._spent_s.get(cell.id, 0.0) + seconds

    @staticmethod
    def _of_same_process(cell: Cell, cells: list[Cell]) -> list[Cell]:
        return [other for other in cells if _key(other.variant) == _key(cell.variant)]

    def _fail(self, cells: list[Cell], stage: str, error: RedlineError) -> None:
        for cell in cells:
            self._failures.setdefault(cell.id, Failure("failed", stage, str(error)))


class _Budget:
    """Holds a worker to the seconds that a cell has left, and counts those that it took."""

    def __init__(self, worker: Worker, left_s: float, spend: Callable[[float], None]) -> None:
        self._worker, self._left_s, self._spend = worker, left_s, spend
        self._started = 0.0

    def __enter__(self) -> Worker:
        self._worker.limit_s = self._left_s
        self._started = perf_counter()
        return self._worker

    def __exit__(self, *_: object) -> None:
        self._spend(perf_counter() - self._started)


def _close_all(starting: Iterable[Future[Worker]]) -> None:
    for future in starting:
        if not future.cancel():
            with suppress(RedlineError):
                future.result().close()


def openers() -> int:
    """How many workers are started at once: starting one takes a core and more."""
    return max(1, min(_MOST_OPENERS, available_cores() // 2))


def _key(variant: Variant) -> Key:
    return variant.device, variant.name


def _variant_record(variant: Variant, layers: Layers, workshop: Workshop) -> Record:
    file = workshop.file_of(variant)
    return {
        "kind": "variant",
        "title": variant.title,
        "backend": variant.backend,
        "runtime": variant.runtime,
        "requested": variant.requested,
        "precision": layers.precision,
        "layers": [list(pair) for pair in layers.counts],
        "artifact": file.name if file else None,
        "size_bytes": file.stat().st_size if file and file.is_file() else None,
        "weights_bytes": workshop.weights_bytes(variant),
        **workshop.engine_of(variant),
    }


def _agreement(reference: Mapping[str, Array], outputs: Mapping[str, Array], layers: Layers) -> Record:
    found = compare_outputs(dict(reference), dict(outputs), precision=layers.precision)
    errors = [output.errors.relative for output in found.outputs if output.errors]
    finite = all(bool(np.isfinite(array).all()) for array in outputs.values())
    return {
        "top1_agreement": found.top1_agreement,
        "relative_error": max(errors) if errors and finite else None,
        "finite": finite,
    }


def _process_record(cell: Cell, repeat: int, one: Opened) -> Record:
    warm, memory = one.warm[cell.loader], one.worker.memory()
    return {
        "kind": "process",
        "cell": cell.id,
        "repeat": repeat,
        "load_s": one.worker.load_s,
        "first_call_s": one.first_call_s or warm.first_call_s,
        "warm_up_calls": warm.calls,
        "stable": warm.stable,
        "memory": memory.to_json(),
    }
