"""What may be asked of a build, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

from redline.building.recipes import Recipe
from redline.core.artifact import Argument, Engine
from redline.core.errors import InputError
from redline.measurement.stats import percentile
from redline.verification.compare import Agreement

BuildPrecision = Literal["fp32", "tf32", "fp16", "bf16", "int8"]
BuildTyping = Literal["auto", "weak", "strong", "both"]
BuildBackend = Literal["auto", "tensorrt", "tensorrt-rtx", "torch-tensorrt"]
CalibratorChoice = Literal["auto", "entropy", "minmax", "qdq"]
PRECISIONS: tuple[str, ...] = get_args(BuildPrecision)
TYPINGS: tuple[str, ...] = get_args(BuildTyping)
CALIBRATORS: tuple[str, ...] = get_args(CalibratorChoice)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What may be said beyond the precisions.

    Attributes:
        backend: ``tensorrt``, ``tensorrt-rtx``, ``torch-tensorrt`` (of a PyTorch model), or ``auto``: TensorRT-RTX
            where a target is named, TensorRT otherwise.
        typing: ``weak`` lets TensorRT choose types within the precision (TensorRT 10 and older), ``strong`` follows a
            graph that was converted before, ``auto`` is weak where there is such a thing, ``both`` builds each.
        calibrator: For INT8: TensorRT's ``entropy`` or ``minmax`` calibrators (weak typing), or ``qdq``: Q/DQ nodes
            of Redline's own static quantizer. ``auto`` is entropy where there are calibrators, else qdq.
        profiles: Each ``MIN,OPT,MAX`` batch sizes, or whole shapes by input name.
        samples: The most samples to calibrate on, and the most to verify on.
        target: Compute capability such as ``sm89`` of a GPU that need not be here (TensorRT-RTX).
        workspace_bytes: 0 leaves TensorRT's own limit.
        measure: Whether to measure latency where the engine can run here.
        rebuild: Build also what is there already, whole and of the same model, options and GPU.
    """

    backend: BuildBackend = "auto"
    typing: BuildTyping = "auto"
    calibrator: CalibratorChoice = "auto"
    profiles: tuple[str, ...] = ()
    samples: int = 128
    target: str = ""
    workspace_bytes: int = 0
    optimization_level: int = 3
    hardware_compatible: bool = False
    version_compatible: bool = False
    timing_cache: str = ""
    measure: bool = True
    rebuild: bool = False

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("backend", self.backend, get_args(BuildBackend)),
            ("typing", self.typing, TYPINGS),
            ("calibrator", self.calibrator, CALIBRATORS),
        ):
            if value not in choices:
                raise InputError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
        if self.samples < 1:
            raise InputError(f"samples is {self.samples}, expected at least 1")

    def backend_options(self) -> dict[str, Argument]:
        """Options of the backend that are the same for every variant."""
        return {
            "profiles": ";".join(self.profiles),
            "workspace_bytes": self.workspace_bytes,
            "optimization_level": self.optimization_level,
            "hardware_compatible": self.hardware_compatible,
            "version_compatible": self.version_compatible,
            "target": self.target,
            "timing_cache": self.timing_cache,
            "rebuild": self.rebuild,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What was asked of one build, beside the model and the folder."""

    precisions: tuple[str, ...]
    data: Path | None
    labels: Path | None
    options: BuildOptions
    progress: Progress | None

    def tell(self, what: str, done: int, total: int) -> None:
        """Say how far it is."""
        if self.progress is not None:
            self.progress(what, done, total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One engine at one batch size: raw samples, in seconds.

    Attributes:
        end_to_end_s: Host arrays in to host arrays out.
        device_s: What the GPU computed, by its own clock, on inputs that lay there; empty where it cannot say.
    """

    batch: int
    end_to_end_s: list[float] = field(default_factory=list)
    device_s: list[float] = field(default_factory=list)

    @property
    def end_to_end_ms(self) -> float:
        """Median."""
        return median(self.end_to_end_s) * 1e3

    @property
    def device_ms(self) -> float | None:
        """Median."""
        return median(self.device_s) * 1e3 if self.device_s else None

    @property
    def throughput(self) -> float:
        """Samples per second of one call after the other."""
        return self.batch / median(self.end_to_end_s)

    def to_json(self) -> dict[str, Any]:
        """Percentiles and the raw samples, in milliseconds."""
        found: dict[str, Any] = {"batch": self.batch, "samples_per_s": self.throughput}
        for name, values in (("end_to_end", self.end_to_end_s), ("device", self.device_s)):
            if values:
                found[f"{name}_ms"] = {f"p{q}": percentile(values, q) * 1e3 for q in (50, 90, 99)}
                found[f"{name}_samples_ms"] = [round(value * 1e3, 6) for value in values]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """One engine that was asked for, and what came of it.

    Attributes:
        recipe: What was asked.
        engine: The engine; None where it could not be built.
        build_s: How long the build took, the conversion of the file before it included.
        agreement: With the FP32 reference; None where the engine cannot run here.
        latencies: By batch size; empty where it cannot run here or was not measured.
        failed: Why there is no engine, or why it could not run.
        notes: What the user should know.
    """

    recipe: Recipe
    engine: Engine | None = None
    build_s: float | None = None
    agreement: Agreement | None = None
    latencies: tuple[Latency, ...] = ()
    failed: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int | None:
        """Size of the plan."""
        return self.engine.path.stat().st_size if self.engine else None

    @property
    def got(self) -> str | None:
        """The precision that the engine's layers have, in words, as read from the engine."""
        return self.engine.layers.describe() if self.engine else None

    @property
    def as_asked(self) -> bool:
        """Whether most layers have the precision that was asked for."""
        return self.engine is not None and self.engine.precision == self.recipe.precision

    def to_json(self) -> dict[str, Any]:
        """One entry of the result file."""
        engine = self.engine
        return {
            "name": self.recipe.name,
            "asked": self.recipe.precision,
            "typing": self.recipe.typing,
            "calibrator": self.recipe.calibrator,
            "file": engine.path.name if engine else None,
            "size_bytes": self.size_bytes,
            "build_s": self.build_s,
            "layers": [list(pair) for pair in engine.layers.counts] if engine else None,
            "got": self.got,
            "agreement": self.agreement.to_json(self.recipe.name) if self.agreement else None,
            "latencies": [latency.to_json() for latency in self.latencies],
            "failed": self.failed,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """Every variant, with the conditions that it was built and measured under.

    Attributes:
        model: Name of the model, with digest and opset where it is a file.
        samples: What was verified on, in words.
    """

    model: dict[str, Any]
    backend: str
    platform: dict[str, str]
    variants: tuple[BuiltEngine, ...]
    samples: str
    warnings: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether every engine was built, and agrees where it could run."""
        return all(v.engine and (v.agreement is None or v.agreement.passed) for v in self.variants)

    def to_json(self) -> dict[str, Any]:
        """The result file."""
        return {
            "kind": "build",
            "model": self.model,
            "backend": self.backend,
            "platform": self.platform,
            "samples": self.samples,
            "warnings": list(self.warnings),
            "passed": self.passed,
            "variants": [variant.to_json() for variant in self.variants],
        }
