"""From the records of a run to its rows; statistics are derived here and nowhere else."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from statistics import fmean, median
from typing import Any, TypeVar

from redline.core.artifact import Layers
from redline.core.errors import ArtifactError
from redline.core.packages import PACKAGES
from redline.measurement.ceiling import Limit, limit_of
from redline.measurement.disturbance import Disturbance, Evidence, kept_rounds
from redline.measurement.stats import Ratio, percentile, ratio_of_processes
from redline.study.records import (
    AgreementFound,
    ArtifactMade,
    Bandwidth,
    Ceiling,
    CellEnded,
    Conclusion,
    DependenceFound,
    Macs,
    Node,
    Phase,
    ProcessEnded,
    Record,
    Retry,
    Run,
    Size,
    VariantFound,
    WindowMeasured,
)
from redline.study.rows import SAMPLES_FOR_P99, UNFINISHED, Process, Row, Study

T = TypeVar("T")
_WEIGHT_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1}
_RUNTIMES = frozenset(package.module for package in PACKAGES if package.recorded)
#: An idle GPU lowers its clock by itself; that is no throttling.
_NO_THROTTLE = frozenset(("gpu_idle", "idle", "none"))
#: A control and its twin need the same memory within this, or the column says nothing.
MEMORY_BAND = 0.05
Turns = Mapping[tuple[Phase, int, int], WindowMeasured]
Key = tuple[str, Size, int, str, str]


def summarize(records: Sequence[Record]) -> Study:
    """Derive the rows of one run, finished or not.

    Raises:
        ArtifactError: the first record is no run.
    """
    run = run_of(records)
    conclusions = _of(records, Conclusion)
    conclusion = conclusions[-1] if conclusions else None
    ceilings = {(r.device, r.precision): r.gflops for r in _of(records, Ceiling)}
    bandwidth = {r.device: r.gbytes_per_s for r in _of(records, Bandwidth)}
    macs = {(r.model, r.size): r.macs_per_sample for r in _of(records, Macs)}
    facts = _Facts(records)
    parameters = {model.name: model.parameters for model in run.models}

    def with_limit(row: Row) -> Row:
        limit = Limit(
            gflops={precision: rate for (device, precision), rate in ceilings.items() if device == row.device},
            gbytes_per_s=bandwidth.get(row.device),
            macs_per_sample=macs.get((row.model, (row.height, row.width))),
            weight_count=parameters.get(row.model),
        )
        return _with_limit(row, limit)

    rows = [with_limit(facts.fill(row, parameters.get(row.model))) for row in _bare_rows(records)]
    compared = _compared(run, rows)
    marked = [_mark(row, conclusion) for row in compared]
    return Study(
        run=run,
        rows=tuple(sorted(marked, key=_order(run, marked))),
        artifacts=tuple({r.path: r for r in _of(records, ArtifactMade)}.values()),
        ceilings=ceilings,
        bandwidth=bandwidth,
        macs=macs,
        dependence={(r.model, r.size): r for r in _of(records, DependenceFound)},
        conclusion=conclusion,
        nodes={r.node: r for r in _of(records, Node)},
    )


def run_of(records: Sequence[Record]) -> Run:
    """The first record.

    Raises:
        ArtifactError: it is no run.
    """
    if not records or not isinstance(records[0], Run):
        raise ArtifactError("the first line is no run record; expected the results of redline tune or bench")
    return records[0]


def parse_cell(cell: str) -> CellEnded:
    """The parts of a cell's id, of one that was begun and not finished; a model's name may hold slashes.

    >>> parse_cell("nets/small/torch-eager-fp32/cpu/dummy/8x32x64").size
    (32, 64)
    """
    model, variant, device, loader, point = cell.rsplit("/", 4)
    batch, *size = (int(number) for number in point.split("x"))
    return CellEnded(
        cell=cell,
        model=model,
        variant=variant,
        device=device,
        loader=loader,
        batch=batch,
        size=(size[0], size[1]) if size else (0, 0),
        outcome="skipped",
        reason=UNFINISHED,
        control=variant.endswith("-control"),
    )


def _of(records: Iterable[Record], kind: type[T]) -> list[T]:
    return [record for record in records if isinstance(record, kind)]


def _bare_rows(records: Sequence[Record]) -> Iterator[Row]:
    """Rows that know only what their cell's record says; a cell without one was begun and not finished."""
    found: dict[str, CellEnded] = {}
    for record in records:
        match record:
            case CellEnded():
                found[record.cell] = record
            case Retry():
                found.pop(record.cell, None)
            case WindowMeasured() | ProcessEnded() if record.cell not in found:
                found[record.cell] = parse_cell(record.cell)
    for cell in found.values():
        height, width = cell.size
        yield Row(
            cell=cell.cell,
            model=cell.model,
            variant=cell.variant,
            title=cell.variant,
            backend="",
            runtime="",
            requested="",
            precision="none",
            layers_text="",
            device=cell.device,
            loader=cell.loader,
            batch=cell.batch,
            height=height,
            width=width,
            outcome=cell.outcome,
            stage=cell.stage,
            reason=cell.reason,
            node=cell.node,
            control=cell.control,
        )


class _Facts:
    """What the records say about a cell, found by its key; later records replace earlier ones."""

    def __init__(self, records: Sequence[Record]) -> None:
        variants = _of(records, VariantFound)
        self._variants: dict[Key, VariantFound] = {_key(r): r for r in variants}
        self._namesakes = {(r.variant, r.device): r for r in variants}
        self._agreement: dict[Key, AgreementFound] = {_key(r): r for r in _of(records, AgreementFound)}
        self._turns: dict[str, dict[tuple[Phase, int, int], WindowMeasured]] = defaultdict(dict)
        for turn in _of(records, WindowMeasured):
            self._turns[turn.cell][turn.phase, turn.process, turn.round] = turn
        self._ended: dict[str, dict[tuple[Phase, int], ProcessEnded]] = defaultdict(dict)
        for process in _of(records, ProcessEnded):
            self._ended[process.cell][process.phase, process.process] = process
        self._kept = _kept(self._turns)

    def fill(self, row: Row, parameters: int | None) -> Row:
        """The row with everything that is known about it; numbers only where the cell was measured."""
        key = (row.model, (row.height, row.width), row.batch, row.variant, row.device)
        told = self._variants.get(key)
        row = _with_variant(row, told, self._namesakes.get((row.variant, row.device)))
        row = replace(row, weights_bytes=_weights_bytes(told, parameters))
        row = _with_agreement(row, self._agreement.get(key))
        if row.outcome != "measured":
            return row
        row = _with_processes(row, list(self._ended[row.cell].values()))
        return _with_times(row, self._turns[row.cell], self._kept[_group(row.cell)], self._ended[row.cell])


def _key(record: VariantFound | AgreementFound) -> Key:
    return record.model, record.size, record.batch, record.variant, record.device


def _group(cell: str) -> tuple[str, str]:
    """What was interleaved with it: all cells of its model, batch and size."""
    model, _, _, _, point = cell.rsplit("/", 4)
    return model, point


def _kept(turns: Mapping[str, Turns]) -> Mapping[tuple[str, str], Mapping[tuple[Phase, int, int], bool]]:
    """Whether each round of each group was left undisturbed: one judgement for all of its cells."""
    rounds: dict[tuple[str, str], dict[tuple[Phase, int], dict[int, list[Disturbance]]]] = {}
    for cell, own in turns.items():
        group = rounds.setdefault(_group(cell), {})
        for (phase, process, number), turn in own.items():
            group.setdefault((phase, process), {}).setdefault(number, []).append(turn.disturbance)
    found: dict[tuple[str, str], dict[tuple[Phase, int, int], bool]] = defaultdict(dict)
    for group_key, generations in rounds.items():
        for (phase, process), by_round in generations.items():
            numbers = sorted(by_round)
            verdicts = kept_rounds([by_round[number] for number in numbers])
            for number, kept in zip(numbers, verdicts, strict=True):
                found[group_key][phase, process, number] = kept
    return found


def _with_variant(row: Row, record: VariantFound | None, namesake: VariantFound | None) -> Row:
    """What ran; of a variant that never opened here, the title and the request are known from elsewhere in the run."""
    told = record or namesake
    if told is None:
        return row
    row = replace(
        row,
        title=told.title,
        backend=told.backend,
        runtime=told.runtime,
        requested=told.requested,
        note=told.note,
        control=told.control,
    )
    if record is None:
        return row
    layers = Layers.of(dict(record.layers)) if record.layers else None
    return replace(
        row,
        precision=record.precision,
        layers_text=layers.describe() if layers else record.precision,
        precision_evidence=record.evidence,
        elsewhere=record.elsewhere,
        versions={**_runtimes(record.platform), **record.versions},
        size_bytes=_positive([record.size_bytes]),
    )


def _runtimes(platform: Mapping[str, str]) -> dict[str, str]:
    """Of what an engine was made for, the versions of packages; the rest is its machine."""
    return {name: version for name, version in platform.items() if name.replace("-", "_") in _RUNTIMES}


def _weights_bytes(record: VariantFound | None, parameters: int | None) -> int | None:
    """The weights as the variant holds them; TensorRT converts those of its file to what its layers compute in."""
    if record is None:
        return None
    if not record.backend.startswith("tensorrt"):
        return _positive([record.weights_bytes])
    each = _WEIGHT_BYTES.get(record.layers[0][0]) if len(record.layers) == 1 else None
    return parameters * each if parameters and each else None


def _with_agreement(row: Row, record: AgreementFound | None) -> Row:
    if record is None:
        return row
    accuracy, reference = record.accuracy, record.reference_accuracy
    return replace(
        row,
        samples=record.samples,
        max_abs=max((o.max_abs for o in record.outputs if o.max_abs is not None), default=None),
        cosine=min((o.cosine for o in record.outputs if o.cosine is not None), default=None),
        relative_error=record.relative_error,
        top1_agreement=record.top1_agreement,
        accuracy=accuracy,
        accuracy_drop=reference - accuracy if accuracy is not None and reference is not None else None,
        finite=record.finite,
        passed=record.passed,
        gate_reason=record.reason,
    )


def _with_processes(row: Row, records: Sequence[ProcessEnded]) -> Row:
    if not records:
        return row
    return replace(
        row,
        host_bytes=_positive(r.memory.private_peak_bytes for r in records),
        device_bytes=_positive(r.memory.device_peak_bytes for r in records),
        allocator_bytes=_positive(r.memory.allocator_peak_bytes for r in records),
        load_s=median(r.load_s for r in records),
        first_call_s=median(r.first_call_s for r in records),
        # One process among several that did not settle shows in their spread.
        stable=2 * sum(r.stable for r in records) > len(records),
    )


def _positive(values: Iterable[int | None]) -> int | None:
    """The largest; nothing and less than nothing is no size of memory but a reading that failed."""
    return max((value for value in values if value is not None and value > 0), default=None)


def _with_times(
    row: Row,
    turns: Turns,
    kept: Mapping[tuple[Phase, int, int], bool],
    ended: Mapping[tuple[Phase, int], ProcessEnded],
) -> Row:
    by_device = row.device == "cuda" and bool(turns) and all(turn.device_s for turn in turns.values())
    processes = _processes(turns, kept, lambda turn: turn.device_s if by_device else turn.samples_s)
    row = replace(row, processes=processes, confirmed=any(phase == "confirm" for phase, _ in ended))
    times = row.samples_s
    if not times:
        return row
    gpu = [turn.gpu for turn in turns.values() if turn.gpu is not None]
    clocks = [state.sm_mhz for state in gpu if state.sm_mhz]
    mean_s = sum(times) / len(times)
    return replace(
        row,
        clock="device" if by_device else "host",
        time_s=percentile(times, 50),
        p90_s=percentile(times, 90),
        p99_s=percentile(times, 99) if len(times) >= SAMPLES_FOR_P99 else None,
        mean_s=mean_s,
        calls=len(times),
        throughput_per_s=row.batch / mean_s,
        latency_s=_median_of(turns, lambda turn: turn.samples_s),
        device_s=_median_of(turns, lambda turn: turn.device_s) if row.device == "cuda" else None,
        pipeline_s=_median_of(turns, lambda turn: turn.pipeline_s),
        serial_s=_median_of(turns, lambda turn: turn.serial_s),
        sm_mhz=median(clocks) if clocks else None,
        lowest_sm_mhz=min(clocks, default=None),
        throttled=tuple(sorted({why for state in gpu for why in state.throttle} - _NO_THROTTLE)),
    )


def _processes(
    turns: Turns,
    kept: Mapping[tuple[Phase, int, int], bool],
    seconds: Callable[[WindowMeasured], tuple[float, ...]],
) -> tuple[Process, ...]:
    """A window that is missing stays empty, so that rounds still pair by their number."""
    last: dict[tuple[Phase, int], int] = {}
    for phase, process, number in turns:
        last[phase, process] = max(last.get((phase, process), 0), number + 1)
    found = []
    for (phase, process), count in sorted(last.items(), key=lambda item: (item[0][0] != "screen", item[0][1])):
        own = [turns.get((phase, process, number)) for number in range(count)]
        found.append(
            Process(
                phase=phase,
                number=process,
                rounds_s=tuple(seconds(turn) if turn else () for turn in own),
                kept=tuple(kept.get((phase, process, number), False) for number in range(count)),
                disturbances=tuple(turn.disturbance if turn else Disturbance() for turn in own),
            )
        )
    return tuple(found)


def _median_of(turns: Turns, seconds: Callable[[WindowMeasured], tuple[float, ...]]) -> float | None:
    values = [second for turn in turns.values() for second in seconds(turn)]
    return percentile(values, 50) if values else None


def _with_limit(row: Row, limit: Limit) -> Row:
    if row.time_s is None:
        return row
    least = limit_of(limit, precision=row.precision, batch=row.batch)
    return row if least is None else replace(row, share_of_limit=least.seconds / row.time_s, limit_by=least.by)


def _compared(run: Run, rows: Sequence[Row]) -> list[Row]:
    """The rows with their ratio to the baseline of their point, and whether the memory column is sound there."""
    timed = [row for row in rows if row.time_s is not None]
    baselines = {(*r.point, r.clock): r for r in timed if r.variant == run.baselines.get(r.device) and not r.control}
    controls = {(*r.point, r.clock): r for r in timed if r.control}
    return [
        with_ratio(
            row,
            baselines.get((*row.point, row.clock)),
            controls.get((*row.point, row.clock)),
            threads=run.settings.threads,
        )
        for row in rows
    ]


def with_ratio(row: Row, baseline: Row | None, control: Row | None, *, threads: int) -> Row:
    """The row with its ratio to the baseline of its point, and what that rests on; ``threads`` of every runtime."""
    if baseline is None or row.time_s is None:
        return row
    row = replace(row, memory_sound=_memory_sound(baseline, control))
    if row is baseline or row.cell == baseline.cell:
        return replace(row, is_baseline=True)
    ratio, evidence = compare_rows(baseline, row, control if not row.control else None)
    return replace(row, ratio=ratio, evidence=replace(evidence, threads=threads))


def compare_rows(slower: Row, faster: Row, twin: Row | None = None) -> tuple[Ratio | None, Evidence]:
    """How many times faster one row of a group is than another, and what that rests on.

    Args:
        slower: The one that is compared with.
        faster: The other.
        twin: What the first was entered as a second time.
    """
    phase: Phase = "confirm" if faster.confirmed and slower.confirmed else "screen"
    evidence = _evidence(slower, faster, phase, twin)
    if evidence.control is None:  # that of their group, which they were set against before
        told = [row.evidence.control for row in (faster, slower) if row.evidence is not None]
        evidence = replace(evidence, control=next((control for control in told if control is not None), None))
    return _ratio(slower, faster, phase, twin), evidence


def _memory_sound(baseline: Row, control: Row | None) -> bool | None:
    name = "device_bytes" if baseline.device == "cuda" else "host_bytes"
    sizes = [getattr(row, name) for row in (baseline, control)] if control else []
    if len(sizes) != 2 or None in sizes:
        return None
    return bool(abs(sizes[0] - sizes[1]) <= MEMORY_BAND * max(sizes))


def _ratio(baseline: Row, row: Row, phase: Phase, twin: Row | None) -> Ratio | None:
    """How many times faster the row is than the baseline, taken as the mean of its two entries where there are two."""
    mine = {process.number: process for process in row.processes if process.phase == phase}
    base = {process.number: process for process in baseline.processes if process.phase == phase}
    again = {p.number: p for p in twin.processes if p.phase == phase} if twin else {}
    both = sorted(mine.keys() & base.keys())
    return ratio_of_processes(
        [_mean_of(base[number], again.get(number)) for number in both],
        [mine[number].means_s for number in both],
        shrink=phase == "screen",
    )


def _mean_of(process: Process, twin: Process | None) -> tuple[float | None, ...]:
    """The geometric mean of two processes' rounds; of a round that one lacks, the other's."""
    if twin is None:
        return process.means_s
    pairs = zip_longest(process.means_s, twin.means_s)
    return tuple(math.sqrt(a * b) if a is not None and b is not None else a or b for a, b in pairs)


def _evidence(baseline: Row, row: Row, phase: Phase, twin: Row | None) -> Evidence:
    """What the ratio rests on: of the two sides, the worse one."""
    sides = [[p for p in one.processes if p.phase == phase] for one in (baseline, row)]
    both = {p.number for p in sides[0]} & {p.number for p in sides[1]}
    mine = [p for side in sides for p in side if p.number in both]
    rounds = [p for p in sides[1] if p.number in both]
    counts = [[len(calls) for p in side for calls in p.rounds_s if calls] for side in sides]
    windows = [sum(calls) for side in sides for p in side for calls in p.rounds_s if calls]
    control = _ratio(baseline, twin, phase, None) if twin is not None else None
    return Evidence(
        processes=len(both),
        confirmed=phase == "confirm",
        rounds=sum(len(p.kept) for p in rounds),
        kept=sum(sum(p.kept) for p in rounds),
        calls_per_window=min((float(median(count)) for count in counts if count), default=0.0),
        window_s=median(windows) if windows else 0.0,
        run_delay=_worst(sides, "run_delay", median),
        steal=_worst([mine], "steal", fmean),
        control=control,
        stable=baseline.stable is not False and row.stable is not False,
    )


def _worst(sides: Sequence[Sequence[Process]], name: str, typical: Callable[[Sequence[float]], float]) -> float | None:
    """What is typical of the windows of a side, of the worse one."""
    found = []
    for side in sides:
        told = [value for p in side for one in p.disturbances if (value := getattr(one, name)) is not None]
        if told:
            found.append(typical(told))
    return max(found, default=None)


def _mark(row: Row, conclusion: Conclusion | None) -> Row:
    if conclusion is None or row.control:
        return row
    return replace(
        row,
        pareto=row.variant in conclusion.pareto and row.batch == conclusion.batch,
        recommended=row.variant == conclusion.recommended and row.batch == conclusion.batch,
    )


def _order(run: Run, rows: Sequence[Row]) -> Callable[[Row], tuple[int, ...]]:
    asked = run.settings
    models = _unique([*asked.models, *(row.model for row in rows)])
    sizes = _unique([*asked.sizes, *((r.height, r.width) for r in rows)])
    devices = _unique([*asked.devices, *(row.device for row in rows)])
    loaders = _unique([*asked.loaders, *(row.loader for row in rows)])
    variants = _unique([*run.variants, *(row.variant for row in rows)])
    return lambda row: (
        models[row.model],
        sizes[row.height, row.width],
        row.batch,
        devices[row.device],
        loaders[row.loader],
        variants[row.variant],
    )


def _unique(values: Iterable[Any]) -> dict[Any, int]:
    """The place of each value, in the order of its first appearance."""
    return {value: place for place, value in enumerate(dict.fromkeys(values))}
