"""From the raw records of a run to the rows of its table; statistics are derived here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from redline.core.artifact import Layers
from redline.measurement.ceiling import Limit, limit_of
from redline.measurement.results import Record, read_records
from redline.measurement.stats import Verdict, percentile, speedup


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variant at one batch size. None stands for "not measured"."""

    variant: str
    title: str
    backend: str
    requested: str
    precision: str
    layers_text: str
    batch: int
    status: Literal["ok", "failed", "skipped"] = "ok"
    reason: str | None = None
    note: str | None = None
    size_bytes: int | None = None
    windows_s: tuple[tuple[float, ...], ...] = ()
    p50_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None
    mean_s: float | None = None
    throughput_per_s: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    verdict: Verdict | Literal["baseline"] | None = None
    private_peak_bytes: int | None = None
    load_s: float | None = None
    first_call_s: float | None = None
    max_abs: float | None = None
    cosine: float | None = None
    top1_agreement: float | None = None
    accuracy: float | None = None
    accuracy_drop: float | None = None
    passed: bool | None = None
    gate_reason: str | None = None
    share_of_limit: float | None = None
    limit_by: Literal["compute", "memory"] | None = None
    control: bool = False
    pareto: bool = False
    recommended: bool = False

    @property
    def samples_s(self) -> tuple[float, ...]:
        """Seconds of every timed call, all rounds one after the other."""
        return tuple(second for window in self.windows_s for second in window)

    @property
    def samples(self) -> int:
        """How many calls were timed."""
        return sum(map(len, self.windows_s))

    @property
    def fell_back(self) -> bool:
        """True when another precision ran than was asked for."""
        return self.status == "ok" and self.requested not in (self.precision, "default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A whole run: its conditions, its rows, its conclusion."""

    run: Record
    rows: tuple[Row, ...]
    artifacts: tuple[Record, ...]
    ceilings: Mapping[str, float]
    bandwidth: float | None
    conclusion: Record | None
    warnings: tuple[str, ...]

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes, ascending."""
        return tuple(sorted({row.batch for row in self.rows}))


def read_study(path: Path) -> Study:
    """Read a results file and summarize it.

    Raises:
        ArtifactError: as for :func:`redline.measurement.results.read_records`.
    """
    return summarize(read_records(path))


def summarize(records: Sequence[Record]) -> Study:
    """Derive the table from the records of one run."""
    run = records[0]
    by_kind = _by_kind(records)
    macs = by_kind["macs"][-1]["macs_per_sample"] if by_kind["macs"] else None
    run = _with_dependence({**run, "model": {**run["model"], "macs_per_sample": macs}}, by_kind["dependence"])
    conclusion = by_kind["conclusion"][-1] if by_kind["conclusion"] else None
    ceilings = {record["precision"]: record["gflops"] for record in by_kind["ceiling"]}
    bandwidth = by_kind["bandwidth"][-1]["gbytes_per_s"] if by_kind["bandwidth"] else None
    limit = Limit(
        gflops=ceilings,
        gbytes_per_s=bandwidth,
        macs_per_sample=macs,
        weight_count=run["model"].get("parameters"),
    )
    windows = _windows(by_kind["samples"])
    latest = {kind: {r["variant"]: r for r in by_kind[kind]} for kind in ("agreement", "load", "failed")}
    latest["memory"] = {f"{r['variant']} {r['batch']}": r for r in by_kind["memory"]}
    skipped = {record["variant"]: record for record in by_kind["skipped"]}
    settings = run["settings"]
    rows = [
        _row(variant, batch, latest, skipped, windows, settings, limit)
        for batch in settings["batches"]
        for variant in _unique(by_kind["variant"])
    ]
    return Study(
        run=run,
        rows=tuple(_mark(row, conclusion) for row in rows),
        artifacts=tuple({r["name"]: r for r in by_kind["artifact"]}.values()),
        ceilings=ceilings,
        bandwidth=bandwidth,
        conclusion=conclusion,
        warnings=_warnings(run, rows),
    )


def _by_kind(records: Iterable[Record]) -> dict[str, list[Record]]:
    kinds = ("run", "ceiling", "bandwidth", "artifact", "variant", "agreement", "load", "samples", "memory", "macs")
    found: dict[str, list[Record]] = {kind: [] for kind in (*kinds, "dependence", "failed", "skipped", "conclusion")}
    for record in records:
        found.setdefault(record["kind"], []).append(record)
        if record["kind"] == "retry":
            found["failed"] = [failure for failure in found["failed"] if failure["variant"] != record["variant"]]
    return found


def _with_dependence(run: Record, found: Sequence[Record]) -> Record:
    if not found:
        return run
    warnings = [text for text in (run["data"].get("warning"), found[-1]["warning"]) if text]
    told = {"depends_on_input": found[-1]["depends_on_input"], "warning": "; ".join(warnings) or None}
    return {**run, "data": {**run["data"], **told}}


def _unique(variants: Iterable[Record]) -> list[Record]:
    return list({record["name"]: record for record in variants}.values())


#: Below this, the 99th percentile is the slowest call or the next: an accident and no property of the variant.
SAMPLES_FOR_P99 = 100
#: On a quiet machine the median call takes a few percent more than the fastest ones.
DISTURBED = 1.3
Windows = dict[tuple[str, int], dict[int, list[float]]]


def _windows(records: Iterable[Record]) -> Windows:
    found: Windows = {}
    for record in records:
        found.setdefault((record["variant"], record["batch"]), {})[record["round"]] = record["samples_s"]
    return found


def _row(
    variant: Record,
    batch: int,
    latest: Mapping[str, Mapping[str, Record]],
    skipped: Mapping[str, Record],
    windows: Windows,
    settings: Mapping[str, Any],
    limit: Limit,
) -> Row:
    name = variant["name"]
    layers = Layers.of(dict(variant["layers"])) if variant["layers"] else None
    row = Row(
        variant=name,
        title=variant["title"],
        backend=variant["backend"],
        requested=variant["requested"],
        precision=variant["precision"],
        layers_text=layers.describe() if layers else variant["precision"],
        batch=batch,
        size_bytes=variant.get("size_bytes"),
        note=variant.get("note"),
        control=variant.get("control", False),
    )
    if name in skipped:
        return replace(row, status="skipped", reason=skipped[name]["reason"])
    row = _with_agreement(row, latest["agreement"].get(name))
    row = _with_process(row, latest["load"].get(name), latest["memory"].get(f"{name} {batch}"))
    failure = latest["failed"].get(name)
    # A worker that died at one batch size was not asked at the next.
    if failure and (failure.get("batch") in (None, batch) or (name, batch) not in windows):
        return replace(row, status="failed", reason=f"{failure['stage']}: {failure['reason']}")
    return _with_limit(_with_latency(row, windows, settings["baseline"]), limit)


def _with_agreement(row: Row, record: Record | None) -> Row:
    if record is None:
        return row
    outputs = record["outputs"]
    accuracy, reference = record["accuracy"], record["reference_accuracy"]
    return replace(
        row,
        max_abs=max((o["max_abs"] for o in outputs if o["max_abs"] is not None), default=None),
        cosine=min((o["cosine"] for o in outputs if o["cosine"] is not None), default=None),
        top1_agreement=record["top1_agreement"],
        accuracy=accuracy,
        accuracy_drop=reference - accuracy if accuracy is not None and reference is not None else None,
        passed=record["passed"],
        gate_reason=record["reason"],
    )


def _with_process(row: Row, load: Record | None, memory: Record | None) -> Row:
    if load is not None:
        row = replace(row, load_s=load["load_s"], first_call_s=load["first_call_s"])
    if memory is not None:
        row = replace(row, private_peak_bytes=memory["private_peak_bytes"])
    return row


def _with_latency(row: Row, windows: Windows, baseline: str | None) -> Row:
    mine = windows.get((row.variant, row.batch), {})
    rounds_s = tuple(tuple(mine[index]) for index in sorted(mine))
    samples = [second for window in rounds_s for second in window]
    if not samples:
        return row
    p50 = percentile(samples, 50)
    row = replace(
        row,
        windows_s=rounds_s,
        p50_s=p50,
        p90_s=percentile(samples, 90),
        p99_s=percentile(samples, 99) if len(samples) >= SAMPLES_FOR_P99 else None,
        mean_s=sum(samples) / len(samples),
        throughput_per_s=row.batch * len(samples) / sum(samples),
    )
    if row.variant == baseline:
        return replace(row, verdict="baseline", speedup=1.0)
    base = windows.get((baseline or "", row.batch), {})
    rounds = sorted(base.keys() & mine.keys())
    ratio = speedup([base[index] for index in rounds], [mine[index] for index in rounds])
    if ratio is None:
        return row
    return replace(row, speedup=ratio.value, speedup_low=ratio.low, speedup_high=ratio.high, verdict=ratio.verdict)


def _with_limit(row: Row, limit: Limit) -> Row:
    if row.p50_s is None:
        return row
    least = limit_of(limit, precision=row.precision, batch=row.batch)
    if least is None:
        return row
    return replace(row, share_of_limit=least.seconds / row.p50_s, limit_by=least.by)


def _mark(row: Row, conclusion: Record | None) -> Row:
    if conclusion is None:
        return row
    return replace(
        row,
        pareto=row.variant in conclusion["pareto"] and row.batch == conclusion["batch"],
        recommended=row.variant == conclusion["recommended"],
    )


def _warnings(run: Record, rows: Sequence[Row]) -> tuple[str, ...]:
    noise = run["environment"].get("noise") or {}
    told = [run["data"].get("warning"), noise.get("warning"), about_disturbance(row.samples_s for row in rows)]
    told += [_about_control(row) for row in rows if row.control]
    return tuple(text for text in told if text)


def about_disturbance(samples_s: Iterable[Sequence[float]]) -> str | None:
    """How much longer a usual call took than an undisturbed one, over all rows; None where little or nothing is known.

    Args:
        samples_s: Seconds of every call, a sequence for each row; rows without calls do not count.
    """
    slowed = sorted(percentile(calls, 50) / percentile(calls, 5) for calls in samples_s if calls)
    if not slowed or slowed[len(slowed) // 2] < DISTURBED:
        return None
    return (
        f"other work disturbed the measuring: a usual call took {slowed[len(slowed) // 2]:.1f} times as long as an "
        "undisturbed one. Speed-ups compare undisturbed calls; the medians in the table are those of a busy machine"
    )


def _about_control(row: Row) -> str | None:
    if row.speedup is None or row.verdict not in ("faster", "slower"):
        return None
    return (
        f"the control (the baseline entered a second time) came out {row.verdict} by {abs(row.speedup - 1):.1%} at "
        f"batch {row.batch}: differences of that size mean nothing in this run"
    )
