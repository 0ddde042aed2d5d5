"""Open an engine or, where it is foreign, stale, broken or cannot run here, the next best; and say which and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from redline.backends import load_backend
from redline.core.artifact import Argument, Engine, Layers
from redline.core.errors import EngineMismatchError, InputError, RedlineError
from redline.core.files import sha256_of
from redline.core.session import Session
from redline.formats.onnx_file import read_onnx
from redline.opening.sessions import open_onnx

#: What is tried when the engine cannot be used, in this order.
FALLBACKS = ("rebuild", "onnxruntime-cuda", "torch", "onnxruntime")
_logger = logging.getLogger("redline.fallback")
_told: set[str] = set()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """A session with the backend that it came from.

    Attributes:
        reasons: Why none of those before it would do; empty for the engine itself.
    """

    session: Session
    backend: str
    layers: Layers
    reasons: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told."""
        if not self.reasons:
            return ()
        return (f"{self.backend} answers instead of the engine", *self.reasons)


def open_with_fallback(
    engine: Path,
    *,
    fallback: Sequence[str] = FALLBACKS,
    model: Path | None = None,
    torch: str | None = None,
    threads: int = 0,
) -> Found:
    """Open an engine or, where that fails, what comes next.

    Args:
        engine: The engine file or its ``.engine.json``.
        fallback: Of ``rebuild`` (build the engine again from its model), ``onnxruntime-cuda``, ``torch`` and
            ``onnxruntime``, or other names of the table of backends; tried in this order. None means that an engine
            that cannot be used is an error.
        model: The ONNX file that the engine was built from; without it, the file that the engine names and that still
            has the same content.
        torch: A PyTorch model, as ``redline export --help`` lists them, for ``torch``.
        threads: For backends on the CPU; 0 lets them choose.

    Raises:
        EngineMismatchError: the engine cannot be used, nor can anything that was to replace it; has every reason.
        InputError: there is no fallback of such a name.
    """
    _check_names(fallback)
    try:
        return _open_engine(engine, model)
    except RedlineError as error:
        reasons = [f"engine: {error}"]
    for name in fallback:
        try:
            found = _opener(name)(engine, model, torch, threads)
        except (RedlineError, ImportError) as error:
            reasons.append(f"{name}: {error}")
            continue
        _tell_once(engine, found.backend, reasons)
        return replace(found, reasons=tuple(reasons))
    raise EngineMismatchError("; ".join(reasons))


def _check_names(fallback: Sequence[str]) -> None:
    from redline.backends import BACKENDS

    known = {*FALLBACKS, *BACKENDS}
    for name in fallback:
        if name not in known:
            raise InputError(f"got fallback {name!r}, expected one of {', '.join(sorted(known))}")


def _tell_once(engine: Path, backend: str, reasons: Sequence[str]) -> None:
    message = f"{engine.name} is not used, {backend} answers instead: {'; '.join(reasons)}"
    if message not in _told:
        _told.add(message)
        _logger.warning("%s", message)


def _opener(name: str) -> Callable[[Path, Path | None, str | None, int], Found]:
    if name == "rebuild":
        return _rebuild
    if name == "torch":
        return _open_torch

    def open_model(engine: Path, model: Path | None, _torch: str | None, threads: int) -> Found:
        source = read_onnx(_source(engine, model))
        options: dict[str, Argument] = {"threads": threads} if name in ("onnxruntime", "openvino") else {}
        return Found(session=open_onnx(source, backend=name, options=options), backend=name, layers=source.layers)

    return open_model


def _open_engine(path: Path, model: Path | None) -> Found:
    engine = Engine.read(path)
    if model is not None:
        _check_fresh(engine, model)
    backend = load_backend(engine.backend, engine.options)
    return Found(session=backend.load(engine), backend=engine.backend, layers=engine.layers)


def _check_fresh(engine: Engine, model: Path) -> None:
    """Refuse an engine of another version of the model."""
    ancestors = {step.parent_sha256 for step in engine.provenance}
    digest = sha256_of(model)
    if digest not in ancestors:
        raise EngineMismatchError(
            f"{engine.path.name} was not built from this {model.name} (sha256 {digest[:12]}…); build it again"
        )


def _rebuild(path: Path, model: Path | None, _torch: str | None, _threads: int) -> Found:
    old = Engine.described(path)
    source = read_onnx(_source(path, model))
    folder = old.path.parent
    changes: dict[str, Argument] = {"name": old.path.stem, "rebuild": True, "calibration": ""}
    options = {**old.options, **{name: value for name, value in changes.items() if name in old.options}}
    cache = old.provenance[-1].arguments.get("calibration_cache") if old.provenance else None
    if cache and (folder / str(cache)).is_file():
        options["calibration_cache"] = str(folder / str(cache))
    backend = load_backend(old.backend, options)
    engine = backend.compile(source, folder)
    return Found(session=backend.load(engine), backend=engine.backend, layers=engine.layers)


def _open_torch(_path: Path, _model: Path | None, torch: str | None, threads: int) -> Found:
    if torch is None:
        raise InputError("no PyTorch model was named")
    from redline.networks.eager import open_model
    from redline.networks.load import ModelRef, load_model

    session = open_model(load_model(ModelRef(torch, None)), threads=threads)
    return Found(session=session, backend="torch", layers=session.layers)


def _source(path: Path, model: Path | None) -> Path:
    """The file that the engine was built from.

    Raises:
        InputError: it is not where the engine says, or has changed since.
    """
    if model is not None:
        return model
    engine = Engine.described(path)
    step = engine.provenance[-1] if engine.provenance else None
    named = step.arguments.get("model_file") if step is not None else None
    if step is None or not named:
        raise InputError(f"{path.name} does not say which file it was built from; name it")
    source = (engine.path.parent / str(named)).resolve()
    if not source.is_file():
        raise InputError(f"{source.name}, from which {path.name} was built, is not there any more; name it")
    if sha256_of(source) != step.parent_sha256:
        raise InputError(f"{source.name} has changed since {path.name} was built from it; name the file to use")
    return source
