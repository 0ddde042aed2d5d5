"""What is odd in a grid, with numbers and the likely cause."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from redline.findings.claims import interval_text
from redline.findings.contest import answers_differ, full_precision_peer, paired, unpaired
from redline.findings.wording import Scope, cells, digits, megabytes, milliseconds, names, share, span, unique
from redline.measurement.stats import Ratio
from redline.study.rows import Row

AnomalyKind = Literal[
    "non-monotonic",
    "fell back",
    "elsewhere",
    "fp16 in fp32",
    "fp16 no gain",
    "tf32",
    "throttled",
    "unstable",
    "not finite",
    "answers differ",
    "loader bound",
    "memory jump",
]
#: An image takes at least this much longer at the larger batch, all of the interval.
WELL_BELOW = 0.05
#: A clock under this share of the highest one seen in the run.
SLOW_CLOCK = 0.9
#: The pipeline takes at least so many times the model's own time.
LOADER_BOUND = 1.25
#: Memory grows at least so many times as much as the batch or the pixels do.
MEMORY_JUMP = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """Something that a reader of the table should know before using its numbers.

    Attributes:
        cells: The cells that show it.
        text: What was seen, one sentence with numbers.
        cause: Why, said as likely.
    """

    kind: AnomalyKind
    cells: tuple[str, ...]
    text: str
    cause: str


def find_anomalies(rows: Sequence[Row]) -> tuple[Anomaly, ...]:
    """Everything odd among those rows, what makes numbers unusable first."""
    measured = [row for row in rows if row.outcome == "measured" and row.time_s is not None and not row.control]
    scope = Scope.of(rows)
    return tuple(anomaly for find in _FINDERS for anomaly in find(measured, scope))


Rows = Sequence[Row]


def _groups(rows: Rows, *fields: str) -> list[list[Row]]:
    found: dict[Hashable, list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(getattr(row, name) for name in fields), []).append(row)
    return list(found.values())


def _anomaly(kind: AnomalyKind, rows: Rows, text: str, cause: str) -> Anomaly:
    return Anomaly(kind=kind, cells=tuple(unique(row.cell for row in rows)), text=f"{text}.", cause=f"Likely {cause}.")


def _not_finite(rows: Rows, scope: Scope) -> Iterator[Anomaly]:
    for group in _groups([row for row in rows if row.finite is False], "model", "variant", "device", "size"):
        text = f"{group[0].title} {scope.place(group[0])} answers with NaN or infinity: its times are those of garbage"
        half = group[0].requested in ("fp16", "bf16") or group[0].precision == "fp16"
        cause = "values beyond the range of FP16 (65504)" if half else "a broken conversion or a fault of the runtime"
        yield _anomaly("not finite", group, text, cause)


def _answers(rows: Rows, scope: Scope) -> Iterator[Anomaly]:
    wrong = [row for row in rows if row.finite is not False and answers_differ(row)]
    for group in _groups(wrong, "model", "variant", "device", "size"):
        row, seen = group[0], []
        if row.top1_agreement is not None:
            seen.append(f"{share(row.top1_agreement)} of its top-1 answers are the baseline's")
        if row.relative_error is not None:
            seen.append(f"its relative error is {row.relative_error:.2g}")
        quantized = row.precision in ("int8", "fp8")
        cause = (
            "layers that quantization suits badly, or calibration images unlike these"
            if quantized
            else "a wrong conversion or another preprocessing: no rounding explains it"
        )
        text = f"{row.title} {scope.place(row)} does not answer as the baseline does: {' and '.join(seen)}"
        yield _anomaly("answers differ", group, text, cause)


def _fell_back(rows: Rows, scope: Scope) -> Iterator[Anomaly]:
    # TF32 in the place of FP32 has a kind of its own.
    fell = [row for row in rows if row.fell_back and (row.requested, row.precision) != ("fp32", "tf32")]
    for group in _groups(fell, "model", "variant", "device", "requested", "layers_text"):
        row = group[0]
        text = f"{row.title} {scope.place(row, size=False)} was asked for {row.requested} and ran {row.layers_text}"
        if row.requested == "fp16" and row.precision == "fp32":
            cause = "no FP16 arithmetic on this device or in this runtime: values are cast and computed in FP32"
            yield _anomaly("fp16 in fp32", group, text, cause)
        else:
            cause = f"no {row.requested} kernels for these layers on this device, so the runtime took others silently"
            yield _anomaly("fell back", group, text, cause)


def _tf32(rows: Rows, scope: Scope) -> Iterator[Anomaly]:
    """TF32 where FP32 was asked for, or where the name lets a reader take it for FP32."""
    hidden = [
        row
        for row in rows
        if "tf32" in (row.precision, *row.layers_text.replace("(", " ").split())
        if row.requested == "fp32" or "tf32" not in f"{row.variant} {row.title}".lower()
    ]
    for group in _groups(hidden, "model", "variant", "device", "layers_text"):
        row = group[0]
        asked = f"was asked for {row.requested} and" if row.requested == "fp32" else "does not say so in its name but"
        text = (
            f"{row.title} {scope.place(row, size=False)} {asked} ran {row.layers_text}: "
            "products have an 11-bit significand, so it is no FP32 result"
        )
        yield _anomaly("tf32", group, text, "a default of the runtime that allows TF32 for convolutions or products")


def _elsewhere(rows: Rows, scope: Scope) -> Iterator[Anomaly]:
    for group in _groups([row for row in rows if row.elsewhere], "model", "variant", "device", "elsewhere"):
        row = group[0]
        text = f"{row.title} {scope.place(row, size=False)} ran partly on another provider than asked: {row.elsewhere}"
        yield _anomaly("elsewhere", group, text, "operators that the provider lacks; each change copies tensors")


def _half_without_gain(rows: Rows, scope: Scope) -> Iterator[Anomaly]:
    """FP16 that is slower than FP32, or on a CPU no faster."""
    slower: list[tuple[Row, Row, float]] = []
    for row in rows:
        peer = full_precision_peer(row, rows) if row.requested == "fp16" else None
        ratio = paired(peer, row) if peer else None
        bad = ("slower",) if row.device != "cpu" else ("slower", "same")
        if peer is not None and ratio is not None and ratio.value is not None and ratio.verdict in bad:
            slower.append((row, peer, ratio.value))
    found = {row.cell: (peer, value) for row, peer, value in slower}
    for group in _groups([row for row, _, _ in slower], "model", "variant", "device"):
        row, peer = group[0], found[group[0].cell][0]
        total = sum((r.model, r.variant, r.device) == (row.model, row.variant, row.device) for r in rows)
        text = (
            f"{row.title} {scope.place(row, size=False)} is no faster than {peer.title} in {cells(len(group), total)}: "
            f"{span(found[r.cell][1] for r in group)} times its speed"
        )
        on_cpu = "no FP16 arithmetic in the CPU's kernels: casts to FP32 and back are added to the same work"
        cause = on_cpu if row.device == "cpu" else "casts around layers that stayed FP32, or calls too short to gain"
        yield _anomaly("fp16 no gain", group, text, cause)


def _throttled(rows: Rows, _scope: Scope) -> Iterator[Anomaly]:
    for group in _groups([row for row in rows if row.throttled], "device", "throttled"):
        total = sum(row.device == group[0].device for row in rows)
        low = [row.lowest_sm_mhz for row in group if row.lowest_sm_mhz]
        clock = f"; the lowest clock there was {min(low):.0f} MHz" if low else ""
        why = names(group[0].throttled)
        text = f"the GPU reported {why} in {cells(len(group), total)} on {group[0].device}{clock}"
        yield _anomaly("throttled", group, text, _why_throttled(why))
    for group in _groups([row for row in rows if row.lowest_sm_mhz and not row.throttled], "device", "node"):
        highest = max(row.sm_mhz or 0 for row in rows if row.node == group[0].node)
        slow = [row for row in group if (row.lowest_sm_mhz or 0) < SLOW_CLOCK * highest]
        if not slow:
            continue
        lowest = min(row.lowest_sm_mhz or 0 for row in slow)
        text = (
            f"the GPU's clock fell to {lowest:.0f} MHz, {lowest / highest:.0%} of the highest seen "
            f"({highest:.0f} MHz), in {cells(len(slow), len(group))} that report no throttling"
        )
        yield _anomaly("throttled", slow, text, "a clock that was still rising or is limited by its settings")


def _why_throttled(why: str) -> str:
    if "thermal" in why:
        return "heat: these times are those of a hot GPU, and a cooler one is faster"
    return "the board's limit of power" if "power" in why else "a limit set on the GPU's clocks"


def _unstable(rows: Rows, scope: Scope) -> Iterator[Anomaly]:
    for everything in _groups(rows, "model", "device"):
        shaky = [row for row in everything if row.stable is False]
        if not shaky:
            continue
        by_variant = _groups(shaky, "variant")
        place = scope.place(shaky[0], size=False)
        cause = "a runtime that still compiles or tunes itself, or other work around it"
        if len(by_variant) == 1:
            total = sum(row.variant == shaky[0].variant for row in everything)
            text = f"{shaky[0].title} {place} never settled while warming up in {cells(len(shaky), total)}"
        else:
            counted = names(f"{group[0].title} ({len(group)})" for group in by_variant)
            text = f"{cells(len(shaky), len(everything))} {place} never settled while warming up: {counted}"
            cause = "a warm-up that is short for calls that vary so much from host to host, or other work around them"
        yield _anomaly("unstable", shaky, text[0].upper() + text[1:], cause)


def _non_monotonic(rows: Rows, scope: Scope) -> Iterator[Anomaly]:
    """A larger batch at which an image takes longer than at the next smaller one."""
    steps = list(_steps(rows))
    drops = [step for step in steps if _falls(step)]
    seen: set[Hashable] = set()
    for drop in drops:
        small, large = drop.small, drop.large
        key = (large.model, large.variant, large.device, large.size, large.batch)
        if key in seen:  # the same with the other loader
            continue
        seen.add(key)
        both = [other for other in drops if key == _step_key(other)]
        text = (
            f"{large.title} {scope.place(large)}: from batch {small.batch} to {large.batch} throughput goes from "
            f"{digits(small.throughput_per_s or 0)} to {digits(large.throughput_per_s or 0)} images a second; an image "
            f"takes {1 / drop.ratio.value:.2f} times as long (99 % interval {_longer(drop.ratio)})"
        )
        yield _anomaly(
            "non-monotonic", [row for step in both for row in (step.small, step.large)], text, _why_drop(drop, steps)
        )


@dataclass(frozen=True, slots=True)
class _Step:
    """Two neighbouring batches of one variant, and how many times as many images a second the larger one makes."""

    small: Row
    large: Row
    ratio: Ratio


def _falls(step: _Step) -> bool:
    return step.ratio.high < 1 / (1 + WELL_BELOW)


def _longer(ratio: Ratio) -> str:
    return interval_text(1 / ratio.high, 1 / ratio.low)


def _step_key(step: _Step) -> Hashable:
    return step.large.model, step.large.variant, step.large.device, step.large.size, step.large.batch


def _steps(rows: Rows) -> Iterator[_Step]:
    for series in _groups(rows, "model", "variant", "device", "loader", "size", "clock"):
        for small, large in pairwise(sorted(series, key=lambda row: row.batch)):
            ratio = unpaired(small, large)
            if ratio is not None:
                yield _Step(small, large, ratio)


def _why_drop(drop: _Step, steps: Sequence[_Step]) -> str:
    if drop.large.throttled:
        return f"the GPU's clock: it reported {names(drop.large.throttled)} there"
    same = [
        step
        for step in steps
        if (step.large.model, step.large.device, step.large.size, step.large.batch, step.small.batch)
        == (drop.large.model, drop.large.device, drop.large.size, drop.large.batch, drop.small.batch)
    ]
    variants = {step.large.variant for step in same}
    fallen = {step.large.variant for step in same if _falls(step)}
    if len(variants) > 2 and 2 * len(fallen) > len(variants):
        return "the machine, as most variants show it: data that outgrows a cache, or other work in those minutes"
    return "another kernel that the runtime takes for this batch, or buffers that outgrow a cache"


def _loader_bound(rows: Rows, scope: Scope) -> Iterator[Anomaly]:
    loaded = [row for row in rows if row.pipeline_s and row.latency_s]
    for group in _groups(loaded, "model", "device"):
        times = {row.cell: (row.pipeline_s or 0) / (row.latency_s or 1) for row in group}
        bound = [row for row in group if times[row.cell] > LOADER_BOUND]
        if not bound:
            continue
        worst = max(bound, key=lambda row: times[row.cell])
        serial = f"; {milliseconds(worst.serial_s)} with it in line" if worst.serial_s else ""
        text = (
            f"the loader bounds the pipeline {scope.place(worst, size=False)} in {cells(len(bound), len(group))}: a "
            f"batch takes {span(times[row.cell] for row in bound)} times the model's own time, most with "
            f"{worst.title} at {worst.batch}×{worst.size.replace('x', '×')}: {milliseconds(worst.pipeline_s or 0)} "
            f"against {milliseconds(worst.latency_s or 0)}{serial}"
        )
        yield _anomaly("loader bound", bound, text, "decoding and resizing that cannot keep up with the model")


def _memory_jump(rows: Rows, scope: Scope) -> Iterator[Anomaly]:
    """Memory that grows more than the batch, or the pixels, does."""
    for memory in ("device_bytes", "host_bytes"):
        known = [row for row in rows if getattr(row, memory) is not None]
        for over, fixed in (("batch", "size"), ("pixels", "batch")):
            jumps: dict[Hashable, list[tuple[Row, Row]]] = {}
            for series in _groups(known, "model", "variant", "device", "loader", fixed):
                for small, large in pairwise(sorted(series, key=lambda row: getattr(row, over))):
                    grown = getattr(large, over) / getattr(small, over)
                    if grown > 1 and getattr(large, memory) / getattr(small, memory) > MEMORY_JUMP * grown:
                        jumps.setdefault((large.model, large.variant, large.device), []).append((small, large))
            yield from (_about_jump(pairs, memory, over, scope) for pairs in jumps.values())


def _about_jump(pairs: Sequence[tuple[Row, Row]], memory: str, over: str, scope: Scope) -> Anomaly:
    """The jumps of one variant along one axis, told by the largest."""
    small, large = max(pairs, key=lambda pair: getattr(pair[1], memory) / getattr(pair[0], memory))
    places = {(after.size, after.batch) for _, after in pairs}
    before, after = (float(getattr(row, memory)) for row in (small, large))
    steps = [f"batch {row.batch}" if over == "batch" else row.size for row in (small, large)]
    grown = large.batch / small.batch if over == "batch" else large.pixels / small.pixels
    text = (
        f"{large.title} {scope.place(large)} takes {after / before:.1f} times the {memory.removesuffix('_bytes')} "
        f"memory from {steps[0]} to {steps[1]}, {grown:.1f} times the {over} "
        f"({megabytes(before)} to {megabytes(after)})"
    )
    if len(places) > 1:
        text += f"; such a jump is in {len(places)} places, this is the largest"
    shown = [row for pair in pairs for row in pair]
    return _anomaly("memory jump", shown, text, "a workspace that another kernel asks for at that point")


_FINDERS: tuple[Callable[[Rows, Scope], Iterator[Anomaly]], ...] = (
    _not_finite,
    _answers,
    _fell_back,
    _tf32,
    _elsewhere,
    _half_without_gain,
    _throttled,
    _unstable,
    _non_monotonic,
    _loader_bound,
    _memory_jump,
)
