"""From the raw records of a grid to one row a cell; statistics are derived here and nowhere else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Literal

from redline.core.artifact import Layers
from redline.measurement.ceiling import Limit, limit_of
from redline.measurement.results import Record
from redline.measurement.stats import Verdict, percentile, speedup_over_processes
from redline.measurement.summary import SAMPLES_FOR_P99

Outcome = Literal["measured", "skipped", "failed"]
Clock = Literal["host", "device"]
Size = tuple[int, int]
Windows = tuple[tuple[tuple[float, ...], ...], ...]
UNFINISHED = "the run ended before this cell was finished"
_WEIGHT_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1}
#: An idle GPU lowers its clock by itself; that is no throttling.
_NO_THROTTLE = frozenset(("gpu_idle", "idle", "none"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRow:
    """One cell of the grid. None stands for "not measured".

    Times are seconds a call. On ``cpu`` the headline time is host arrays in to host arrays out; on ``cuda`` it is the
    device's own, by CUDA events, and ``clock`` says which it is.

    Attributes:
        time_s: Median of the headline time over the calls of all repeats.
        p99_s: None under 100 calls.
        latency_s: Median from host to host.
        throughput_per_s: Images: the batch over the mean headline time.
        pipeline_s: Median seconds a batch with the loader working ahead.
        serial_s: The same with the loader's work in line.
        speedup: Times as fast as the baseline at the same point, with a 99 % interval, paired by repeat and round.
        host_bytes: The largest private peak over the repeats.
        share_of_limit: The least time that the machine's measured limits allow, over the time taken.
        sm_mhz: Median of the GPU's clock over the windows; ``lowest_sm_mhz`` is the lowest seen.
        windows_s: ``[repeat][round]`` the calls of the headline time; empty where a window is missing.
    """

    cell: str
    model: str
    variant: str
    title: str
    backend: str
    requested: str
    precision: str
    layers_text: str
    device: str
    loader: str
    batch: int
    height: int
    width: int
    outcome: Outcome = "measured"
    stage: str | None = None
    reason: str | None = None
    note: str | None = None
    elsewhere: str | None = None
    node: str | None = None
    clock: Clock = "host"
    time_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None
    mean_s: float | None = None
    calls: int = 0
    latency_s: float | None = None
    device_s: float | None = None
    throughput_per_s: float | None = None
    pipeline_s: float | None = None
    serial_s: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    verdict: Verdict | Literal["baseline"] | None = None
    host_bytes: int | None = None
    device_bytes: int | None = None
    allocator_bytes: int | None = None
    weights_bytes: int | None = None
    size_bytes: int | None = None
    load_s: float | None = None
    first_call_s: float | None = None
    stable: bool | None = None
    share_of_limit: float | None = None
    limit_by: Literal["compute", "memory"] | None = None
    top1_agreement: float | None = None
    relative_error: float | None = None
    finite: bool | None = None
    sm_mhz: float | None = None
    lowest_sm_mhz: float | None = None
    throttled: tuple[str, ...] = ()
    windows_s: Windows = field(default=(), repr=False)

    @property
    def size(self) -> str:
        """Height and width in words, ``224x224``."""
        return f"{self.height}x{self.width}"

    @property
    def pixels(self) -> int:
        """Of one image."""
        return self.height * self.width

    @property
    def fell_back(self) -> bool:
        """True when another precision ran than was asked for."""
        return (
            self.outcome == "measured"
            and self.precision != "none"
            and self.requested not in (self.precision, "default")
        )

    @property
    def samples_s(self) -> tuple[float, ...]:
        """Headline seconds of every timed call, all windows one after the other."""
        return tuple(second for repeat in self.windows_s for window in repeat for second in window)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The machine's measured ceilings and what each model asks of it."""

    ceilings: Mapping[tuple[str, str], float]
    bandwidth: Mapping[str, float]
    macs: Mapping[tuple[str, Size], int]
    parameters: Mapping[str, int | None]

    def of(self, row: GridRow) -> Limit:
        """What bounds that row."""
        return Limit(
            gflops={precision: rate for (device, precision), rate in self.ceilings.items() if device == row.device},
            gbytes_per_s=self.bandwidth.get(row.device),
            macs_per_sample=self.macs.get((row.model, (row.height, row.width))),
            weight_count=self.parameters.get(row.model),
        )


def limits_of(run: Record, by_kind: Mapping[str, Sequence[Record]]) -> Limits:
    """The limits that were measured; the last record of each kind counts."""
    return Limits(
        ceilings={(r["device"], r["precision"]): r["gflops"] for r in by_kind.get("ceiling", ())},
        bandwidth={r["device"]: r["gbytes_per_s"] for r in by_kind.get("bandwidth", ())},
        macs={(r["model"], _size(r)): r["macs_per_sample"] for r in by_kind.get("macs", ())},
        parameters={model["name"]: model.get("parameters") for model in run.get("models", ())},
    )


def derive_rows(run: Record, by_kind: Mapping[str, Sequence[Record]], limits: Limits) -> tuple[GridRow, ...]:
    """One row for each cell that the run finished or began, in the order of the grid."""
    facts = _Facts(by_kind, limits.parameters)
    rows = [_with_limit(facts.fill(row), limits) for row in _cells(by_kind)]
    baselines = {
        (*_point(row), row.clock): row for row in rows if row.variant == _baseline(run, row.device) and row.windows_s
    }
    compared = [_with_speedup(row, run, baselines.get((*_point(row), row.clock))) for row in rows]
    return tuple(sorted(compared, key=_order(run, compared)))


def _baseline(run: Record, device: str) -> str | None:
    found = (run.get("settings", {}).get("baseline") or {}).get(device)
    return None if found is None else str(found)


def _point(row: GridRow) -> tuple[str, str, str, int, int, int]:
    return row.model, row.device, row.loader, row.batch, row.height, row.width


def _size(record: Mapping[str, Any]) -> Size:
    height, width = record["size"]
    return int(height), int(width)


def _cells(by_kind: Mapping[str, Sequence[Record]]) -> list[GridRow]:
    """Rows that know only what their cell line says; a cell without one was begun and not finished."""
    found = {record["cell"]: _bare_row(record) for record in by_kind.get("cell", ())}
    for kind in ("samples", "process"):
        for record in by_kind.get(kind, ()):
            if record["cell"] not in found:
                found[record["cell"]] = _bare_row(
                    {**parse_cell(record["cell"]), "outcome": "skipped", "reason": UNFINISHED}
                )
    return list(found.values())


def _bare_row(record: Mapping[str, Any]) -> GridRow:
    height, width = _size(record)
    return GridRow(
        cell=record["cell"],
        model=record["model"],
        variant=record["variant"],
        title=record["variant"],
        backend="",
        requested="",
        precision="none",
        layers_text="",
        device=record["device"],
        loader=record["loader"],
        batch=record["batch"],
        height=height,
        width=width,
        outcome=record["outcome"],
        stage=record.get("stage"),
        reason=record.get("reason"),
        node=record.get("node"),
    )


def parse_cell(cell: str) -> dict[str, Any]:
    """The parts of a cell's id; a model's name may hold slashes.

    >>> parse_cell("nets/small/torch-eager-fp32/cpu/dummy/8x32x64")["size"]
    [32, 64]
    """
    model, variant, device, loader, point = cell.rsplit("/", 4)
    batch, height, width = (int(number) for number in point.split("x"))
    names = {"cell": cell, "model": model, "variant": variant, "device": device, "loader": loader}
    return {**names, "batch": batch, "size": [height, width]}


class _Facts:
    """What the records say about a cell, found by its key."""

    def __init__(self, by_kind: Mapping[str, Sequence[Record]], parameters: Mapping[str, int | None]) -> None:
        self._parameters = parameters
        self._variants = {_variant_key(r): r for r in by_kind.get("variant", ())}
        self._known = {(r["variant"], r["device"]): r for r in by_kind.get("variant", ())}
        self._agreement = {_variant_key(r): r for r in by_kind.get("agreement", ())}
        self._samples: dict[str, dict[tuple[int, int], Record]] = defaultdict(dict)
        for record in by_kind.get("samples", ()):
            # A resumed run measures an unfinished repeat again; the later window counts.
            self._samples[record["cell"]][record.get("repeat", 0), record["round"]] = record
        self._process: dict[str, dict[int, Record]] = defaultdict(dict)
        for record in by_kind.get("process", ()):
            self._process[record["cell"]][record.get("repeat", 0)] = record

    def fill(self, row: GridRow) -> GridRow:
        """The row with everything that is known about it; numbers only where the cell was measured."""
        key = (row.model, (row.height, row.width), row.variant, row.device)
        told = self._variants.get(key)
        row = _with_variant(row, told, self._known.get((row.variant, row.device)))
        row = replace(row, weights_bytes=_weights_bytes(told, self._parameters.get(row.model)))
        if row.outcome != "measured":
            return row
        row = _with_agreement(row, self._agreement.get(key))
        row = _with_processes(row, list(self._process[row.cell].values()))
        return _with_times(row, self._samples[row.cell])


def _variant_key(record: Record) -> tuple[str, Size, str, str]:
    return record["model"], _size(record), record["variant"], record["device"]


def _with_variant(row: GridRow, record: Record | None, namesake: Record | None) -> GridRow:
    """What ran; of a variant that never opened here, the title and the request are known from elsewhere in the run."""
    told = record or namesake
    if told is None:
        return row
    row = replace(row, title=told["title"], backend=told["backend"], requested=told["requested"])
    if record is None:
        return row
    layers = Layers.of(dict(record["layers"])) if record.get("layers") else None
    return replace(
        row,
        precision=record["precision"],
        layers_text=layers.describe() if layers else record["precision"],
        note=record.get("note"),
        elsewhere=record.get("elsewhere"),
        size_bytes=_positive([record.get("size_bytes")]),
    )


def _weights_bytes(record: Record | None, parameters: int | None) -> int | None:
    """The weights as the variant holds them; TensorRT converts those of its file to what its layers compute in."""
    if record is None:
        return None
    if not record["backend"].startswith("tensorrt"):
        return _positive([record.get("weights_bytes")])
    precisions = [precision for precision, _ in record.get("layers") or ()]
    each = _WEIGHT_BYTES.get(precisions[0]) if len(precisions) == 1 else None
    return parameters * each if parameters and each else None


def _with_agreement(row: GridRow, record: Record | None) -> GridRow:
    if record is None:
        return row
    return replace(
        row,
        top1_agreement=record.get("top1_agreement"),
        relative_error=record.get("relative_error"),
        finite=record.get("finite"),
    )


def _with_processes(row: GridRow, records: Sequence[Record]) -> GridRow:
    if not records:
        return row
    memory = [record.get("memory") or {} for record in records]
    settled = [record["stable"] for record in records if record.get("stable") is not None]
    return replace(
        row,
        host_bytes=_positive(m.get("private_peak_bytes") for m in memory),
        device_bytes=_positive(m.get("device_peak_bytes") for m in memory),
        allocator_bytes=_positive(m.get("allocator_peak_bytes") for m in memory),
        load_s=_middle([record.get("load_s") for record in records]),
        first_call_s=_middle([record.get("first_call_s") for record in records]),
        stable=all(settled) if settled else None,
    )


def _positive(values: Iterable[int | None]) -> int | None:
    """The largest; nothing and less than nothing is no size of memory but a reading that failed."""
    return max((value for value in values if value is not None and value > 0), default=None)


def _middle(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _with_times(row: GridRow, records: Mapping[tuple[int, int], Record]) -> GridRow:
    by_device = row.device == "cuda" and bool(records) and all(r.get("device_s") for r in records.values())
    windows = _windows(records, "device_s" if by_device else "samples_s")
    times = [second for repeat in windows for window in repeat for second in window]
    if not times:
        return row
    gpu = [record["gpu"] for record in records.values() if record.get("gpu")]
    clocks = [reading["sm_mhz"] for reading in gpu if reading.get("sm_mhz")]
    mean_s = sum(times) / len(times)
    return replace(
        row,
        clock="device" if by_device else "host",
        windows_s=windows,
        time_s=percentile(times, 50),
        p90_s=percentile(times, 90),
        p99_s=percentile(times, 99) if len(times) >= SAMPLES_FOR_P99 else None,
        mean_s=mean_s,
        calls=len(times),
        throughput_per_s=row.batch / mean_s,
        latency_s=_median_of(records, "samples_s"),
        device_s=_median_of(records, "device_s") if row.device == "cuda" else None,
        pipeline_s=_median_of(records, "pipeline_s"),
        serial_s=_median_of(records, "serial_s"),
        sm_mhz=_middle(clocks),
        lowest_sm_mhz=min(clocks, default=None),
        throttled=tuple(sorted({why for reading in gpu for why in reading.get("throttle") or ()} - _NO_THROTTLE)),
    )


def _windows(records: Mapping[tuple[int, int], Record], name: str) -> Windows:
    """``[repeat][round]``; a window that is missing stays empty, so that rounds still pair by their number."""
    rounds: dict[int, int] = {}
    for repeat, number in records:
        rounds[repeat] = max(rounds.get(repeat, 0), number + 1)
    return tuple(
        tuple(tuple((records.get((repeat, number)) or {}).get(name) or ()) for number in range(rounds.get(repeat, 0)))
        for repeat in range(max(rounds, default=-1) + 1)
    )


def _median_of(records: Mapping[tuple[int, int], Record], name: str) -> float | None:
    values = [second for record in records.values() for second in record.get(name) or ()]
    return percentile(values, 50) if values else None


def _with_limit(row: GridRow, limits: Limits) -> GridRow:
    if row.time_s is None:
        return row
    least = limit_of(limits.of(row), precision=row.precision, batch=row.batch)
    if least is None:
        return row
    return replace(row, share_of_limit=least.seconds / row.time_s, limit_by=least.by)


def _with_speedup(row: GridRow, run: Record, baseline: GridRow | None) -> GridRow:
    if row.time_s is None:
        return row
    if row.variant == _baseline(run, row.device):
        return replace(row, verdict="baseline", speedup=1.0)
    ratio = speedup_over_processes(baseline.windows_s, row.windows_s) if baseline else None
    if ratio is None:
        return row
    return replace(row, speedup=ratio.value, speedup_low=ratio.low, speedup_high=ratio.high, verdict=ratio.verdict)


def _order(run: Record, rows: Sequence[GridRow]) -> Callable[[GridRow], tuple[int, ...]]:
    settings = run.get("settings", {})
    models = unique([*settings.get("models", ()), *(row.model for row in rows)])
    sizes = unique([*(_size({"size": s}) for s in settings.get("sizes", ())), *((r.height, r.width) for r in rows)])
    devices = unique([*settings.get("devices", ()), *(row.device for row in rows)])
    loaders = unique([*settings.get("loaders", ()), *(row.loader for row in rows)])
    variants = unique([*settings.get("variants", ()), *(row.variant for row in rows)])
    return lambda row: (
        models.index(row.model),
        sizes.index((row.height, row.width)),
        row.batch,
        devices.index(row.device),
        loaders.index(row.loader),
        variants.index(row.variant),
    )


def unique(values: Iterable[Any]) -> list[Any]:
    """Each value once, in the order of its first appearance."""
    return list(dict.fromkeys(values))
