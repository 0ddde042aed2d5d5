"""What Triton is given of a model: the file that it can run, and how."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import onnx
from onnx import GraphProto, TensorProto
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

import redline
from redline.backends.tensorrt.profiles import Profile, Range, parse_profiles
from redline.core.artifact import Engine, Layers, OnnxModel
from redline.core.errors import ArtifactError, InputError
from redline.core.host import available_cores
from redline.core.plain import from_plain, to_plain
from redline.core.preprocess import Preprocess, Usage
from redline.core.tensor import Signature
from redline.deployment import triton_python
from redline.deployment.repository import ABOUT, VersionFiles, check_name
from redline.deployment.triton import MODEL_FILES, Kind, Scheduling, TritonModel, joins, why_not_joined
from redline.formats.onnx_file import read_onnx
from redline.opening.opening import MANIFEST

OnnxBackend = Literal["onnxruntime", "python"]
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,127})=(.+)", re.S)
_LARGEST_BATCH = 32
_NO_SIZE = "Triton has no tensor without a size beside the batch"
#: Redline's backends that run an ONNX file on a GPU; Triton's ONNX Runtime does that too.
_ONNX_ON_GPU = ("onnxruntime-cuda", "onnxruntime-tensorrt")


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is known of a model: its ``redline.json``."""

    format: int = 1
    redline: str
    source: str
    sha256: str
    precision: str
    layers: str
    signature: Signature
    scheduling: Scheduling
    platform: Mapping[str, str]
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A model that can be written into a repository.

    Attributes:
        comment: The first lines of its ``config.pbtxt``.
        notes: What the user should know.
    """

    model: TritonModel
    about: About
    files: VersionFiles
    comment: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _ModelFile:
    """The file to export: an ONNX file or a TensorRT plan."""

    path: Path
    name: str
    signature: Signature
    layers: Layers
    sha256: str
    usage: Usage
    plan: Engine | None = None
    kind: Kind = "cpu"
    notes: tuple[str, ...] = ()
    measured: tuple[str, str] | None = None

    @property
    def precision(self) -> tuple[str, str]:
        """Of most layers, and in words: as a tune measured it, else as the file says."""
        return self.measured or (self.layers.precision, self.layers.describe())


def prepare(
    text: str, *, backend: OnnxBackend, max_batch: int | None, max_delay_s: float, instances: int | None
) -> Prepared:
    """Find the file behind ``PATH`` or ``NAME=PATH``, and decide how Triton runs it.

    Args:
        text: What the user typed.
        backend: What runs an ONNX file.
        max_batch: The most rows that run at once; None where the user left it open.
        max_delay_s: How long a batch may wait to fill.
        instances: How many run side by side; None where the user left it open.

    Raises:
        InputError: there is no such file, or Triton cannot run it.
    """
    named = _NAMED.fullmatch(text) if not Path(text).exists() else None
    path = Path(named[2]) if named else Path(text)
    found = _find(path)
    name = check_name(named[1] if named else found.name)
    if not found.plan and backend not in ("onnxruntime", "python"):
        raise InputError(f"got backend {backend!r}, expected onnxruntime or python")
    scheduling, notes = _schedule(found, max_batch, max_delay_s)
    if instances is not None:
        scheduling = replace(scheduling, instances=instances)
    model = TritonModel(
        name=name,
        backend="tensorrt" if found.plan else backend,
        signature=found.signature,
        scheduling=scheduling,
        class_names=found.usage.class_names,
        usual=_usual(found),
    )
    about = _about(found, model)
    return Prepared(
        model=model,
        about=about,
        files=_files(found, model, about),
        comment=(
            f"Written by redline {redline.__version__} from {found.path.name} "
            f"(sha256 {found.sha256[:16]}…, {found.precision[1]}).\nYours to edit: redline never writes it again."
        ),
        notes=(*found.notes, *notes),
    )


def _find(path: Path) -> _ModelFile:
    if not path.exists():
        raise InputError(f"{path} is not there; expected an .onnx, a TensorRT plan, or the folder of a tune")
    if path.is_dir() or path.name == MANIFEST:
        return _find_tuned(path)
    sidecar = path.with_name(path.name + ".engine.json")
    if path.name.endswith(".engine.json") or sidecar.is_file():
        return _find_engine(path)
    if path.suffix != ".onnx":
        raise InputError(f"got {path}, expected an .onnx, a TensorRT plan with its .engine.json, or a tune's folder")
    return _of_onnx(read_onnx(path))


def _of_onnx(model: OnnxModel) -> _ModelFile:
    return _ModelFile(
        path=model.path,
        name=_as_name(model.path.stem),
        signature=model.signature,
        layers=model.layers,
        sha256=model.sha256,
        usage=model.usage,
    )


def _find_engine(path: Path) -> _ModelFile:
    engine = Engine.read(path)
    if engine.backend == "tensorrt":
        return _of_plan(engine)
    source = engine.provenance[-1].arguments.get("model_file") if engine.provenance else None
    model = engine.path.parent / str(source)
    if not source or not model.is_file():
        raise InputError(
            f"{engine.path} is an engine of {engine.backend}, which Triton does not load; give the ONNX file that it "
            "was built from"
        )
    return _instead(engine, model)


def _of_plan(engine: Engine) -> _ModelFile:
    return _ModelFile(
        path=engine.path,
        name=_as_name(engine.path.stem),
        signature=engine.signature,
        layers=engine.layers,
        sha256=engine.sha256,
        usage=engine.usage,
        plan=engine,
        kind="gpu",
        notes=(f"the plan needs a Triton with TensorRT {engine.platform.get('tensorrt', 'of the same version')}",),
    )


def _instead(engine: Engine, model: Path) -> _ModelFile:
    note = f"{engine.path.name} is an engine of {engine.backend}, which Triton does not load: exported {model.name}"
    kind: Kind = "gpu" if engine.backend in _ONNX_ON_GPU else "cpu"
    return replace(_of_onnx(read_onnx(model)), kind=kind, notes=(note,))


def _find_tuned(path: Path) -> _ModelFile:
    folders = (path.parent,) if path.name == MANIFEST else (path, path / "best")
    folder = next((folder for folder in folders if (folder / MANIFEST).is_file()), None)
    if folder is None:
        raise InputError(f"{path} is a folder without {MANIFEST}; expected the folder that redline tune wrote")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        engine, model, torch = manifest["engine"], manifest["model"], manifest["torch"]
        told = manifest["preprocess"]
        preprocess = from_plain(Preprocess, told, where=MANIFEST) if told else None
        class_names = tuple(manifest["class_names"] or ())
        measured = (str(manifest["precision"]), str(manifest["layers"])) if "layers" in manifest else None
    except (ValueError, KeyError, TypeError) as error:
        told = f"{type(error).__name__}: {error}"
        raise ArtifactError(f"{folder / MANIFEST} is not a manifest of redline tune ({told})") from error
    if torch or not (engine or model):
        raise InputError(
            f"{folder} recommends {manifest.get('title', 'PyTorch')}, which Triton does not load; export an ONNX file "
            f"of the tune instead: {folder.parent / 'artifacts'}"
        )
    found = _find_tuned_file(folder, engine, model)
    tuned = folder.resolve().parent if folder.name == "best" else folder.resolve()
    # What a detector's outputs mean is said by its file alone.
    usage = replace(found.usage, preprocess=preprocess, class_names=class_names)
    return replace(found, name=_as_name(tuned.name), usage=usage, measured=measured)


def _find_tuned_file(folder: Path, engine: str | None, model: str | None) -> _ModelFile:
    described = Engine.described(folder / engine) if engine else None
    if described is not None and described.backend == "tensorrt":
        return _of_plan(Engine.read(described.path))
    if not model:
        raise InputError(f"{folder} has no ONNX file; tune again")
    return _instead(described, folder / model) if described is not None else _of_onnx(read_onnx(folder / model))


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "model"


def _schedule(found: _ModelFile, wanted: int | None, max_delay_s: float) -> tuple[Scheduling, list[str]]:
    notes = []
    one_row = why_not_joined(found.signature)
    if one_row:
        notes.append(one_row)
    else:
        tensors = (*found.signature.inputs, *found.signature.outputs)
        notes += [f"clients see {spec.name} as [batch, 1]: {_NO_SIZE}" for spec in tensors if len(spec.shape) == 1]
    plan = Scheduling(
        max_batch=_LARGEST_BATCH if wanted is None else wanted,
        max_delay_s=max_delay_s,
        instances=available_cores() if found.kind == "cpu" else 1,
        kind=found.kind,
    )
    if found.plan is not None:
        plan, told = _profiled(plan, found.plan, wanted)
        notes += told
    return plan, notes


def _profiled(plan: Scheduling, engine: Engine, wanted: int | None) -> tuple[Scheduling, list[str]]:
    """Batch sizes as the plan's profiles have them: the largest, and those that it is fastest at."""
    profiles = _profiles(engine)
    ranges = [ranges for profile in profiles if (ranges := profile.ranges(engine.signature))]
    if not ranges or not joins(engine.signature):
        return replace(plan, profiles=max(1, len(ranges))), []
    largest = max(min(limits.largest[0] for limits in one.values()) for one in ranges)
    smallest = min(max(limits.smallest[0] for limits in one.values()) for one in ranges)
    if wanted is not None and wanted > largest:
        raise InputError(
            f"got a largest batch of {wanted}, expected at most {largest}: {engine.path.name} was built for no more"
        )
    most = largest if wanted is None else wanted
    usual = {limits.usual[0] for one in ranges for limits in one.values()}
    preferred = tuple(sorted(size for size in usual if 1 < size <= most))
    notes = [f"the plan takes {smallest} rows at least; Triton refuses a request that it cannot fill up to that"]
    return replace(plan, max_batch=most, preferred=preferred, profiles=len(ranges)), notes if smallest > 1 else []


def _profiles(engine: Engine) -> tuple[Profile, ...]:
    return parse_profiles(str(engine.options.get("profiles") or "")) or (Profile(),)


def _usual(found: _ModelFile) -> dict[str, tuple[int, ...]]:
    """Whole shapes to warm up with, of inputs whose size is open: a plan's usual one, an image's."""
    if found.plan is not None:
        ranges: Mapping[str, Range] = _profiles(found.plan)[0].ranges(found.signature)
        return {name: limits.usual for name, limits in ranges.items()}
    image = found.usage.preprocess
    inputs = found.signature.inputs
    if image is None or len(inputs) != 1 or len(inputs[0].shape) != 4:
        return {}
    size = (image.height_px, image.width_px)
    shape = (image.channels, *size) if image.layout == "nchw" else (*size, image.channels)
    return {inputs[0].name: (1, *shape)}


def _files(found: _ModelFile, model: TritonModel, about: About) -> VersionFiles:
    written: dict[str, str] = {}
    if found.plan is not None:
        plan = MODEL_FILES["tensorrt"]
        # With its description, so that redline serve opens the repository too.
        copied = {plan: found.path, f"{plan}.engine.json": found.plan.sidecar}
    else:
        copied = {MODEL_FILES["onnxruntime"]: found.path, **external_files(found.path)}
        if model.backend == "python":
            written = {MODEL_FILES["python"]: Path(triton_python.__file__).read_text(encoding="utf-8")}
    written[ABOUT] = json.dumps(to_plain(about), indent=2) + "\n"
    return VersionFiles(copied=copied, written=written)


def _about(found: _ModelFile, model: TritonModel) -> About:
    return About(
        redline=redline.__version__,
        source=found.path.name,
        sha256=found.sha256,
        precision=found.precision[0],
        layers=found.precision[1],
        signature=found.signature,
        scheduling=model.scheduling,
        platform=found.plan.platform if found.plan else {},
        usage=found.usage,
    )


def external_files(path: Path) -> dict[str, Path]:
    """The files that keep weights of an ONNX file, by the name that it knows them under.

    Raises:
        InputError: one lies outside the file's folder, or has the name of a file that the repository needs.
    """
    proto = onnx.load_model(str(path), load_external_data=False)
    names = {ExternalDataInfo(tensor).location for tensor in _tensors(proto.graph) if uses_external_data(tensor)}
    home = path.parent.resolve()
    for name in sorted(names):
        if not (home / name).resolve().is_relative_to(home) or name in MODEL_FILES.values():
            raise InputError(f"{path} keeps weights in {name!r}, expected a file of another name in its own folder")
    return {name: path.parent / name for name in sorted(names)}


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _tensors(inner)
