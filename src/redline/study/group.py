"""Measure one group of cells: every variant in fresh processes, all of them in interleaved rounds."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from redline.core.artifact import Layers
from redline.core.errors import RedlineError, WorkerError
from redline.core.tensor import Array
from redline.measurement.gpu_state import state
from redline.measurement.worker import Worker
from redline.study.answers import agreement_of, dependence_of, variant_of
from redline.study.config import StudyConfig
from redline.study.crew import Crew, Member, VariantKey, key_of, openers
from redline.study.derive import summarize
from redline.study.files import Workshop
from redline.study.inputs import Inputs
from redline.study.journal import agreements_of, cells_of
from redline.study.launch import Launch, reason_against
from redline.study.plan import Cell, CellGroup, baseline_of, confirm_rounds, window_of
from redline.study.records import (
    Confirmed,
    DependenceFound,
    Finalists,
    Outcome,
    Phase,
    ProcessEnded,
    Record,
    Retry,
    Run,
    VariantFound,
    WindowMeasured,
)
from redline.study.rows import Row
from redline.variants import DEVICES, Variant
from redline.verification.reference import require_fp32

_MOST_CALLS = 5000
_MOST_DEVICE_CALLS = 20
_PIPELINE_ROUNDS = 2  # over all repeats, and one at least in each
_PIPELINE_CALLS = 2
_FAR_SLOWER = 1.5
Say = Callable[[str], None]
#: Chooses, among one group's rows on one device with one loader, those to measure again; the chosen one first.
Choose = Callable[[Sequence[Row], str], Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a cell has no figures."""

    outcome: Outcome
    stage: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What every group of a study is told.

    Attributes:
        run: The study's first record.
        choose: Who is measured again; None for nobody.
        say: Called with what is being done.
        took: Called with a group's slowest call, in seconds, as soon as it is known.
    """

    run: Run
    config: StudyConfig
    choose: Choose | None
    say: Say
    took: Callable[[float], None]


class GroupRun:
    """One group on its way; :meth:`records` yields what is to be written, as soon as it is known."""

    def __init__(self, group: CellGroup, workshop: Workshop, orders: Orders, past: Sequence[Record]) -> None:
        """Prepare it.

        Args:
            group: What is measured.
            workshop: Makes what the variants run.
            orders: Of the study.
            past: What an interrupted run has written of this group, and of its model.
        """
        self._group, self._workshop, self._orders, self._config = group, workshop, orders, orders.config
        self._records: list[Record] = [orders.run, *past]
        ended = cells_of(past)
        self._todo = [cell for cell in group.cells if cell.id not in ended]
        self._joined = [cell for cell in group.extra if cell.id not in ended and self._began(cell)]
        self._failures: dict[str, Failure] = {}
        self._reference: dict[str, Mapping[str, Array]] = {}
        self._with_loader_s: dict[str, float] = {}

    def records(self) -> Iterator[Record]:
        """Everything that is found out about the group and was not known."""
        for record in self._found():
            self._records.append(record)
            yield record

    def _found(self) -> Iterator[Record]:
        if self._todo or self._joined:
            self._refuse_what_cannot_run()
            yield from self._screen()
            for cell in (*self._todo, *self._joined):
                failure = self._failures.get(cell.id, Failure("measured", None, ""))
                yield cell.ended(failure.outcome, stage=failure.stage, reason=failure.reason or None)
        yield from self._confirm()

    def _screen(self) -> Iterator[Record]:
        if not self._alive():
            return
        with Inputs(self._workshop, self._group, self._config) as inputs:
            for cell in self._alive():
                if reason := inputs.reason_against(cell.loader):
                    self._failures[cell.id] = Failure("skipped", None, reason)
            first = self._config.repeats * self._tries()
            for number in range(first, first + self._config.repeats):
                yield from self._generation("screen", number, [*self._beside_retries(), *self._alive()], inputs)

    def _confirm(self) -> Iterator[Record]:
        """The baseline, its control and the finalists again, in processes that nothing was chosen by."""
        title = self._group.title
        if not self._config.confirm or self._orders.choose is None or self._has(Confirmed, title):
            return
        chosen = next((r.cells for r in self._records if isinstance(r, Finalists) and r.group == title), None)
        if chosen is None:
            chosen = self._finalists(self._orders.choose)
            yield Finalists(group=title, cells=chosen)
        cells = [cell for cell in (*self._group.cells, *self._group.extra) if cell.id in chosen]
        failed_before = set(self._failures)
        with Inputs(self._workshop, self._group, self._config) as inputs:
            for number in range(self._config.confirm if cells else 0):
                yield from self._generation("confirm", number, self._without_failures(cells), inputs)
        for cell in cells:
            if cell.id in self._failures and cell.id not in failed_before:
                failure = self._failures[cell.id]
                yield cell.ended(failure.outcome, stage=failure.stage, reason=f"when measured again: {failure.reason}")
        yield Confirmed(group=title)

    def _finalists(self, choose: Choose) -> tuple[str, ...]:
        rows = [row for row in summarize(self._records).rows if row.time_s is not None and self._is_mine(row)]
        found: list[str] = []
        for device, loader in dict.fromkeys((row.device, row.loader) for row in rows):
            series = [row for row in rows if (row.device, row.loader) == (device, loader)]
            again = list(choose(series, self._config.objective))
            found += [row.cell for row in again]
            if again:
                found += [row.cell for row in series if row.is_baseline or row.control]
        return tuple(dict.fromkeys(found))

    def _is_mine(self, row: Row) -> bool:
        return (row.model, row.batch, (row.height, row.width)) == (
            self._group.model,
            self._group.batch,
            self._group.size,
        )

    def _tries(self) -> int:
        """How often a cell that is left to do was begun anew; each time its processes get numbers of their own."""
        mine = {cell.id for cell in self._alive()}
        tries = Counter(record.cell for record in self._records if isinstance(record, Retry) and record.cell in mine)
        return max(tries.values(), default=0)

    def _beside_retries(self) -> list[Cell]:
        """The baseline and its control again: a ratio needs processes that were alive together."""
        alive = self._alive() if self._tries() else []
        points = {(cell.variant.device, cell.loader) for cell in alive}
        names = {f"{base}{again}" for base in self._orders.run.baselines.values() for again in ("", "-control")}
        return [
            cell
            for cell in self._group.cells
            if cell.variant.name in names and (cell.variant.device, cell.loader) in points and cell not in alive
        ]

    def _refuse_what_cannot_run(self) -> None:
        reasons: dict[VariantKey, str | None] = {}
        for cell in self._todo:
            key = key_of(cell.variant)
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

    def _without_failures(self, cells: Sequence[Cell]) -> list[Cell]:
        return [cell for cell in cells if cell.id not in self._failures]

    def _alive(self) -> list[Cell]:
        return self._without_failures([*self._todo, *self._joined])

    def _began(self, cell: Cell) -> bool:
        return any(isinstance(r, WindowMeasured | ProcessEnded) and r.cell == cell.id for r in self._records)

    def _has(self, kind: type[Confirmed], group: str) -> bool:
        return any(isinstance(record, kind) and record.group == group for record in self._records)

    def _order(self, what: str) -> random.Random:
        return random.Random(f"{self._config.seed}/{self._group.title}/{what}")  # noqa: S311 (an order, no secret)

    def _generation(self, phase: Phase, number: int, cells: Sequence[Cell], inputs: Inputs) -> Iterator[Record]:
        """Fresh processes: open, verify what is not known, warm up, take turns, read the memory, close."""
        ended = {
            r.cell for r in self._records if isinstance(r, ProcessEnded) and (r.phase, r.process) == (phase, number)
        }
        cells = [cell for cell in cells if cell.id not in ended]
        if not cells:
            return
        with Crew(self._config, inputs, self._order(f"start/{phase}/{number}")) as crew:
            yield from self._open(crew, self._in_opening_order(cells), cells)
            if phase == "screen" and not self._joined and (extra := self._extra()):
                self._joined = extra
                cells = [*cells, *extra]
                variants = list({key_of(cell.variant): cell.variant for cell in extra}.values())
                yield from self._open(crew, variants, extra)
            cells = self._without_failures(cells)
            self._orders.say(f"{self._group.title}: warm up")
            for cell, error in crew.warm_up(cells):
                self._fail(cell.variant, _of_same_process(cell, cells), "warm up", error)
            cells = self._without_failures(cells)
            slowest = self._slowest(cells, crew)
            self._orders.took(slowest)
            window_s = window_of(slowest, self._config.window_s)
            yield from self._turns(phase, number, cells, crew, window_s, inputs)
            for cell in self._without_failures(cells):
                yield _process_record(cell, phase, number, crew.members[key_of(cell.variant)], window_s)

    def _slowest(self, cells: Sequence[Cell], crew: Crew) -> float:
        """The slowest call that decides how long a window is: one that is far slower than the baseline does not."""
        calls = {cell.id: crew.members[key_of(cell.variant)].warm[cell.loader].call_s for cell in cells}
        base = [
            calls[cell.id] for cell in cells if cell.variant.name == self._orders.run.baselines.get(cell.variant.device)
        ]
        return min(max(calls.values(), default=0.0), _FAR_SLOWER * max(base, default=math.inf))

    def _extra(self) -> list[Cell]:
        """The cells that are measured only where every static INT8 variant was refused by the gate."""
        known = agreements_of(self._records)
        group = self._group
        static = [
            known[key]
            for cell in group.cells
            if cell.variant.file == "int8_static"
            and (key := (group.model, group.size, group.batch, *key_of(cell.variant))) in known
        ]
        if not static or any(agreement.passed for agreement in static):
            return []
        return [cell for cell in group.extra if self._reason_against(cell.variant) is None]

    def _in_opening_order(self, cells: Sequence[Cell]) -> list[Variant]:
        """The baselines first, as their answers are the reference; one is opened too where only its answers lack."""
        variants = {key_of(cell.variant): cell.variant for cell in cells}
        baselines = [b for d in DEVICES if (b := baseline_of(self._config, d)) is not None]
        lacking = {v.device for v in variants.values() if not self._verified(v)}
        for baseline in baselines:
            wanted = baseline.device in lacking and baseline.device not in self._reference
            if wanted and self._reason_against(baseline) is None:
                variants = {key_of(baseline): baseline, **variants}
        first = [key_of(baseline) for baseline in baselines]
        return sorted(variants.values(), key=lambda variant: key_of(variant) not in first)

    def _open(self, crew: Crew, variants: Sequence[Variant], cells: Sequence[Cell]) -> Iterator[Record]:
        of = {key_of(v): [cell for cell in cells if key_of(cell.variant) == key_of(v)] for v in variants}
        launches = self._launches(variants, of)
        crew.start(launches, [key_of(variant) for variant in variants if self._asks(variant)])
        for variant in variants:
            key = key_of(variant)
            if key not in launches:
                continue
            self._orders.say(f"{self._group.title}: open {variant.title}")
            try:
                member = crew.take(variant, launches[key][1], of[key])
                self._require_what_it_is_called(variant, member)
            except RedlineError as error:
                self._fail(variant, of[key], "open", error)
                continue
            yield from self._tell(variant, member, of[key])

    def _require_what_it_is_called(self, variant: Variant, member: Member) -> None:
        if (variant.control or self._is_baseline(variant)) and variant.requested == "fp32":
            evidence, doubt = (member.worker.attribute(f"precision_{name}") for name in ("evidence", "doubt"))
            require_fp32(variant.title, member.layers, evidence=evidence, doubt=doubt)

    def _is_baseline(self, variant: Variant) -> bool:
        return variant == baseline_of(self._config, variant.device)

    def _launches(
        self, variants: Sequence[Variant], of: Mapping[VariantKey, Sequence[Cell]]
    ) -> dict[VariantKey, tuple[Variant, Launch, Path | None]]:
        def launch_of(variant: Variant) -> Launch | RedlineError:
            try:
                return self._workshop.open(variant, self._group.batch)
            except RedlineError as error:
                return error

        self._orders.say(f"{self._group.title}: prepare {len(variants)} variants")
        # A builder that times kernels on the GPU wants it for itself.
        slots = 1 if any(v.device != "cpu" for v in variants) else openers(self._config.threads)
        found = {}
        with ThreadPoolExecutor(slots) as pool:
            for variant, launch in zip(variants, pool.map(launch_of, variants), strict=True):
                if isinstance(launch, RedlineError):
                    self._fail(variant, of[key_of(variant)], "build", launch)
                else:
                    found[key_of(variant)] = (variant, launch, self._workshop.file_of(variant))
        return found

    def _verified(self, variant: Variant) -> bool:
        """Whether it is known how the variant answers at this batch; a control is the baseline."""
        if variant.control:
            return True
        key = (self._group.model, self._group.size, self._group.batch, *key_of(variant))
        return key in agreements_of(self._records)

    def _described(self, variant: Variant) -> bool:
        """Whether it is written what the variant is at this batch."""
        key = (self._group.model, self._group.size, self._group.batch, *key_of(variant))
        return any(
            (r.model, r.size, r.batch, r.device, r.variant) == key for r in self._records if isinstance(r, VariantFound)
        )

    def _asks(self, variant: Variant) -> bool:
        """Whether its answers are needed: it was not verified at this batch, or is the reference of another."""
        if not self._workshop.has_samples:
            return False
        if not self._verified(variant):
            return True
        return (
            self._is_baseline(variant)
            and variant.device not in self._reference
            and self._anything_unverified(variant.device)
        )

    def _tell(self, variant: Variant, member: Member, cells: Sequence[Cell]) -> Iterator[Record]:
        """What the variant is and whether it answers as the baseline does, once a group."""
        outputs = member.answers
        if outputs is None:
            if not self._described(variant):
                yield variant_of(variant, member, self._workshop, self._group)
            return
        try:
            if isinstance(outputs, RedlineError):
                raise outputs
            if self._is_baseline(variant):
                self._reference[variant.device] = outputs
                yield from self._about_reference(outputs)
            if self._verified(variant):
                return
            found = variant_of(variant, member, self._workshop, self._group)
            if not self._described(variant):
                yield found
            reference = self._reference.get(variant.device)
            if reference is not None:
                chosen = self._workshop.samples
                yield agreement_of(found, reference, outputs, chosen, self._config, self._file_layers(variant))
        except RedlineError as error:
            self._fail(variant, cells, "verify", error)

    def _anything_unverified(self, device: str) -> bool:
        cells = (*self._todo, *self._group.extra)
        return any(cell.variant.device == device and not self._verified(cell.variant) for cell in cells)

    def _file_layers(self, variant: Variant) -> Layers:
        record = self._workshop.record_of(variant)
        return Layers.of(dict(record.layers) if record else {})

    def _about_reference(self, outputs: Mapping[str, Array]) -> Iterator[Record]:
        model, size = self._group.model, self._group.size
        if any(isinstance(r, DependenceFound) and (r.model, r.size) == (model, size) for r in self._records):
            return
        yield dependence_of(model, size, outputs, self._workshop.samples.verification)

    def _turns(
        self, phase: Phase, number: int, cells: Sequence[Cell], crew: Crew, window_s: float, inputs: Inputs
    ) -> Iterator[Record]:
        done = {
            (r.cell, r.round)
            for r in self._records
            if isinstance(r, WindowMeasured) and (r.phase, r.process) == (phase, number)
        }
        order = self._order(f"turns/{phase}/{number}")
        rounds = self._config.rounds if phase == "screen" else confirm_rounds(self._config)
        for index in range(rounds):
            turns = list(cells)
            order.shuffle(turns)
            what = "round" if phase == "screen" else "measure the finalists again, round"
            generations = self._config.repeats if phase == "screen" else self._config.confirm
            self._orders.say(
                f"{self._group.title}: {what} {index + 1} of {rounds}, processes {number + 1} of {generations}"
            )
            for cell in turns:
                if cell.id in self._failures or (cell.id, index) in done:
                    continue
                try:
                    with crew.budget(cell, crew.members[key_of(cell.variant)].worker) as worker:
                        turn = worker.window(cell.loader, duration_s=window_s, min_calls=1, max_calls=_MOST_CALLS)
                        more = self._beside(cell, worker, inputs, (phase, index), window_s)
                except WorkerError as error:
                    self._fail(cell.variant, _of_same_process(cell, cells), "measure", error)
                    continue
                yield replace(
                    more,
                    process=number,
                    samples_s=turn.samples_s,
                    disturbance=turn.disturbance,
                    gpu=state(0) if cell.variant.device == "cuda" else None,
                )

    def _beside(
        self, cell: Cell, worker: Worker, inputs: Inputs, at: tuple[Phase, int], window_s: float
    ) -> WindowMeasured:
        """A window's record with the device's own times, and those of loader and model together."""
        record = WindowMeasured(cell=cell.id, phase=at[0], process=0, round=at[1], samples_s=())
        if cell.variant.device == "cuda":
            record = replace(record, device_s=tuple(worker.device_times(cell.loader, _MOST_DEVICE_CALLS)))
        if not self._wants_pipeline(cell, at) or not inputs.loader_arguments(cell.loader):
            return record
        ahead, in_line = (
            tuple(worker.time_pipeline(cell.loader, duration_s=window_s, min_calls=_PIPELINE_CALLS, prefetch=prefetch))
            for prefetch in (True, False)
        )
        self._with_loader_s[cell.id] = min(in_line)
        return replace(record, pipeline_s=ahead, serial_s=in_line)

    def _wants_pipeline(self, cell: Cell, at: tuple[Phase, int]) -> bool:
        """Twice a cell; once where a batch takes as long as a window, as that is decoding images most of the time."""
        phase, index = at
        if phase != "screen" or index * self._config.repeats >= _PIPELINE_ROUNDS:
            return False
        return self._with_loader_s.get(cell.id, 0.0) < self._config.window_s

    def _fail(self, variant: Variant, cells: Sequence[Cell], stage: str, error: RedlineError) -> None:
        if self._is_baseline(variant) and self._orders.run.purpose == "tune" and variant.device not in self._reference:
            raise WorkerError(f"the reference itself ({variant.title}) failed to {stage}: {error}") from error
        for cell in cells:
            self._failures.setdefault(cell.id, Failure("failed", stage, str(error)))


def _of_same_process(cell: Cell, cells: Sequence[Cell]) -> list[Cell]:
    return [other for other in cells if key_of(other.variant) == key_of(cell.variant)]


def _process_record(cell: Cell, phase: Phase, number: int, member: Member, window_s: float) -> ProcessEnded:
    warm = member.warm[cell.loader]
    return ProcessEnded(
        cell=cell.id,
        phase=phase,
        process=number,
        load_s=member.worker.load_s,
        first_call_s=member.first_call_s or warm.first_call_s,
        warm_up_calls=warm.calls,
        stable=warm.stable,
        window_s=window_s,
        memory=member.worker.memory(),
    )
