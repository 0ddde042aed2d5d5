"""Ultralytics' own ``.pt`` files, by Ultralytics' package (AGPL-3.0): the only file here that imports it.

A ``.pt`` file is a pickle: opening one runs code that is in it. Open such files only from people whom you trust.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from redline.core.artifact import Argument, OnnxModel, Step
from redline.core.errors import ArtifactError, ExportError, MissingDependencyError
from redline.core.files import sha256_of
from redline.core.preprocess import Usage
from scale.models.files import EXPORTED
from scale.models.loaded import OpenFile

_DEFAULT_INPUT_PX = 640


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How an ONNX file is made of a ``.pt`` file.

    Attributes:
        input_px: Side of the input; None takes what the model was trained at.
        batch: Of the file, or the example's where it is dynamic.
        dynamic: Whether batch and sizes stay open.
        opset: None takes the newest that the installed packages have.
    """

    input_px: int | None = None
    batch: int = 1
    dynamic: bool = False
    opset: int | None = None


@cache
def require_ultralytics() -> ModuleType:
    """The package, told neither to install anything by itself nor to ask the network.

    Raises:
        MissingDependencyError: it is not installed.
    """
    for name, value in (("YOLO_AUTOINSTALL", "false"), ("YOLO_OFFLINE", "true"), ("YOLO_VERBOSE", "false")):
        os.environ.setdefault(name, value)
    try:
        import ultralytics
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("ultralytics", "torch"):
            raise
        raise MissingDependencyError(error.name or "ultralytics", extra="yolo") from error
    return ultralytics  # type: ignore[no-any-return]


def open_torch(path: Path, *, device: str = "cpu", threads: int = 0, input_px: int | None = None) -> OpenFile:
    """Open a ``.pt`` file as a session whose outputs are those that its ONNX file would have.

    Args:
        path: The file.
        device: ``cpu``, ``cuda`` or ``cuda:1``.
        threads: 0 lets PyTorch choose; it holds for the whole process.
        input_px: Side of the input; None takes what it was trained at.

    Raises:
        MissingDependencyError: ultralytics is not installed.
        ArtifactError: the file is no model that it knows, or one that does not detect.
    """
    yolo = _load(path)
    import torch

    from redline.networks.eager import open_model
    from redline.networks.load import wrap_module

    size_px = input_px or _trained_px(yolo)
    module = _as_exported(yolo)
    example = torch.full((1, int(getattr(module, "yaml", {}).get("channels", 3)), size_px, size_px), 0.5)
    session = open_model(wrap_module(module, example, name=path.name), device=device, threads=threads)
    usage = _usage(yolo, module, size_px)
    return OpenFile(session=session, usage=usage, runtime="torch", precision=session.layers.describe())


def export_onnx(path: Path, out: Path, options: ExportOptions) -> OnnxModel:
    """Export a ``.pt`` file by Ultralytics' own exporter; ``out`` is whole, and remembers which file it was made of.

    Raises:
        MissingDependencyError: ultralytics is not installed.
        ExportError: it did not work; says why.
    """
    from redline.formats.onnx_file import load_proto, save_proto, versions

    size_px = options.input_px or _trained_px(_load(path))
    arguments: dict[str, Argument] = {"imgsz": size_px, "batch": options.batch, "dynamic": options.dynamic}
    if options.opset is not None:
        arguments["opset"] = options.opset
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        copy = Path(folder) / path.name  # the exporter writes beside its model
        shutil.copyfile(path, copy)
        network = _load(copy)
        try:
            with _quiet():
                written = network.export(format="onnx", simplify=False, device="cpu", verbose=False, **arguments)
        except Exception as error:
            raise ExportError(f"{path.name}: Ultralytics could not export it: {_line(error)}") from error
        return save_proto(
            load_proto(Path(written)),
            out,
            step=Step(
                step=EXPORTED,
                arguments={**arguments, "model_file": path.name},
                parent_sha256=sha256_of(path),
                versions=versions("ultralytics", "torch", "onnx"),
            ),
            parent=None,
        )


def _load(path: Path) -> Any:
    ultralytics = require_ultralytics()
    if not path.is_file():  # Ultralytics would look for it on the network
        raise ArtifactError(f"{path} is not a file; expected a model of Ultralytics")
    try:
        with _quiet():
            yolo = ultralytics.YOLO(str(path))
    except Exception as error:
        raise ArtifactError(f"{path.name}: Ultralytics cannot open it: {_line(error)}") from error
    if yolo.task not in ("detect", "segment"):
        raise ArtifactError(f"{path.name} is for the task {yolo.task}, expected a model that detects or segments")
    return yolo


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Ultralytics tells of its work, which it prints, out of what is printed here."""
    logger = logging.getLogger("ultralytics")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _trained_px(yolo: Any) -> int:
    """Side of the images that the model was trained at."""
    arguments = getattr(yolo.model, "args", None)
    size = arguments.get("imgsz") if isinstance(arguments, dict) else getattr(arguments, "imgsz", None)
    largest = max(size) if isinstance(size, (list, tuple)) and size else size
    return int(largest) if isinstance(largest, int) and largest > 0 else _DEFAULT_INPUT_PX


def _as_exported(yolo: Any) -> Any:
    """The module, fused, with a head that answers as in an exported file: predictions, and prototypes."""
    module = yolo.model.float().eval()
    if getattr(module, "end2end", False) and _suppresses_by_default():
        module.end2end = False
    module = module.fuse(verbose=False) if hasattr(module, "fuse") else module
    for part in module.modules():
        if hasattr(part, "export") and hasattr(part, "format"):
            part.export, part.format, part.dynamic = True, "onnx", False
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def _suppresses_by_default() -> bool:
    """Whether this Ultralytics predicts and exports by the head that wants suppression, also where there is another.

    It does since ``nms`` has three values, of which None is the default (seen in 8.4.190).
    """
    from ultralytics.utils import DEFAULT_CFG_DICT

    return "nms" in DEFAULT_CFG_DICT and DEFAULT_CFG_DICT["nms"] is None


def _usage(yolo: Any, module: Any, size_px: int) -> Usage:
    from redline.formats.ultralytics_metadata import usage_of_metadata

    told = {
        "task": yolo.task,
        "names": dict(yolo.names),
        "imgsz": [size_px, size_px],
        "stride": int(module.stride.max()),
        "channels": int(getattr(module, "yaml", {}).get("channels", 3)),
        "end2end": bool(getattr(module, "end2end", False)),
    }
    return usage_of_metadata({key: str(value) for key, value in told.items()})


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
