"""Every record of a results file, format 2: frozen dataclasses, one JSON object a line, ``kind`` says which.

The first line is the :class:`Run`. Units are in the names, an unknown value is null and never 0, statistics are derived
when the file is read (:mod:`redline.study.rows`). Later records replace earlier ones of the same key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from redline.core.artifact import Argument, Step
from redline.core.host import Gpu
from redline.core.preprocess import Preprocess
from redline.core.tensor import Signature
from redline.measurement.disturbance import Disturbance
from redline.measurement.environment import Environment
from redline.measurement.gpu_state import GpuState
from redline.measurement.memory import Memory
from redline.study.config import StudyConfig

FORMAT = 2
Purpose = Literal["tune", "bench", "build"]
Phase = Literal["screen", "confirm"]
Outcome = Literal["measured", "skipped", "failed"]
Size = tuple[int, int]
LayerCounts = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """How PyTorch loads a model: its name on the command line, a checkpoint, the images' height and width."""

    name: str
    weights: str | None = None
    size_px: Size | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of the study; the same at every image size.

    Attributes:
        ref: How PyTorch loads it; None for an ONNX file.
        weights_file: The weights that every process loads, within the study's folder; None where its own file has them.
        sha256: Of the weights or of the model's file.
    """

    name: str
    ref: ModelFile | None
    weights_file: str | None
    sha256: str | None
    parameters: int
    signature: Signature
    preprocess: Preprocess | None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file of the data that could not be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What the study was calibrated and verified on, and what its loaders read."""

    source: str | None
    fingerprint: str | None = None
    calibration: int = 0
    verification: int = 0
    labelled: bool = False
    skipped: tuple[SkippedFile, ...] = ()
    images: int = 0
    warning: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFacts:
    """What the clock can tell apart, and what timing adds to a call."""

    resolution_s: float
    overhead_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where processes ran."""

    environment: Environment
    gpus: tuple[Gpu, ...] = ()

    def other_gpus(self, now: Machine) -> list[str]:
        """What its GPUs were and are now, in words, where that is not the same."""
        told = ["; ".join(f"{gpu.name}, driver {gpu.driver}" for gpu in m.gpus) or "none" for m in (self, now)]
        return [f"GPUs were {told[0]}, are {told[1]}"] if told[0] != told[1] else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The first line: what was asked, of which models, on which machine.

    Attributes:
        settings: The study, its threads resolved.
        baselines: The variant that the others of a device are compared with, by device.
        variants: Names of all variants that were asked for, in their order.
        cells: How many there are.
        idle_cores: Cores' worth of work that others did in the second before the study began.
    """

    kind: Literal["run"] = "run"
    format: int = FORMAT
    purpose: Purpose
    run_id: str
    redline: str
    command: str
    created: str
    name: str
    commit: str | None
    settings: StudyConfig
    baselines: Mapping[str, str]
    variants: tuple[str, ...]
    cells: int
    models: tuple[Model, ...]
    data: Data
    machine: Machine
    clock: ClockFacts
    idle_cores: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine that cells ran on."""

    kind: Literal["node"] = "node"
    node: str
    machine: Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The best rate of a matrix product that really ran in that precision."""

    kind: Literal["ceiling"] = "ceiling"
    device: str
    precision: str
    gflops: float
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth:
    """The best rate of copying memory, reads and writes counted."""

    kind: Literal["bandwidth"] = "bandwidth"
    device: str
    gbytes_per_s: float
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Macs:
    """Multiply-adds of one sample."""

    kind: Literal["macs"] = "macs"
    model: str
    size: Size
    macs_per_sample: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DependenceFound:
    """Whether the reference's answers follow its input."""

    kind: Literal["dependence"] = "dependence"
    model: str
    size: Size
    depends_on_input: bool
    ratio: float
    classes: int | None
    warning: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactMade:
    """A model file that was made, within the study's folder."""

    kind: Literal["artifact"] = "artifact"
    model: str
    size: Size
    name: str
    path: str
    sha256: str
    size_bytes: int
    layers: LayerCounts
    opset: int
    provenance: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFound:
    """What one way to run a model is: read from the file or the open session, never copied from the request.

    Attributes:
        versions: Of the runtime and what it stands on, read where it ran.
        evidence: How the precision is known, where it was probed.
    """

    kind: Literal["variant"] = "variant"
    model: str
    size: Size
    batch: int
    variant: str
    device: str
    title: str
    backend: str
    runtime: str
    requested: str
    precision: str
    layers: LayerCounts
    artifact: str | None = None
    size_bytes: int | None = None
    weights_bytes: int | None = None
    platform: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Argument] = field(default_factory=dict)
    elsewhere: str | None = None
    note: str | None = None
    evidence: str | None = None
    control: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFound:
    """One output against the reference's; None where there was nothing to subtract."""

    name: str
    max_abs: float | None
    max_rel: float | None
    cosine: float | None
    snr_db: float | None
    centred_cosine: float | None
    centred_snr_db: float | None
    absolute: float | None
    relative: float | None
    why: str
    within: bool
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementFound:
    """Whether a variant answers as the reference does, at the batch size that it was asked at."""

    kind: Literal["agreement"] = "agreement"
    model: str
    size: Size
    batch: int
    variant: str
    device: str
    outputs: tuple[OutputFound, ...]
    samples: int
    top1_output: str | None
    top1_agreement: float | None
    accuracy: float | None
    reference_accuracy: float | None
    broken: int | None
    repaired: int | None
    relative_error: float | None
    finite: bool
    passed: bool
    reason: str | None
    evidence: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowMeasured:
    """One turn of one cell in one process: raw seconds of every call, and what disturbed them.

    Attributes:
        process: Its number within the phase; all cells with that number were alive together.
        device_s: Seconds that the GPU computed, by its own events.
        pipeline_s: Seconds a batch with the loader working ahead.
        serial_s: The same with the loader's work in line.
    """

    kind: Literal["samples"] = "samples"
    cell: str
    phase: Phase
    process: int
    round: int
    samples_s: tuple[float, ...]
    device_s: tuple[float, ...] = ()
    pipeline_s: tuple[float, ...] = ()
    serial_s: tuple[float, ...] = ()
    disturbance: Disturbance = field(default_factory=Disturbance)
    gpu: GpuState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEnded:
    """One process of one cell that had all its turns."""

    kind: Literal["process"] = "process"
    cell: str
    phase: Phase
    process: int
    load_s: float
    first_call_s: float
    warm_up_calls: int
    stable: bool
    window_s: float
    memory: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEnded:
    """How a cell came out; its last record of a phase."""

    kind: Literal["cell"] = "cell"
    cell: str
    model: str
    variant: str
    device: str
    loader: str
    batch: int
    size: Size
    outcome: Outcome
    stage: str | None = None
    reason: str | None = None
    node: str | None = None
    control: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalists:
    """The cells of a group that were chosen to be measured again in fresh processes, the chosen one first."""

    kind: Literal["finalists"] = "finalists"
    group: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """A group whose finalists have had all their processes."""

    kind: Literal["confirmed"] = "confirmed"
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A resumed run tries a cell again: that it failed before does not count."""

    kind: Literal["retry"] = "retry"
    cell: str


@dataclass(frozen=True, slots=True)
class Loser:
    """A variant that is not recommended, and why."""

    variant: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What a tune recommends, in words made of its rows: the last record."""

    kind: Literal["conclusion"] = "conclusion"
    recommended: str | None
    batch: int
    objective: str
    headline: str
    sentences: tuple[str, ...]
    losers: tuple[Loser, ...]
    pareto: tuple[str, ...]
    gate_passed: bool


Record = (
    Run
    | Node
    | Ceiling
    | Bandwidth
    | Macs
    | DependenceFound
    | ArtifactMade
    | VariantFound
    | AgreementFound
    | WindowMeasured
    | ProcessEnded
    | CellEnded
    | Finalists
    | Confirmed
    | Retry
    | Conclusion
)
KINDS: Mapping[str, type[Record]] = {
    "run": Run,
    "node": Node,
    "ceiling": Ceiling,
    "bandwidth": Bandwidth,
    "macs": Macs,
    "dependence": DependenceFound,
    "artifact": ArtifactMade,
    "variant": VariantFound,
    "agreement": AgreementFound,
    "samples": WindowMeasured,
    "process": ProcessEnded,
    "cell": CellEnded,
    "finalists": Finalists,
    "confirmed": Confirmed,
    "retry": Retry,
    "conclusion": Conclusion,
}
