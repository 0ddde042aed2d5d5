"""What ``redline serve`` is given, as sources of models; and how each of them is opened."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from redline.backends import BACKENDS, load_backend
from redline.backends.refusals import check_platform
from redline.commands.serve_detection import detection_of
from redline.core.artifact import Argument, Engine
from redline.core.errors import ArtifactError, EngineMismatchError, InputError
from redline.core.plain import from_plain
from redline.core.preprocess import Preprocess
from redline.core.session import Session, SupportsConcurrentCalls, SupportsProfiles
from redline.measurement.environment import fingerprint, usable_cores
from redline.networks.table import MODELS
from redline.opening.opening import MANIFEST, Opened, open_any
from redline.serving.models import Loaded, ModelSource, Opener
from redline.serving.repository import NAME, is_repository, model_in, versions_in

SIDECAR = ".engine.json"
_ONNXRUNTIME = "onnxruntime"
# Triton's words, which clients show.
_PLATFORMS = {"onnxruntime": "onnx_onnxv1", "onnxruntime-cuda": "onnx_onnxv1", "onnxruntime-tensorrt": "onnx_onnxv1"}
_PLATFORMS |= {"tensorrt": "tensorrt_plan", "tensorrt-rtx": "tensorrt_plan"}
_SUFFIXES = (SIDECAR, ".onnx", ".ort", ".plan", ".engine", ".blob", ".ov")
# Models whose code is in an installed package; any other name is a file that runs code or holds a pickle.
_BY_NAME = ("torchvision:", "timm:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What the arguments of ``redline serve`` name."""

    models: tuple[ModelSource, ...] = ()
    repositories: tuple[Path, ...] = ()


def sources_of(arguments: Sequence[str]) -> Sources:
    """Read the arguments: each is PATH or NAME=PATH.

    A path is an ONNX file, an engine, the folder of a tune (or its ``best``), a folder of versions
    (``<version>/model.onnx``), or a repository (``<name>/<version>/model.onnx``), which has its own names.

    Raises:
        InputError: there is no such thing, it cannot be served, or two have one name.
    """
    models: list[ModelSource] = []
    repositories: list[Path] = []
    for argument in arguments:
        name, path = _split(argument)
        if name is None and path.is_dir() and _manifest_of(path) is None and not versions_in(path):
            if not is_repository(path):
                raise InputError(
                    f"{path} is a folder without a model; expected the folder of a tune, or a repository with "
                    f"<name>/<version>/model.onnx in it"
                )
            repositories.append(path)
            continue
        source = _source(name or _name_of(path), path)
        if any(source.name == other.name for other in models):
            raise InputError(f"two models are called {source.name}; name one of them, as in {source.name}2={path}")
        models.append(source)
    return Sources(models=tuple(models), repositories=tuple(repositories))


def make_opener(*, threads: int | None = None, instances: int | None = None) -> Opener:
    """What opens one model for the server.

    Args:
        threads: Threads of one run, on a CPU; 0 lets the runtime take all. None is 1: on a busy server runs beside
            each other lose no time waiting for one another.
        instances: Runs at once. None is as many as there are cores for on a CPU, and 1 on a GPU.
    """
    if threads is not None and threads < 0:
        raise InputError(f"threads is {threads}, expected 0 or more")
    if instances is not None and instances < 1:
        raise InputError(f"instances is {instances}, expected 1 or more")
    each = 1 if threads is None else threads

    def opener(path: Path) -> Loaded:
        return _open(path, each, instances)

    return opener


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What :func:`open_any` is to open, and what is known about it without doing so.

    Attributes:
        threads: What to ask for; 0 where it takes no such option.
        scratch: Holds what was compiled for it, until it is loaded.
    """

    path: Path
    backend: str
    size_bytes: int
    threads: int
    device: str = "cpu"
    preprocess: Preprocess | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    measured: str | None = None
    scratch: tempfile.TemporaryDirectory[str] | None = None


def _open(path: Path, threads: int, instances: int | None) -> Loaded:
    target = _target(path, threads)
    sessions: list[Session] = []
    try:
        opened = open_any(target.path, threads=target.threads)
        sessions.append(opened.session)
        wanted = instances or _default_instances(target.device, threads)
        if not _concurrent(opened.session):
            sessions += (open_any(target.path, threads=target.threads).session for _ in range(wanted - 1))
    except BaseException:
        _close(sessions)
        raise
    finally:
        if target.scratch is not None:
            target.scratch.cleanup()
    return _loaded(target, opened, sessions, wanted)


def _loaded(target: _Target, opened: Opened, sessions: list[Session], wanted: int) -> Loaded:
    session = opened.session
    assumed = None if target.preprocess else opened.assumption
    preprocess = target.preprocess or opened.preprocess
    detection, doubts = detection_of(opened, preprocess)
    return Loaded(
        runs=tuple(sessions[index % len(sessions)] for index in range(wanted)),
        signature=session.signature,
        precision=target.measured or opened.shown_precision,
        backend=target.backend,
        platform=_PLATFORMS.get(target.backend, "redline"),
        size_bytes=target.size_bytes,
        close=lambda: _close(sessions),
        preprocess=preprocess,
        class_names=target.class_names or opened.class_names,
        detection=detection,
        device=target.device,
        batch_sizes=session.batch_sizes if isinstance(session, SupportsProfiles) else (),
        notes=(*target.notes, *opened.notes, *((assumed,) if assumed else ()), *doubts),
    )


def _concurrent(session: Session) -> bool:
    return isinstance(session, SupportsConcurrentCalls) and session.concurrent_calls


def _default_instances(device: str, threads: int) -> int:
    if device != "cpu" or threads == 0:
        return 1
    return max(1, usable_cores(fingerprint()) // threads)


def _close(sessions: Sequence[Session]) -> None:
    for session in sessions:
        session.close()


# Which file is opened, and what is refused.


def _target(path: Path, threads: int) -> _Target:
    manifest = _manifest_of(path)
    if manifest is not None:
        return _tuned(manifest, threads)
    if path.name.endswith(SIDECAR) or _sidecar(path).is_file():
        return _engine(path, threads)
    if path.name.endswith(".onnx"):
        return _onnx(path, threads)
    raise _refused(path)


def _onnx(path: Path, threads: int) -> _Target:
    """Compile the file here, as an engine says more about itself and may be called by several threads at once."""
    return _compiled(path, _ONNXRUNTIME, {"threads": threads})


def _compiled(path: Path, backend: str, options: dict[str, Argument]) -> _Target:
    from redline.formats.onnx_file import read_onnx

    model = read_onnx(path, contained=True)
    scratch = tempfile.TemporaryDirectory(prefix="redline-serve-")
    try:
        folder = Path(scratch.name)
        external = model.size_bytes > path.stat().st_size
        whole = read_onnx(_in_one_file(path, folder)) if external else model
        engine = load_backend(backend, options).compile(whole, folder)
    except BaseException:
        scratch.cleanup()
        raise
    threads = int(options.get("threads") or 0)
    return _Target(path=engine.path, backend=backend, size_bytes=model.size_bytes, threads=threads, scratch=scratch)


def _in_one_file(path: Path, folder: Path) -> Path:
    """A copy with its weights inside: what ONNX Runtime saves elsewhere still looks for them beside itself."""
    from redline.formats.onnx_file import load_proto

    copy = folder / path.name
    copy.write_bytes(load_proto(path).SerializeToString())
    return copy


def _engine(path: Path, threads: int) -> _Target:
    engine = Engine.described(path)
    entry = BACKENDS.get(engine.backend)
    if entry is None or not entry.from_onnx:
        raise InputError(
            f"{path.name} is an engine of {engine.backend}, whose files hold code and pickles; the server loads none: "
            "build one from the ONNX file"
        )
    return _Target(
        path=engine.path,
        backend=engine.backend,
        size_bytes=engine.path.stat().st_size if engine.path.is_file() else 0,
        threads=threads if "threads" in engine.options else 0,
        device="cuda" if "compute_capability" in engine.platform else "cpu",
    )


def _tuned(manifest: Path, threads: int) -> _Target:
    folder = manifest.parent
    value = _read_manifest(manifest)
    preprocess, names = value.get("preprocess"), value.get("class_names")
    try:
        told = from_plain(Preprocess, preprocess, where=str(manifest)) if preprocess else None
    except ArtifactError as error:
        raise ArtifactError(f"{manifest} does not say how images are prepared ({error}); tune again") from error
    if value.get("torch"):
        target = _torch(manifest, value["torch"], threads)
    else:
        engine, model = _inside(folder, value.get("engine")), _inside(folder, value.get("model"))
        target = _engine_or_model(engine, model, threads)
    # What was compiled anew for another machine may compute otherwise than where it was measured.
    measured = value.get("precision") if not target.notes else None
    names = tuple(map(str, names)) if names else None
    return replace(target, preprocess=told, class_names=names, measured=str(measured) if measured else None)


def _engine_or_model(engine: Path | None, model: Path | None, threads: int) -> _Target:
    if engine is None:
        if model is None:
            raise ArtifactError("the manifest names no engine and no model; tune again")
        return _onnx(model, threads)
    target = _engine(engine, threads)
    foreign = _foreign(engine) if target.device == "cpu" and model is not None else None
    if foreign is None or model is None:
        return target
    options = dict(Engine.described(engine).options)
    compiled = _compiled(model, target.backend, {**options, **({"threads": threads} if "threads" in options else {})})
    return replace(compiled, notes=(f"compiled {model.name} again: {foreign}",))


def _foreign(path: Path) -> str | None:
    """Why an engine is not for this machine; None where it is. Compiling for a GPU takes too long to do it here."""
    engine = Engine.described(path)
    try:
        check_platform(engine, load_backend(engine.backend, engine.options).platform())
    except EngineMismatchError as error:
        return str(error)
    return None


def _torch(manifest: Path, arguments: Any, threads: int) -> _Target:
    """A tune may recommend PyTorch itself: its weights are tensors in safetensors, its code an installed package."""
    ref = arguments.get("ref") if isinstance(arguments, dict) else None
    name = str(ref.get("name")) if isinstance(ref, dict) else ""
    weights = arguments.get("weights_file") if isinstance(arguments, dict) else None
    if not isinstance(ref, dict) or not (name in MODELS or name.startswith(_BY_NAME)) or ref.get("weights"):
        raise InputError(
            f"{manifest} names the PyTorch model {name!r}, whose file may run any code; the server loads none: "
            "export it (redline export) and serve the ONNX file"
        )
    file = _inside(manifest.parent, weights)
    if file is not None and file.suffix != ".safetensors":
        raise InputError(
            f"{manifest} keeps weights in {file.name}, expected a .safetensors file; the server reads no pickle"
        )
    device = str(arguments.get("device", "cpu")).partition(":")[0]
    size = file.stat().st_size if file is not None and file.is_file() else 0
    return _Target(
        path=manifest, backend="torch", size_bytes=size, threads=threads if device == "cpu" else 0, device=device
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is not a manifest of redline tune ({type(error).__name__}: {error})") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} is not a manifest of redline tune; tune again")
    return value


def _inside(folder: Path, name: Any) -> Path | None:
    if not name:
        return None
    path = folder / str(name)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{folder / MANIFEST} names {name}, which is outside its folder; copy it there")
    return path


def _refused(path: Path) -> InputError:
    if not path.exists():
        hint = f"; a built-in model becomes one by: redline export {path} -o {path}.onnx" if str(path) in MODELS else ""
        return InputError(
            f"{path} is not there; expected an ONNX file, an engine, a tune's folder or a repository{hint}"
        )
    if path.suffix in (".plan", ".engine"):
        return InputError(f"{path} has no {path.name}{SIDECAR} beside it; build it with redline build")
    return InputError(
        f"{path} cannot be served: expected an ONNX file, an engine with its {SIDECAR}, or a tune's folder; "
        "a PyTorch model is exported first (redline export), as the server loads no code and no pickle"
    )


# Names.


def _split(argument: str) -> tuple[str | None, Path]:
    """NAME=PATH, unless there is a file whose own name has the sign in it."""
    name, sign, rest = argument.partition("=")
    if not sign or Path(argument).exists() or "/" in name:
        return None, Path(argument)
    if not NAME.fullmatch(name) or not rest:
        raise InputError(f"got {argument!r}, expected NAME=PATH with a name of letters, digits, '.', '_' and '-'")
    return name, Path(rest)


def _source(name: str, path: Path) -> ModelSource:
    if path.is_dir() and _manifest_of(path) is None:
        versions = {folder.name: model_in(folder) for folder in versions_in(path)}
        found = {number: model for number, model in versions.items() if model is not None}
        if not found:
            raise InputError(f"{path} is a folder without a model; expected a tune's, or <version>/model.onnx in it")
        return ModelSource(name=name, versions=found)
    if not _servable(path):
        raise _refused(path)
    return ModelSource(name=name, versions={"1": path})


def _servable(path: Path) -> bool:
    if not path.exists():
        return False
    return _manifest_of(path) is not None or path.name.endswith((".onnx", SIDECAR)) or _sidecar(path).is_file()


def _name_of(path: Path) -> str:
    """A name from that of the file; of a tune's ``best``, from the tune's folder.

    >>> _name_of(Path("nets/ResNet 18.ort.onnx")), _name_of(Path("out/digits/best/manifest.json"))
    ('ResNet-18', 'digits')
    """
    place = path.absolute() if path.name in ("", ".", "..", "best", MANIFEST) else path
    with suppress(OSError):
        place = place.resolve() if path.name in ("", ".", "..") else place
    if place.name == MANIFEST:
        place = place.parent
    if place.name == "best":
        place = place.parent
    name = place.name
    while (suffix := next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), None)) is not None:
        name = name.removesuffix(suffix)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-")[:128] or "model"


def _manifest_of(path: Path) -> Path | None:
    if path.name == MANIFEST:
        return path
    if not path.is_dir():
        return None
    return next((found for found in (path / MANIFEST, path / "best" / MANIFEST) if found.is_file()), None)


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + SIDECAR)
