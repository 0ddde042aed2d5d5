"""Folders that hold the detections of slides."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.core.errors import DataError, InputError

__all__ = ["Result", "find_results", "find_slide"]

_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was found on one slide, on disk.

    Attributes:
        name: Of its folder.
        slide_path: Where the slide was; None where that is not recorded.
        mpp: Micrometers in a pixel, where known.
    """

    name: str
    folder: Path
    slide_path: Path | None
    width_px: int
    height_px: int
    mpp: float | None


def find_results(folder: Path) -> tuple[tuple[Result, ...], tuple[str, ...]]:
    """The results in a folder, which is that of one slide or holds such folders; and which ones cannot be read.

    Raises:
        InputError: there is none.
        DataError: there is one and it cannot be read.
    """
    if (folder / _MANIFEST).is_file():
        return (_read(folder),), ()
    found: list[Result] = []
    problems: list[str] = []
    for manifest in sorted(folder.glob(f"*/{_MANIFEST}")):
        try:
            found.append(_read(manifest.parent))
        except DataError as error:
            problems.append(str(error))
    if not found:
        if problems:
            raise DataError(problems[0])
        there = "has no results" if folder.is_dir() else "is no folder"
        raise InputError(f"{folder} {there}, expected the folder that `scale detect SLIDE --out FOLDER` wrote")
    return tuple(found), tuple(problems)


def find_slide(result: Result, given: tuple[Path, ...], *, alone: bool) -> Path:
    """Where the slide of a result is now.

    Args:
        result: Of the slide.
        given: Files, and folders of files, that the user named.
        alone: Whether it is the only result, so that a file that was given must be its slide.

    Raises:
        InputError: it is nowhere; says what to type.
    """
    recorded = result.slide_path
    for path in given:
        if not path.exists():
            raise InputError(f"got --slide {path}, and there is no such file or folder")
        inside = path / recorded.name if recorded is not None else path / result.name
        if path.is_dir() and inside.exists():
            return inside
        if alone or (recorded is not None and path.name == recorded.name) or path.stem == result.name:
            return path
    if recorded is not None:
        for place in (recorded, result.folder / recorded.name, result.folder.parent / recorded.name):
            if place.exists():
                return place
    was = f"the slide is not at {recorded} any more" if recorded is not None else "where the slide is was not recorded"
    shown = shlex.quote(str(result.folder if alone else result.folder.parent))
    raise InputError(f"{was}; type: scale view {shown} --slide PATH (the slide, or the folder that it is in)")


def _read(folder: Path) -> Result:
    path = folder / _MANIFEST
    try:
        slide = json.loads(path.read_text("utf-8"))["slide"]
        mpp = slide.get("mpp")
        result = Result(
            name=folder.resolve().name,
            folder=folder,
            slide_path=Path(slide["path"]) if slide.get("path") else None,
            width_px=_positive(slide["width_px"]),
            height_px=_positive(slide["height_px"]),
            mpp=float(mpp) if mpp else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a manifest that `scale detect` wrote: {_why(error)}") from error
    return result


def _positive(value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"got {value!r} pixels")
    return value


def _why(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
