"""Engine files as Ultralytics writes them: a length, a description as JSON, and TensorRT's plan behind it."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from redline.core.errors import ArtifactError
from redline.core.plain import JsonObject

_LENGTH = struct.Struct("<i")
_MOST_JSON_BYTES = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EngineFile:
    """What is in an engine file.

    Attributes:
        metadata: The description before the plan; None where the file is a bare plan.
        plan: What TensorRT reads.
    """

    metadata: JsonObject | None
    plan: bytes


def read_engine_file(path: Path) -> EngineFile:
    """Read an engine file with or without a description.

    Raises:
        ArtifactError: the file is empty, or ends within the description.
    """
    content = path.read_bytes()
    if len(content) <= _LENGTH.size:
        raise ArtifactError(f"{path.name} has {len(content)} bytes, which is no engine; build it again")
    (size,) = _LENGTH.unpack_from(content)
    body = content[_LENGTH.size :]
    if not 2 <= size <= _MOST_JSON_BYTES or body[:1] != b"{":
        return EngineFile(metadata=None, plan=content)
    if size >= len(body):
        raise ArtifactError(f"{path.name} ends within its description ({len(content)} bytes); build it again")
    try:
        metadata = json.loads(body[:size])
    except ValueError as error:
        raise ArtifactError(f"{path.name}: its description is not JSON ({error}); build it again") from error
    return EngineFile(metadata=metadata, plan=body[size:])


def with_description(plan: bytes, metadata: JsonObject) -> bytes:
    """An engine file as Ultralytics reads it."""
    text = json.dumps(dict(metadata)).encode()
    return _LENGTH.pack(len(text)) + text + plan
