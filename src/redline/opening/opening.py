"""Open whatever a user may name as one: an ONNX file, an engine, a tune's folder, a PyTorch model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.core.artifact import Argument, Engine, Layers, OnnxModel, Precision
from redline.core.errors import ArtifactError, EngineMismatchError, InputError
from redline.core.plain import from_plain
from redline.core.preprocess import Detection, Preprocess, Usage
from redline.core.session import Session
from redline.networks.table import MODELS
from redline.opening.sessions import open_onnx
from redline.verification.tolerance import coarsest

MANIFEST = "manifest.json"
_AS_IT_IS: Mapping[str, Argument] = {"graph_optimization": "disabled"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opened:
    """A session with what is known about the model behind it.

    Attributes:
        precision: The coarsest that any of its layers has, which explains its errors.
        detection: What its outputs mean, for a detector.
        asset: Labelled data shipped with Redline that fits it.
        assumption: How images are prepared, in words, where nobody said it.
        notes: What the user should know.
        measured: The precision that its manifest says; None without one.
    """

    name: str
    session: Session
    layers: Layers
    precision: Precision
    preprocess: Preprocess | None = None
    class_names: tuple[str, ...] | None = None
    detection: Detection | None = None
    asset: str | None = None
    assumption: str | None = None
    notes: tuple[str, ...] = ()
    measured: str | None = None

    @property
    def shown_precision(self) -> str:
        """Of most of its layers: as a tune measured it, else as its file or session says."""
        return self.measured or self.layers.precision

    @property
    def usage(self) -> Usage:
        """How it is fed and what its outputs mean, in one."""
        return Usage(preprocess=self.preprocess, class_names=self.class_names or (), detection=self.detection)


def open_any(
    target: str | Path,
    *,
    threads: int = 0,
    weights: str | Path | None = None,
    as_it_is: bool = False,
    fallback: Sequence[str] = (),
) -> Opened:
    """Open it.

    Args:
        target: An ONNX file, an engine or its ``.engine.json``, the folder of a tune (or its ``best``, or the manifest
            in there), or a PyTorch model as ``redline export --help`` lists them.
        threads: 0 lets the runtime choose.
        weights: A checkpoint, for a PyTorch model.
        as_it_is: Run an ONNX file without the runtime's graph optimizations: what a reference should be.
        fallback: What answers instead where an engine cannot be used; see
            :func:`redline.opening.fallback.open_with_fallback`. The notes say so then.

    Raises:
        InputError: there is no such thing, or it cannot be used.
        BuildError: the runtime refused it.
    """
    if is_torch(target):
        return _open_torch(str(target), threads, weights)
    if weights is not None:
        raise InputError(f"{target} brings its own weights; leave --weights out")
    path = Path(target)
    manifest = _manifest_of(path)
    if manifest is not None:
        return _open_manifest(manifest, threads)
    if path.name.endswith(".engine.json") or _sidecar(path).is_file():
        return _open_engine(path, threads, fallback)
    return _open_file(path, threads, as_it_is=as_it_is)


def is_torch(target: str | Path) -> bool:
    """Whether this names a PyTorch model and not a file or folder that Redline made, nor an ONNX file.

    >>> is_torch("resnet18"), is_torch("model.py:factory"), is_torch("model.onnx")
    (True, True, False)
    """
    path = Path(target)
    if str(target) in MODELS:
        return True  # even where a folder happens to be called so: ./digits is that folder
    made_here = path.is_dir() or path.name == MANIFEST or path.name.endswith((".onnx", ".engine.json"))
    return not made_here and not _sidecar(path).is_file()


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".engine.json")


def _manifest_of(path: Path) -> Path | None:
    if path.name == MANIFEST:
        return path
    if not path.is_dir():
        return None
    for candidate in (path / MANIFEST, path / "best" / MANIFEST):
        if candidate.is_file():
            return candidate
    raise InputError(f"{path} is a folder without {MANIFEST}; expected the folder that redline tune wrote")


def _open_file(path: Path, threads: int, *, as_it_is: bool) -> Opened:
    from redline.data.images import infer_preprocess
    from redline.formats.onnx_file import read_onnx

    model = read_onnx(path)
    options: dict[str, Argument] = {"threads": threads, **(_AS_IT_IS if as_it_is else {})}
    told = model.usage.preprocess
    try:
        preprocess = told or infer_preprocess(model.signature)
    except InputError:
        preprocess = None  # an input of dynamic height: only whoever gives images needs to say the size
    return Opened(
        name=str(path),
        session=open_onnx(model, options=options),
        layers=model.layers,
        precision=coarsest(model.layers),
        preprocess=preprocess,
        class_names=model.usage.class_names or None,
        detection=model.usage.detection,
        assumption=_assumed(preprocess) if preprocess and not told else None,
    )


def _assumed(preprocess: Preprocess) -> str:
    means = "ImageNet's mean and deviation" if preprocess.channels == 3 else "values from 0 to 1"
    size = f"{preprocess.height_px}x{preprocess.width_px}"
    return f"the file does not say how images become its input; assumed: centre crop, {size}, {means}"


def _open_engine(path: Path, threads: int, fallback: Sequence[str] = ()) -> Opened:
    from redline.backends import open_engine
    from redline.data.images import infer_preprocess
    from redline.opening.fallback import open_with_fallback

    reasons: tuple[str, ...] = ()
    if fallback:
        found = open_with_fallback(path, fallback=fallback, threads=threads)
        engine, session, layers, reasons = Engine.described(path), found.session, found.layers, found.notes
    else:
        engine = Engine.read(path)
        has_threads = "threads" in engine.options  # those on a GPU have none
        session, layers = open_engine(str(path), {"threads": threads} if threads and has_threads else {}), engine.layers
    told = engine.usage.preprocess
    try:
        preprocess = told or infer_preprocess(engine.signature)
    except InputError:
        preprocess = None
    return Opened(
        name=str(engine.path),
        session=session,
        layers=layers,
        precision=coarsest(layers) if reasons else _engine_precision(engine),
        preprocess=preprocess,
        class_names=engine.usage.class_names or None,
        detection=engine.usage.detection,
        assumption=_assumed(preprocess) if preprocess and not told else None,
        notes=reasons,
    )


def _engine_precision(engine: Engine) -> Precision:
    """A runtime without FP16 arithmetic makes FP32 layers of an FP16 file, whose weights stay rounded."""
    halved = any(word in step.step for step in engine.provenance for word in ("fp16", "half"))
    return coarsest(engine.layers, *([Layers.of({"fp16": 1})] if halved else []))


def _open_torch(name: str, threads: int, weights: str | Path | None) -> Opened:
    from redline.networks.eager import open_model
    from redline.networks.load import ModelRef, load_model

    model = load_model(ModelRef(name, str(weights) if weights is not None else None))
    session = open_model(model, threads=threads)
    return Opened(
        name=name,
        session=session,
        layers=session.layers,
        precision=coarsest(session.layers),
        preprocess=model.preprocess,
        class_names=model.class_names,
        detection=model.detection,
        asset=model.asset,
        notes=model.notes,
    )


def _open_manifest(path: Path, threads: int) -> Opened:
    try:
        manifest = json.loads(path.read_text())
        preprocess = from_plain(Preprocess, told, where=str(path)) if (told := manifest["preprocess"]) else None
        class_names = tuple(manifest["class_names"]) if manifest["class_names"] else None
        engine, model, torch = manifest["engine"], manifest["model"], manifest["torch"]
        threads = threads or int(manifest["threads"])
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is not there; expected the manifest that redline tune wrote") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a manifest of redline tune ({type(error).__name__}: {error})") from error
    notes: tuple[str, ...] = ()
    if torch:
        opened = _open_tuned_torch(manifest, path.parent, threads)
    elif engine:
        opened, notes = _open_tuned_engine(path.parent / engine, path.parent / str(model), threads)
    elif model:
        opened = _open_file(path.parent / model, threads, as_it_is=False)
    else:
        raise ArtifactError(f"{path} names no engine, model or PyTorch model; tune again")
    return Opened(
        name=f"{path.parent} ({manifest.get('title', 'tuned')})",
        session=opened.session,
        layers=opened.layers,
        precision=opened.precision,
        preprocess=preprocess or opened.preprocess,
        class_names=class_names,
        detection=opened.detection,
        assumption=None if preprocess else opened.assumption,
        notes=notes,
        measured=manifest.get("precision"),
    )


def _open_tuned_engine(engine: Path, model: Path, threads: int) -> tuple[Opened, tuple[str, ...]]:
    try:
        return _open_engine(engine, threads), ()
    except EngineMismatchError as error:
        if not model.is_file():
            raise
        return _rebuilt(engine, model, threads), (f"compiled {model.name} again: {error}",)


def _rebuilt(engine: Path, model: Path, threads: int) -> Opened:
    """Compile the model beside an engine of another machine, with that engine's backend and options."""
    from redline.formats.onnx_file import read_onnx

    description = Engine.described(engine)
    read: OnnxModel = read_onnx(model)
    options = dict(description.options)
    if threads and "threads" in options:
        options["threads"] = threads
    return Opened(
        name=str(model),
        session=open_onnx(read, backend=description.backend, options=options),
        layers=read.layers,
        precision=coarsest(read.layers, description.layers),
        detection=read.usage.detection,
    )


def _open_tuned_torch(manifest: Mapping[str, Any], folder: Path, threads: int) -> Opened:
    from redline.networks.eager import open_torch

    arguments = dict(manifest["torch"])
    weights = arguments.pop("weights_file", None)
    try:
        session = open_torch(
            **arguments,
            threads=threads,
            weights_file=str(folder / weights) if weights else None,
            signature={"inputs": manifest["inputs"], "outputs": manifest["outputs"]},
        )
    except (TypeError, KeyError) as error:
        raise ArtifactError(f"{folder / MANIFEST} does not describe a PyTorch model ({error}); tune again") from error
    return Opened(name=str(folder), session=session, layers=session.layers, precision=coarsest(session.layers))
