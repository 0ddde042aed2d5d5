"""What is kept of a slide while it is worked on: a manifest of what was asked, and a file for each finished strip.

A file is written beside its place and moved there when it is whole, so that after a kill there are whole strips and
nothing else. The bytes of a strip's file depend on the slide, the plan and the models alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from redline.core.errors import BusyError, DataError, InputError
from redline.core.files import write_whole
from redline.core.plain import JsonObject, from_plain, to_plain
from redline.core.tensor import Array
from redline.detection.results import Detections, Polygons
from scale.merging.found import Found
from scale.pipeline.batches import Failure, StripResult

FORMAT = 1
MANIFEST = "manifest.json"
SHARDS = "shards"
_LOCK = ".lock"
_HEAD = "head"


class HeldRunError(InputError):
    """A result folder holds a run that this one may not touch."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a result folder, made where it is not there, while the block runs; what a killed run left is removed.

    Raises:
        BusyError: another process holds it.
        InputError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, expected a folder to write to")
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise BusyError(f"{folder} is held by another run; wait for it or take another folder") from error
    try:
        for place in (folder, folder / SHARDS):
            for left in place.glob(".*.partial*"):
                left.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


class Shards:
    """The finished strips in a result folder, which is held."""

    def __init__(self, folder: Path, asked: JsonObject, *, slide_path: Path) -> None:
        """A folder and what is asked for.

        Args:
            folder: Of one slide.
            asked: All that the content of a strip depends on, as JSON values: ``slide``, ``models``, ``settings`` …
            slide_path: Where the slide is now, for whoever wants to show it.
        """
        self.folder = folder
        self._slide_path = str(slide_path.resolve())
        self._asked = json.loads(json.dumps({"format": FORMAT, **asked}))
        self.key = hashlib.sha256(json.dumps(self._asked, sort_keys=True).encode()).hexdigest()

    @property
    def manifest(self) -> Path:
        """The file that says what was asked for."""
        return self.folder / MANIFEST

    def begin(self, *, resume: bool = False, fresh: bool = False) -> None:
        """Write the manifest, or check that it asks for the same.

        Args:
            resume: Go on with what is there.
            fresh: Remove what is there.

        Raises:
            InputError: there is a run, and neither is said, or it was asked for something else; says what.
        """
        if self.manifest.is_file() and not fresh:
            if not resume:
                raise HeldRunError(
                    f"{self.folder} holds a run already; go on with it by --resume, or start anew by --fresh"
                )
            if self._refuse_others() != self._slide_path:
                self._write_manifest()
            return
        self.manifest.unlink(missing_ok=True)
        for path in (self.folder / SHARDS).glob("*.npz"):
            path.unlink()
        self._write_manifest()

    def finished(self, strips: int) -> set[int]:
        """Which strips are there, whole, of this run and without a window missing."""
        return {index for index in range(strips) if self._is_whole(index)}

    def save(self, result: StripResult) -> None:
        """Keep a strip."""
        write_whole(self._path(result.strip), _pack(result, self.key))

    def load(self, strip: int) -> StripResult:
        """Read a strip back.

        Raises:
            DataError: it is not there, broken, or of another run.
        """
        path = self._path(strip)
        try:
            return _unpack(path.read_bytes(), self.key)
        except FileNotFoundError as error:
            raise DataError(f"{path} is not there; make it again by --resume") from error
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, InputError) as error:
            told = " ".join(str(error).split())
            raise DataError(f"{path} is not a strip of this run ({told}); make it again by --resume") from error

    def _path(self, strip: int) -> Path:
        return self.folder / SHARDS / f"{strip:06d}.npz"

    def _is_whole(self, strip: int) -> bool:
        try:
            return not self.load(strip).failures
        except DataError:
            return False

    def _write_manifest(self) -> None:
        slide = {**self._asked.get("slide", {}), "path": self._slide_path}
        write_whole(self.manifest, json.dumps({**self._asked, "slide": slide, "key": self.key}, indent=1) + "\n")

    def _refuse_others(self) -> str | None:
        """Where the slide was, of a run that was asked for the same."""
        try:
            there = json.loads(self.manifest.read_text())
            path: str | None = there["slide"].pop("path", None)
            del there["key"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self.manifest} is not a manifest ({error}); start anew by --fresh") from error
        if there != self._asked:
            found = differences(there, self._asked)
            # The plan follows from the rest, which says it better.
            told = "; ".join([text for text in found if not text.startswith("plan.")] or found)
            raise HeldRunError(
                f"{self.folder} holds a run with {told}; go on with the same, start anew by --fresh, "
                "or take another folder"
            )
        return path


def differences(there: Any, asked: Any, name: str = "") -> list[str]:
    """What differs between two JSON values, in words.

    >>> differences({"settings": {"overlap": 0.2}}, {"settings": {"overlap": 0.25}})
    ['settings.overlap 0.2, now 0.25']
    """
    if isinstance(there, dict) and isinstance(asked, dict):
        found = []
        for key in dict.fromkeys([*there, *asked]):
            found += differences(there.get(key), asked.get(key), f"{name}.{key}" if name else str(key))
        return found
    if isinstance(there, list) and isinstance(asked, list) and len(there) == len(asked):
        return [
            text for n, pair in enumerate(zip(there, asked, strict=True)) for text in differences(*pair, f"{name}[{n}]")
        ]
    return [] if there == asked else [f"{name} {_short(there)}, now {_short(asked)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _pack(result: StripResult, key: str) -> bytes:
    head = {
        "key": key,
        "strip": result.strip,
        "models": len(result.found),
        "failures": to_plain(result.failures),
    }
    arrays: dict[str, Array] = {_HEAD: np.frombuffer(json.dumps(head).encode(), np.uint8)}
    for member, found in enumerate(result.found):
        arrays |= {f"{member}.{name}": array for name, array in _arrays_of(found).items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _arrays_of(found: Found) -> dict[str, Array]:
    detections = found.detections
    arrays = {
        "boxes": detections.boxes,
        "scores": detections.scores,
        "classes": detections.classes,
        "windows": found.windows,
        "cuts": found.cuts,
    }
    if detections.polygons is not None:
        arrays |= {"points": detections.polygons.points, "offsets": detections.polygons.offsets}
    return arrays


def _unpack(content: bytes, key: str) -> StripResult:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        head = json.loads(arrays[_HEAD].tobytes())
        if head["key"] != key:
            raise ValueError("it is of another one")
        found = tuple(_found_of(arrays, member) for member in range(head["models"]))
    failures = from_plain(tuple[Failure, ...], head["failures"], where="a strip")
    return StripResult(strip=head["strip"], found=found, failures=failures)


def _found_of(arrays: Mapping[str, Array], member: int) -> Found:
    polygons = None
    if f"{member}.offsets" in arrays:
        polygons = Polygons(arrays[f"{member}.points"], arrays[f"{member}.offsets"])
    detections = Detections(
        boxes=arrays[f"{member}.boxes"],
        scores=arrays[f"{member}.scores"],
        classes=arrays[f"{member}.classes"],
        polygons=polygons,
    )
    return Found(detections, arrays[f"{member}.windows"], arrays[f"{member}.cuts"])
