"""From the records of a study to one row a cell; statistics are derived here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from redline.measurement.disturbance import Disturbance, Evidence, sound_windows
from redline.measurement.stats import Ratio
from redline.study.records import ArtifactMade, Conclusion, DependenceFound, Machine, Node, Outcome, Phase, Run, Size

Clock = Literal["host", "device"]
UNFINISHED = "the run ended before this cell was finished"
#: Below this, the 99th percentile is the slowest call or the next: an accident and no property of the variant.
SAMPLES_FOR_P99 = 100


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a cell: its rounds, in seconds a call of the headline clock.

    Attributes:
        rounds_s: Every call of each round; empty where the window is missing.
        kept: Whether other work left the round undisturbed, for each round; the same for all cells of the group.
        disturbances: What the kernel said of each round.
    """

    phase: Phase
    number: int
    rounds_s: tuple[tuple[float, ...], ...] = field(repr=False)
    kept: tuple[bool, ...] = field(repr=False)
    disturbances: tuple[Disturbance, ...] = field(default=(), repr=False)

    @property
    def means_s(self) -> tuple[float | None, ...]:
        """Mean seconds a call of each round; None where it is missing or was disturbed."""
        return tuple(
            sum(calls) / len(calls) if calls and sound else None
            for calls, sound in zip(self.rounds_s, sound_windows(self.kept, self.disturbances), strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One cell of a study. None stands for "not measured".

    Times are seconds a call. On ``cpu`` the headline time is host arrays in to host arrays out; on ``cuda`` it is the
    device's own, by CUDA events, and ``clock`` says which it is.

    Attributes:
        time_s: Median of the headline time over all undisturbed calls of all processes.
        p99_s: None under 100 calls.
        latency_s: Median from host to host.
        throughput_per_s: Images: the batch over the mean headline time.
        pipeline_s: Median seconds a batch with the loader working ahead.
        serial_s: The same with the loader's work in line.
        ratio: Times as fast as the baseline at the same point, from processes that were alive beside it. Of a row that
            was confirmed, from the confirming processes alone.
        evidence: What that rests on; :mod:`redline.findings.claims` says what may be said of it.
        is_baseline: The row that the others of its point are compared with.
        control: The baseline entered a second time.
        host_bytes: The largest private peak over the processes.
        memory_sound: Whether the control needs the memory of its twin within 5 %; None without a control.
        share_of_limit: The least time that the machine's measured limits allow, over the time taken.
        samples: How many samples were verified on.
        passed: Whether it answers as the reference does; None where it was not compared.
        sm_mhz: Median of the GPU's clock over the windows; ``lowest_sm_mhz`` is the lowest seen.
        processes: The raw times.
    """

    cell: str
    model: str
    variant: str
    title: str
    backend: str
    runtime: str
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
    precision_evidence: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    node: str | None = None
    is_baseline: bool = False
    control: bool = False
    confirmed: bool = False
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
    ratio: Ratio | None = None
    evidence: Evidence | None = None
    host_bytes: int | None = None
    device_bytes: int | None = None
    allocator_bytes: int | None = None
    memory_sound: bool | None = None
    weights_bytes: int | None = None
    size_bytes: int | None = None
    load_s: float | None = None
    first_call_s: float | None = None
    stable: bool | None = None
    share_of_limit: float | None = None
    limit_by: Literal["compute", "memory"] | None = None
    samples: int = 0
    max_abs: float | None = None
    relative_error: float | None = None
    cosine: float | None = None
    top1_agreement: float | None = None
    accuracy: float | None = None
    accuracy_drop: float | None = None
    finite: bool | None = None
    passed: bool | None = None
    gate_reason: str | None = None
    sm_mhz: float | None = None
    lowest_sm_mhz: float | None = None
    throttled: tuple[str, ...] = ()
    pareto: bool = False
    recommended: bool = False
    processes: tuple[Process, ...] = field(default=(), repr=False)

    @property
    def size(self) -> str:
        """Height and width in words, ``224x224``."""
        return f"{self.height}x{self.width}"

    @property
    def point(self) -> tuple[str, str, str, int, str]:
        """What it shares with the rows that it is compared with: all but the variant."""
        return self.model, self.device, self.loader, self.batch, self.size

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
        """Headline seconds of every undisturbed call, all processes one after the other."""
        return tuple(
            second
            for process in self.processes
            for calls, kept in zip(process.rounds_s, process.kept, strict=True)
            if kept
            for second in calls
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Everything that is known after a run, finished or not.

    Attributes:
        rows: In the order of the grid: model, size, batch, device, loader, variant.
        artifacts: The model files that were made.
        ceilings: 1e9 operations a second by device and precision.
        bandwidth: 1e9 bytes a second by device.
        macs: Multiply-adds of one image by model and (height, width).
        dependence: Whether the answers follow the input, by model and (height, width).
        conclusion: Of a tune that was finished.
        nodes: The machines that cells ran on, by name.
    """

    run: Run
    rows: tuple[Row, ...]
    artifacts: tuple[ArtifactMade, ...] = ()
    ceilings: Mapping[tuple[str, str], float] = field(default_factory=dict)
    bandwidth: Mapping[str, float] = field(default_factory=dict)
    macs: Mapping[tuple[str, Size], int] = field(default_factory=dict)
    dependence: Mapping[tuple[str, Size], DependenceFound] = field(default_factory=dict)
    conclusion: Conclusion | None = None
    nodes: Mapping[str, Node] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """Models that have rows."""
        return tuple(dict.fromkeys(row.model for row in self.rows))

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices that have rows."""
        return tuple(dict.fromkeys(row.device for row in self.rows))

    @property
    def loaders(self) -> tuple[str, ...]:
        """Loaders that have rows."""
        return tuple(dict.fromkeys(row.loader for row in self.rows))

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes that have rows, ascending."""
        return tuple(sorted({row.batch for row in self.rows}))

    @property
    def sizes(self) -> tuple[str, ...]:
        """Image sizes that have rows, as in ``224x224``."""
        return tuple(dict.fromkeys(row.size for row in self.rows))

    @property
    def variants(self) -> tuple[str, ...]:
        """Variants that have rows, in the order in which they were asked for."""
        named = dict.fromkeys(row.variant for row in self.rows)
        asked = [name for name in self.run.variants if name in named]
        return tuple(dict.fromkeys([*asked, *named]))

    def at(self, **fields: object) -> tuple[Row, ...]:
        """The rows that have those values, such as ``at(device="cpu", batch=1)``."""
        return tuple(row for row in self.rows if all(getattr(row, name) == value for name, value in fields.items()))

    def machine_of(self, row: Row) -> Machine:
        """Where the row was measured."""
        node = self.nodes.get(row.node or "")
        return node.machine if node else self.run.machine
