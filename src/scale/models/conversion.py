"""One model file becomes a TensorRT engine beside it: exported where it must be, built, tried, then put in place."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from redline.core.artifact import Argument, Engine, OnnxModel, Step
from redline.core.errors import BuildError, InputError, MissingDependencyError, RedlineError
from redline.core.files import write_whole
from redline.core.preprocess import DetectionHead
from redline.core.tensor import Array, Signature
from scale.models.files import ModelFiles, find_files, why_stale
from scale.models.spec import ONNX_SUFFIX, ModelSpec

if TYPE_CHECKING:
    from redline.building.records import BuiltEngine

CONVERTED = "scale convert"
_DEFAULT_INPUT_PX = 640
_FEW_SAMPLES = 2
Tell = Callable[[str], None]
InputType = Literal["uint8", "float"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """How engines are made.

    Attributes:
        half: FP16; else FP32.
        batch: Windows in one call: the batch of an engine that is fixed, else the most that it takes.
        input_px: Side of the model's input; None takes the model's own.
        input_type: ``uint8``: images go to the GPU as bytes and the engine scales them; ``float``: as the model has it.
        keep_head: Leave the outputs as the model has them; else the engine names the best class of each box itself.
        dynamic: Export ``.pt`` files with an open batch, so that the engine takes 1 to ``batch`` windows.
        workspace_bytes: The most memory of one layer; 0 leaves TensorRT's own limit.
        target: Compute capability such as ``sm89`` of a GPU that need not be here (TensorRT-RTX).
        timing_cache: File in which TensorRT keeps what it timed, for the next build; none where empty.
        rebuild: Build also what is there already, of the same file, with the same options, for this GPU.
    """

    half: bool = True
    batch: int = 32
    input_px: int | None = None
    input_type: InputType = "uint8"
    keep_head: bool = False
    dynamic: bool = False
    workspace_bytes: int = 0
    target: str = ""
    timing_cache: str = ""
    rebuild: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (("batch", self.batch, 1), ("input", self.input_px, 32)):
            if value is not None and value < least:
                raise InputError(f"{name} is {value}, expected at least {least}")
        if self.input_type not in get_args(InputType):
            raise InputError(f"input type is {self.input_type!r}, expected one of {', '.join(get_args(InputType))}")
        if self.workspace_bytes and self.workspace_bytes < 1 << 20:
            raise InputError(f"workspace is {self.workspace_bytes} bytes, expected at least 1MiB, such as 4GiB")

    @property
    def backend(self) -> Literal["tensorrt", "tensorrt-rtx"]:
        """Which TensorRT builds."""
        return "tensorrt-rtx" if self.target else "tensorrt"

    @property
    def precision(self) -> str:
        """What is asked for."""
        return "fp16" if self.half else "fp32"

    def settings(self) -> dict[str, Argument]:
        """What an engine depends on beside its model and machine."""
        return {name: value for name, value in asdict(self).items() if name not in ("rebuild", "timing_cache")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What came of one model.

    Attributes:
        result: ``built``, ``kept`` (it was there already, of the same file, options and GPU) or ``failed``.
        precision: Of the engine's layers, in words, as read from the engine.
        head: Of the engine: ``best`` where it names the best class of each box, else the model's own; None where its
            outputs do not tell.
        seconds: All of it: export, build, trial.
        reason: Why it failed.
        notes: What a user should know.
    """

    model: Path
    result: Literal["built", "kept", "failed"]
    engine: Path | None = None
    precision: str | None = None
    head: DetectionHead | None = None
    seconds: float = 0.0
    size_bytes: int | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()


def convert_one(path: Path, options: ConvertOptions, tell: Tell) -> Conversion:
    """Make the engine beside a ``.pt`` or ``.onnx`` file; what was there stays until the new one is whole.

    Raises:
        RedlineError: it could not be made; says why.
    """
    model, notes = _as_onnx(find_files(path), path, options, tell)
    place = path.with_suffix(".engine")
    settings: dict[str, Argument] = {**options.settings(), "model_file": model.path.name}
    kept = None if options.rebuild else _still_good(place, model, settings, options)
    if kept is not None:
        return _row(path, "kept", kept, notes)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-", suffix=".partial") as folder:
        fixed = _with_fixed_size(model, options, Path(folder))
        _check_detector(fixed)
        variant = _build(_rewritten(fixed, options, Path(folder)), options, Path(folder), tell)
        engine = variant.engine
        if engine is None:
            raise BuildError(variant.failed or "it was not built")
        if not options.target:
            tell("try")
            _try(engine)
        step = Step(step=CONVERTED, arguments=settings, parent_sha256=model.sha256, versions={})
        # Between the two writes the old description does not fit the new engine, which is then refused, never mistaken.
        write_whole(place, engine.path.read_bytes())
        placed = replace(engine, path=place, provenance=(*engine.provenance, step))
        placed.save()
    return _row(path, "built", placed, (*notes, *_notes_of(variant, options)))


def _row(path: Path, result: Literal["built", "kept"], engine: Engine, notes: tuple[str, ...]) -> Conversion:
    from scale.models.best_class import layout_told

    layout = layout_told(engine.signature, engine.usage)
    return Conversion(
        model=path,
        result=result,
        engine=engine.path,
        precision=engine.layers.describe(),
        head=layout.head if layout else None,
        size_bytes=engine.path.stat().st_size,
        notes=notes,
    )


def _as_onnx(files: ModelFiles, path: Path, options: ConvertOptions, tell: Tell) -> tuple[OnnxModel, tuple[str, ...]]:
    """The ONNX file to build from: the model itself, one that lies beside it and is good, or a new export.

    Raises:
        MissingDependencyError: it must be exported, and ultralytics is not installed.
    """
    from redline.formats.onnx_file import read_onnx

    if path.suffix.lower() == ONNX_SUFFIX:
        model = read_onnx(path)
        _check_size(model, options)
        return model, _batch_notes(model, options)
    there = _good_export(files, path)
    if there is not None and _fits(there, options):
        return there, ()
    tell("export")
    try:
        return _export(path, options), ()
    except MissingDependencyError as error:
        if there is None:
            raise MissingDependencyError(error.package, extra="yolo") from error
        _check_size(there, options)
        note = f"built from the {there.path.name} beside it: {error.package} is not installed"
        return there, (note, *_batch_notes(there, options))


def _good_export(files: ModelFiles, path: Path) -> OnnxModel | None:
    """The ONNX file beside a ``.pt`` file, where it is readable and of that file."""
    from redline.formats.onnx_file import read_onnx

    if files.onnx is None:
        return None
    try:
        model = read_onnx(files.onnx)
    except RedlineError:
        return None
    return None if why_stale(files.onnx, model.provenance, [path]) else model


def _export(path: Path, options: ConvertOptions) -> OnnxModel:
    from redline.backends.tensorrt.library import load_library
    from scale.models.ultralytics import ExportOptions, export_onnx

    return export_onnx(
        path,
        path.with_suffix(ONNX_SUFFIX),
        ExportOptions(
            input_px=options.input_px,
            batch=options.batch,
            dynamic=options.dynamic,
            opset=load_library(options.backend).highest_opset,
        ),
    )


def _fits(model: OnnxModel, options: ConvertOptions) -> bool:
    """Whether a file is what an export would give."""
    sizes = _fixed_sizes(model)
    return _batch_fits(model, options) and (options.input_px is None or all(size == options.input_px for size in sizes))


def _batch_fits(model: OnnxModel, options: ConvertOptions) -> bool:
    """An open batch fits a fixed one, and not the reverse."""
    fixed = model.signature.fixed_batch
    return fixed is None or (fixed == options.batch and not options.dynamic)


def _check_size(model: OnnxModel, options: ConvertOptions) -> None:
    """Refuse a file that is fixed at another size than was asked for."""
    fixed = _fixed_sizes(model)
    if options.input_px is not None and any(size != options.input_px for size in fixed):
        raise InputError(
            f"{model.path.name} takes images of {'x'.join(map(str, fixed))} px, got imgsz {options.input_px}; "
            "leave it out, or export the model at that size"
        )


@dataclass(frozen=True, slots=True)
class _Unopened:
    """The signature of a model that is not open, where one is only to be looked at."""

    signature: Signature

    def __call__(self, _inputs: Mapping[str, Array], /) -> dict[str, Array]:
        raise InputError("the model is not open")

    def close(self) -> None:
        """Nothing is held."""


def _check_detector(model: OnnxModel) -> None:
    """Refuse what could be built, and could never be opened as a detector."""
    from redline.detection.detector import Detector

    try:
        Detector(_Unopened(model.signature), model.usage)
    except InputError as error:
        raise InputError(f"{model.path.name}: {error}") from error


def _fixed_sizes(model: OnnxModel) -> list[int]:
    """Height and width of the images, as far as they are fixed.

    Raises:
        InputError: it takes no images.
    """
    from redline.detection.preparing import input_sizes

    inputs = model.signature.inputs
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        told = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in inputs) or "nothing"
        raise InputError(f"{model.path.name} takes {told}; a detector takes one input of images")
    return [size for size in input_sizes(inputs[0]) if isinstance(size, int)]


def _batch_notes(model: OnnxModel, options: ConvertOptions) -> tuple[str, ...]:
    if _batch_fits(model, options):
        return ()
    fixed, asked = model.signature.fixed_batch, f"1 to {options.batch}" if options.dynamic else str(options.batch)
    return (f"its batch is fixed at {fixed} in {model.path.name}, asked was {asked}; export it with a dynamic batch",)


def _with_fixed_size(model: OnnxModel, options: ConvertOptions, folder: Path) -> OnnxModel:
    """The model with height and width fixed: windows always come in one size, and TensorRT is faster for it."""
    from redline.formats.onnx_file import load_proto, save_proto, tell_output_sizes

    spec = model.signature.inputs[0]
    if all(isinstance(size, int) for size in spec.shape[1:]):
        return model
    told = model.usage.preprocess
    height, width = (told.height_px, told.width_px) if told else (_DEFAULT_INPUT_PX, _DEFAULT_INPUT_PX)
    sizes = (3, options.input_px or height, options.input_px or width)
    proto = load_proto(model.path)
    image = next(value for value in proto.graph.input if value.name == spec.name)
    for axis, size in enumerate(sizes, start=1):
        image.type.tensor_type.shape.dim[axis].dim_value = size
    for output in proto.graph.output:  # their sizes follow, and are found anew
        for axis, dim in enumerate(output.type.tensor_type.shape.dim):
            if axis and not dim.HasField("dim_value"):
                dim.dim_param = f"{output.name}_{axis}"
    del proto.graph.value_info[:]
    tell_output_sizes(proto)  # what the outputs are is told by them
    step = Step(step="fix size", arguments={"size": "x".join(map(str, sizes))}, parent_sha256=model.sha256, versions={})
    return save_proto(proto, folder / model.path.name, step=step, parent=model)


def _rewritten(model: OnnxModel, options: ConvertOptions, folder: Path) -> OnnxModel:
    """The model with less to copy to the GPU and back, as far as it may be."""
    from scale.models.best_class import with_best_class
    from scale.models.uint8_input import with_uint8_input

    if not options.keep_head:
        model = with_best_class(model, folder / f"{model.path.stem}_best{ONNX_SUFFIX}")
    if options.input_type == "uint8":
        model = with_uint8_input(model, folder / f"{model.path.stem}_uint8{ONNX_SUFFIX}")
    return model


def _build(model: OnnxModel, options: ConvertOptions, folder: Path, tell: Tell) -> BuiltEngine:
    from redline.commands.build import BuildOptions, build

    batch = options.batch
    result = build(
        model.path,
        folder,
        precisions=(options.precision,),
        options=BuildOptions(
            backend=options.backend,
            profiles=() if model.signature.fixed_batch else (f"1,{batch},{batch}",),
            samples=_FEW_SAMPLES,
            target=options.target,
            workspace_bytes=options.workspace_bytes,
            timing_cache=options.timing_cache,
            measure=False,
        ),
        progress=lambda what, _done, _total: tell(what),
    )
    return result.variants[0]


def _try(engine: Engine) -> None:
    """Open it as a user of it would, and have it answer once.

    Raises:
        RedlineError: it does not work.
    """
    from scale.models.engines import open_engine_file
    from scale.models.loaded import loaded

    spec = ModelSpec(name=engine.path.stem, path=engine.path, class_names={0: "object"})
    loaded(spec, engine.path, open_engine_file(engine.path)).close()


def _still_good(
    place: Path, model: OnnxModel, settings: Mapping[str, Argument], options: ConvertOptions
) -> Engine | None:
    """The engine that is there, where it is whole, of this file, these settings and this machine."""
    from redline.backends import load_backend

    try:
        engine = Engine.read(place)
    except RedlineError:
        return None
    step = engine.provenance[-1] if engine.provenance else None
    if step is None or step.step != CONVERTED or step.parent_sha256 != model.sha256 or step.arguments != settings:
        return None
    here = load_backend(options.backend, {"target": options.target}).platform()
    depends = (options.backend,) if options.target else (options.backend, "gpu", "compute_capability")
    return engine if all(engine.platform.get(key) == here.get(key) for key in depends) else None


def _notes_of(variant: BuiltEngine, options: ConvertOptions) -> tuple[str, ...]:
    if options.target:
        told = tuple(note for note in variant.notes if not note.startswith("not run"))
        return (*told, f"not tried: it is for a GPU of {options.target}")
    found = variant.agreement
    if found is None or found.passed:
        return variant.notes
    differs = f"its answers to random numbers differ from float32's more than expected: {found.reason}"
    detection = variant.engine.usage.detection if variant.engine else None
    if detection is not None and detection.head == "best":
        differs += "; where two classes score nearly alike, the number of the other one counts as such"
    return (*variant.notes, differs)
