"""Frozen dataclasses as plain JSON values, and back: the one way that records are written and read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from redline.core.errors import ArtifactError

T = TypeVar("T")
#: What JSON has; the edge between files and records.
Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
JsonObject = Mapping[str, Json]


def to_plain(value: object) -> Json:
    """A dataclass, or containers of them, as dicts, lists and scalars; a number that JSON does not have is null.

    >>> to_plain((1, float("nan")))
    [1, None]
    """
    return _finite(msgspec.to_builtins(value, enc_hook=_scalar, str_keys=True))


def to_line(value: object) -> bytes:
    """The same as one line of JSON, without its end."""
    return msgspec.json.encode(value, enc_hook=_scalar)


def from_plain(kind: type[T], value: object, *, where: str) -> T:
    """Read a dataclass from plain values; fields that it does not have are left out.

    Args:
        kind: The dataclass.
        value: What JSON gave.
        where: The file, and the line in it, for the error.

    Raises:
        ArtifactError: a field is missing or of another type; names it.
    """
    try:
        return msgspec.convert(value, kind, dec_hook=_path)
    except (msgspec.ValidationError, ValueError) as error:
        raise ArtifactError(f"{where}: {error}") from error


def from_text(kind: type[T], text: str | bytes, *, where: str) -> T:
    """The same from the text of one JSON document.

    Raises:
        ArtifactError: it is no JSON, or does not fit.
    """
    try:
        return msgspec.json.decode(text, type=kind, dec_hook=_path)
    except (msgspec.DecodeError, ValueError) as error:
        raise ArtifactError(f"{where}: {error}") from error


def _scalar(value: object) -> object:
    """What NumPy and paths are in JSON."""
    if isinstance(value, Path):
        return str(value)
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise NotImplementedError(f"{type(value).__name__} is no record")


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"{kind} cannot be read from {value!r}")


def _finite(value: object) -> Json:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case None | bool() | int() | str():
            return value
        case _:
            raise TypeError(f"{type(value).__name__} is no JSON value")
