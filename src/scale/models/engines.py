"""Open a TensorRT engine of whatever origin: Redline's, Ultralytics', or a bare plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from redline.core.artifact import Engine, Step
from redline.core.plain import JsonObject
from redline.core.preprocess import Usage
from scale.models.engine_file import read_engine_file
from scale.models.loaded import OpenFile

UNKNOWN = "unknown"


def history_of(path: Path) -> tuple[Step, ...]:
    """How an engine came to be; empty where nobody wrote it down.

    Raises:
        ArtifactError: its description is broken.
    """
    return Engine.described(path).provenance if _described(path) else ()


def open_engine_file(path: Path, *, device: int = 0) -> OpenFile:
    """Open an engine on a GPU.

    Raises:
        EngineMismatchError: it is of another GPU or TensorRT, or its bytes are not those that were saved.
        ArtifactError: the file or its description is broken.
        DeviceError: there is no such GPU.
        MissingDependencyError: TensorRT is not installed.
    """
    return _open_described(path, device) if _described(path) else _open_foreign(path, device)


def usage_of_header(metadata: JsonObject) -> Usage:
    """What the description before an engine of Ultralytics' says, where values are JSON's own and not text."""
    from redline.formats.ultralytics_metadata import usage_of_metadata

    told = {key: str(value) for key, value in metadata.items()}
    if isinstance(names := metadata.get("names"), Mapping):  # JSON has made texts of the indices
        told["names"] = str({int(key) if key.isdigit() else key: name for key, name in names.items()})
    return usage_of_metadata(told)


def precision_of_header(metadata: JsonObject) -> str:
    """What the engine was built in, as its header says."""
    arguments = metadata.get("args")
    said = {**metadata, **(arguments if isinstance(arguments, Mapping) else {})}
    if "half" not in said and "int8" not in said:
        return UNKNOWN
    return "int8" if said.get("int8") else "fp16" if said.get("half") else "fp32"


def _described(path: Path) -> bool:
    return path.with_name(path.name + ".engine.json").is_file()


def _open_described(path: Path, device: int) -> OpenFile:
    from redline.backends import load_backend

    engine = Engine.read(path)
    options = {**engine.options, **({"device": device} if "device" in engine.options else {})}
    session = load_backend(engine.backend, options).load(engine)
    return OpenFile(session=session, usage=engine.usage, runtime=engine.backend, precision=engine.layers.describe())


def _open_foreign(path: Path, device: int) -> OpenFile:
    from redline.backends.tensorrt.plans import open_plan

    file = read_engine_file(path)
    return OpenFile(
        session=open_plan(file.plan, name=path.name, device=device),
        usage=usage_of_header(file.metadata) if file.metadata is not None else Usage(),
        runtime="tensorrt",
        precision=precision_of_header(file.metadata or {}),
    )
