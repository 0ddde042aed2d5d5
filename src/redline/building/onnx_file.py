"""Build TensorRT engines of an ONNX file, and say what each really is."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any, cast

from redline.backends import load_backend
from redline.building.recipes import Recipe, find_samples, prepare_file, recipes_for
from redline.building.records import BuildOptions, BuildRequest, BuildResult, BuiltEngine
from redline.building.trial import run_all
from redline.core.artifact import Engine, OnnxModel
from redline.core.errors import BuildError, InputError
from redline.core.samples import Samples, save_samples
from redline.core.session import Backend, Session
from redline.formats.onnx_file import read_onnx
from redline.opening.sessions import open_onnx


def build_file(model: Path, folder: Path, request: BuildRequest) -> BuildResult:
    """Build each engine of an ONNX file; see :func:`redline.commands.build.build`."""
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
) -> BuiltEngine:
    """An engine, or the reason why there is none: one that cannot be built must not stop the others."""
    if recipe.refused:
        return BuiltEngine(recipe=recipe, failed=recipe.refused)
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
        return BuiltEngine(recipe=recipe, failed=str(error))
    notes = [] if engine.precision == recipe.precision else [_not_as_asked(recipe, engine)]
    if engine.path.stat().st_mtime_ns == before:
        notes.append("was there already, built from the same model with the same options for this GPU")
    return BuiltEngine(recipe=recipe, engine=engine, build_s=perf_counter() - started, notes=tuple(notes))


def _compile(runtime: Backend, model: OnnxModel, folder: Path, name: str, request: BuildRequest) -> Engine:
    if request.progress is None:
        return runtime.compile(model, folder)

    def report(phase: str, done: int, total: int) -> None:
        request.tell(f"build {name}: {phase}", done, total)

    return cast("Any", runtime).compile(model, folder, progress=report)  # type: ignore[no-any-return]


def _not_as_asked(recipe: Recipe, engine: Engine) -> str:
    return f"asked for {recipe.precision}, got {engine.layers.describe()}: read from the engine"
