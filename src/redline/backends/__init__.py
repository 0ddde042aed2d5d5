"""The table of backends: one leaf file each, loaded when it is asked for."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from redline.backends.nvidia import RTX_RUNS_ON, find_gpus
from redline.core.artifact import Argument, Engine
from redline.core.errors import InputError, MissingDependencyError, RedlineError
from redline.core.session import Backend, Session


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a backend lives: a function ``(options) -> Backend``, the package it needs, the extra that brings it."""

    target: str
    package: str
    extra: str
    summary: str
    from_onnx: bool = True


BACKENDS: dict[str, Entry] = {
    "onnxruntime": Entry("redline.backends.ort:create", "onnxruntime", "cpu", "ONNX Runtime, CPU"),
    "openvino": Entry("redline.backends.openvino:create", "openvino", "openvino", "OpenVINO, CPU"),
    "tensorrt": Entry("redline.backends.tensorrt.backend:create", "tensorrt", "tensorrt", "TensorRT 8.6 to 11, GPU"),
    "tensorrt-rtx": Entry(
        "redline.backends.tensorrt.backend:create_rtx", "tensorrt_rtx", "tensorrt-rtx", "TensorRT for RTX, GPU"
    ),
    "onnxruntime-cuda": Entry("redline.backends.ort_gpu:create", "onnxruntime", "gpu", "ONNX Runtime, CUDA"),
    "onnxruntime-tensorrt": Entry(
        "redline.backends.ort_tensorrt:create", "onnxruntime", "gpu", "ONNX Runtime, TensorRT and CUDA"
    ),
    "torch-tensorrt": Entry(
        "redline.networks.torch_tensorrt:create",
        "torch_tensorrt",
        "torch-tensorrt",
        "Torch-TensorRT, GPU; compiles PyTorch models and not files",
        from_onnx=False,
    ),
    "reference": Entry("redline.backends.reference:create", "onnx", "cpu", "ONNX's own slow reference evaluator"),
}


# Compute capabilities that those backends run on which cannot say it themselves.
_RUNS_ON = {"tensorrt": r".*", "tensorrt-rtx": RTX_RUNS_ON}


@runtime_checkable
class SaysWhyNot(Protocol):
    """A backend that can say why it cannot run here."""

    def why_not(self) -> str | None:
        """The reason in words; None where it can run."""
        ...


def load_backend(name: str, options: Mapping[str, Argument] | None = None) -> Backend:
    """Load a backend by name with its own options.

    Raises:
        InputError: an unknown name or option.
        MissingDependencyError: its package is not installed.
    """
    if name not in BACKENDS:
        close = difflib.get_close_matches(name, BACKENDS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise InputError(f"got backend {name!r}, expected one of {', '.join(BACKENDS)}{hint}")
    entry = BACKENDS[name]
    module, _, function = entry.target.partition(":")
    try:
        create = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != entry.package:
            raise
        raise MissingDependencyError(entry.package, extra=entry.extra) from error
    try:
        return cast("Backend", create(dict(options or {})))
    except TypeError as error:
        raise InputError(f"backend {name}: {error}") from error


def why_not(name: str) -> str | None:
    """Why a backend cannot run engines on this machine, in words; None where it can."""
    try:
        backend = load_backend(name)
    except RedlineError as error:
        return str(error)
    if isinstance(backend, SaysWhyNot):
        return backend.why_not()
    if name not in _RUNS_ON:
        return None
    capability = backend.platform().get("compute_capability")
    if capability is None:
        return find_gpus().reason or "no NVIDIA GPU was found"
    if re.fullmatch(_RUNS_ON[name], capability) is None:
        return f"it does not run on a GPU of compute capability {capability}"
    return None


def open_engine(path: str, options: Mapping[str, Argument] | None = None) -> Session:
    """Load a saved engine with the backend and the options that it was compiled with.

    Args:
        path: The engine file or its ``.engine.json``.
        options: Replaces single options, such as ``threads``.

    Raises:
        EngineMismatchError: the engine was made for another platform.
    """
    engine = Engine.read(Path(path))
    return load_backend(engine.backend, {**engine.options, **(options or {})}).load(engine)
