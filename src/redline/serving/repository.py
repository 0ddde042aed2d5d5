"""A folder of models, ``root/<name>/<version>/…``, read and never written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redline.core.errors import InputError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
MANIFEST = "manifest.json"
_USUAL = (MANIFEST, "model.onnx", "model.plan")
_SIDECAR = ".engine.json"
_MODEL_SUFFIXES = (".onnx", ".plan", ".engine")
_LINK_OUT = "is a link that leads out of the repository; copy the files into it"

Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """What is served under a name.

    Attributes:
        versions: The number of each version, and what to open for it.
        problems: Why a version cannot be served, by its number; ``""`` stands for all of them.
        root: The repository that it is from; None for what a user named by itself.
    """

    name: str
    versions: Mapping[str, Path]
    problems: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None

    def __post_init__(self) -> None:
        if self.versions and not NAME.fullmatch(self.name):
            raise InputError(f"got model name {self.name!r}, expected {_NAME_WORDS}; name it as NAME=PATH")
        for number in self.versions:
            if not VERSION.fullmatch(number):
                raise InputError(f"{self.name}: got version {number!r}, expected a number from 1 to 999999999")

    @property
    def newest_first(self) -> list[str]:
        """Its version numbers, falling."""
        return sorted(self.versions, key=int, reverse=True)


_NAME_WORDS = "letters, digits, '.', '_' and '-', the first one a letter or a digit, at most 128"


def scan_repository(root: Path) -> list[ModelSource]:
    """What a repository holds now, by name.

    A version is a folder whose name is a number. One without a model in it, or whose name begins with ``.`` or ends
    in ``.part``, is being written and is left out; so are other files and folders, as Triton does it.

    Raises:
        InputError: it is not a folder.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; expected a repository, {root}/<name>/<version>/model.onnx")
    real = root.resolve()
    return [_scan_model(folder, real) for folder in _folders(root)]


def fingerprint(source: ModelSource, number: str) -> Fingerprint:
    """Path, time of change and size of every file of a version: what is different when it was written anew."""
    path = source.versions[number]
    if source.root is not None and path.is_file():
        path = path.parent
    files = _walk(path) if path.is_dir() else _beside(path)
    found = []
    for file in sorted(files):
        try:
            status = file.stat()
        except OSError:
            continue  # removed between the listing and now
        found.append((str(file), status.st_mtime_ns, status.st_size))
    return tuple(found)


def model_in(folder: Path) -> Path | None:
    """What to open of a version's folder: the folder itself for a tune's, else its model file; None without one.

    Raises:
        InputError: there are several and none has the usual name.
    """
    names = {path.name for path in folder.iterdir() if path.is_file() and not _unfinished(path.name)}
    for usual in _USUAL:
        if usual in names:
            return folder if usual == MANIFEST else folder / usual
    found = sorted(name for name in names if name.endswith(_MODEL_SUFFIXES) or name + _SIDECAR in names)
    if len(found) > 1:
        raise InputError(f"has several models ({', '.join(found)}); keep one, or call one of them model.onnx")
    return folder / found[0] if found else None


def is_repository(folder: Path) -> bool:
    """Whether one of its folders has a folder of a version number that holds something to open."""
    return any(versions_in(model) for model in _folders(folder))


def versions_in(folder: Path) -> list[Path]:
    """The folders of versions with something in them to open, rising."""
    found = [path for path in _folders(folder) if VERSION.fullmatch(path.name) and _holds_model(path)]
    return sorted(found, key=lambda path: int(path.name))


def _scan_model(folder: Path, root: Path) -> ModelSource:
    if not NAME.fullmatch(folder.name):
        safe = folder.name.encode("ascii", "backslashreplace").decode()
        return ModelSource(name=safe, versions={}, problems={"": f"its folder's name is not {_NAME_WORDS}"}, root=root)
    if not _inside(folder, root):
        return ModelSource(name=folder.name, versions={}, problems={"": _LINK_OUT}, root=root)
    versions: dict[str, Path] = {}
    problems: dict[str, str] = {}
    for path in _folders(folder):
        if not VERSION.fullmatch(path.name):
            continue
        link = _link_out(path, root)
        if link is not None:
            problems[path.name] = f"{link} {_LINK_OUT}" if link else _LINK_OUT
            continue
        try:
            model = model_in(path)
        except InputError as error:
            problems[path.name] = str(error)
        except OSError:
            continue  # removed while it was read
        else:
            if model is not None:
                versions[path.name] = model
    return ModelSource(name=folder.name, versions=versions, problems=problems, root=root)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not _unfinished(path.name) and path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _unfinished(name: str) -> bool:
    return name.startswith(".") or name.endswith(".part")


def _holds_model(folder: Path) -> bool:
    try:
        return model_in(folder) is not None
    except InputError:
        return True


def _link_out(folder: Path, root: Path) -> str | None:
    """The first link below ``folder`` that leads out of ``root``, ``""`` for the folder itself; None without one."""
    if not _inside(folder, root):
        return ""
    for path in _walk(folder, folders=True):
        if path.is_symlink() and not _inside(path, root):
            return path.name
    return None


def _inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a loop of links
        return False


def _walk(folder: Path, *, folders: bool = False) -> Iterator[Path]:
    for place, inner, files in os.walk(folder):
        yield from (Path(place) / name for name in (*files, *(inner if folders else ())))


def _beside(path: Path) -> list[Path]:
    """A file with those that are called after it: its description, its weights."""
    try:
        return [other for other in path.parent.iterdir() if other.name.startswith(path.name)]
    except OSError:
        return []
