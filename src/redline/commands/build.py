"""Build TensorRT engines of a model in several precisions, and say what each really is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, cast, get_args

from redline.backends import load_backend
from redline.commands.build_files import Recipe, find_samples, prepare_file, recipes_for
from redline.commands.build_run import Latency, Runner
from redline.core.artifact import Argument, Engine, OnnxModel
from redline.core.errors import BuildError, InputError
from redline.core.files import write_whole
from redline.core.samples import Samples, save_samples
from redline.core.session import Backend, Session
from redline.formats.onnx_file import read_onnx
from redline.opening.sessions import open_onnx
from redline.verification.compare import Agreement

BuildPrecision = Literal["fp32", "tf32", "fp16", "bf16", "int8"]
BuildTyping = Literal["auto", "weak", "strong", "both"]
BuildBackend = Literal["auto", "tensorrt", "tensorrt-rtx", "torch-tensorrt"]
CalibratorChoice = Literal["auto", "entropy", "minmax", "qdq"]
PRECISIONS: tuple[str, ...] = get_args(BuildPrecision)
TYPINGS: tuple[str, ...] = get_args(BuildTyping)
CALIBRATORS: tuple[str, ...] = get_args(CalibratorChoice)
RESULT = "build.json"
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
class Variant:
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
    variants: tuple[Variant, ...]
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


def build(
    model: str | Path,
    out: str | Path,
    *,
    precisions: tuple[str, ...] = ("fp32", "fp16"),
    data: str | Path | None = None,
    labels: str | Path | None = None,
    options: BuildOptions | None = None,
    progress: Progress | None = None,
) -> BuildResult:
    """Build an engine of each precision, read its layers' precision from it, and verify and measure it.

    Args:
        model: An FP32 ONNX file, which is left as it is; for Torch-TensorRT a PyTorch model as ``redline export
            --help`` lists them.
        out: Folder for ``<model>_<precision>.plan``, what was made on the way, and ``build.json``.
        precisions: Of ``fp32`` (TF32 off), ``tf32``, ``fp16``, ``bf16`` and ``int8``.
        data: Real samples, a folder of images or ``.npz``; INT8 is calibrated on a part, all are verified on the rest.
        labels: A CSV file of labels for a folder of images.
        options: Typing, profiles, limits.
        progress: Called with what is being done, steps done, steps in all.

    Raises:
        InputError: a file or option that is not usable. A variant that cannot be built is a row that says why.
        MissingDependencyError: TensorRT is not installed.
    """
    options = options or BuildOptions()
    for precision in precisions:
        if precision not in PRECISIONS:
            raise InputError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    request = BuildRequest(
        precisions=precisions,
        data=Path(data) if data else None,
        labels=Path(labels) if labels else None,
        options=options,
        progress=progress,
    )
    if options.backend == "torch-tensorrt":
        from redline.commands.build_torch import build_torch

        result = build_torch(str(model), Path(out), request)
    else:
        result = _build_file(Path(model), Path(out), request)
    write_whole(Path(out) / RESULT, json.dumps(result.to_json(), indent=2) + "\n")
    return result


def _build_file(model: Path, folder: Path, request: BuildRequest) -> BuildResult:
    source = read_onnx(model)
    if source.precision not in ("fp32", "none"):
        raise InputError(
            f"{source.path.name} is {source.layers.describe()}, expected fp32: every variant is made of it"
        )
    options = request.options
    name = _backend_name(options)
    runtime = load_backend(name, {**options.backend_options()})
    folder.mkdir(parents=True, exist_ok=True)
    recipes = recipes_for(runtime, request.precisions, typing=options.typing, calibrator=options.calibrator)
    int8 = any(recipe.precision == "int8" for recipe in recipes)
    calibration, samples, warnings = find_samples(source, request.data, request.labels, options.samples, calibrate=int8)
    if int8:
        save_samples(calibration, folder / ".calibration.npz")
    try:
        variants = []
        for index, recipe in enumerate(recipes):
            request.tell(f"build {recipe.name}", index, len(recipes))
            variants.append(_build_one(source, recipe, folder, name, calibration, request))
    finally:
        (folder / ".calibration.npz").unlink(missing_ok=True)

    def reference() -> Session:
        return open_onnx(source, options={"graph_optimization": "disabled"})

    return BuildResult(
        model={"name": source.path.name, "sha256": source.sha256, "opset": source.opset},
        backend=name,
        platform=runtime.platform(),
        variants=tuple(run_all(reference, variants, samples, request)),
        samples=f"{len(samples)} of {samples.source}",
        warnings=tuple(warnings),
    )


def _backend_name(options: BuildOptions) -> str:
    if options.backend != "auto":
        return options.backend
    return "tensorrt-rtx" if options.target else "tensorrt"


def _build_one(
    source: OnnxModel, recipe: Recipe, folder: Path, backend: str, samples: Samples, request: BuildRequest
) -> Variant:
    """An engine, or the reason why there is none: one that cannot be built must not stop the others."""
    if recipe.refused:
        return Variant(recipe=recipe, failed=recipe.refused)
    started = perf_counter()
    try:
        model = prepare_file(source, recipe, folder, samples)
        runtime = load_backend(
            backend,
            {
                **request.options.backend_options(),
                **recipe.backend_options(),
                "calibration": str(folder / ".calibration.npz"),
                "name": f"{source.path.stem}_{recipe.name}",
            },
        )
        plan = folder / f"{source.path.stem}_{recipe.name}.plan"
        before = plan.stat().st_mtime_ns if plan.is_file() else None
        engine = _compile(runtime, model, folder, recipe.name, request)
    except (BuildError, InputError) as error:
        return Variant(recipe=recipe, failed=str(error))
    notes = [] if engine.precision == recipe.precision else [_not_as_asked(recipe, engine)]
    if engine.path.stat().st_mtime_ns == before:
        notes.append("was there already, built from the same model with the same options for this GPU")
    return Variant(recipe=recipe, engine=engine, build_s=perf_counter() - started, notes=tuple(notes))


def _compile(runtime: Backend, model: OnnxModel, folder: Path, name: str, request: BuildRequest) -> Engine:
    if request.progress is None:
        return runtime.compile(model, folder)

    def report(phase: str, done: int, total: int) -> None:
        request.tell(f"build {name}: {phase}", done, total)

    return cast("Any", runtime).compile(model, folder, progress=report)  # type: ignore[no-any-return]


def _not_as_asked(recipe: Recipe, engine: Engine) -> str:
    return f"asked for {recipe.precision}, got {engine.layers.describe()}: read from the engine"


def run_all(
    reference: Callable[[], Session], variants: list[Variant], samples: Samples, request: BuildRequest
) -> list[Variant]:
    """Verify and measure those that can run here; the others stay as they are, with the reason."""
    with Runner(reference, samples, request.progress) as runner:
        for variant in variants:
            if variant.engine is not None:
                runner.open(variant.recipe.name, variant.engine)
        if request.options.measure:
            runner.measure()
        return [
            replace(
                variant,
                agreement=runner.agreements.get(variant.recipe.name),
                latencies=tuple(runner.latencies.get(variant.recipe.name, ())),
                notes=(*variant.notes, *runner.notes.get(variant.recipe.name, ())),
            )
            for variant in variants
        ]
