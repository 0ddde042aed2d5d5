"""Triton's model repository on disk: ``REPO/<name>/<version>/`` with a ``config.pbtxt``, each whole or not there."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redline.core.errors import BusyError, InputError
from redline.core.files import flush, umask
from redline.deployment.triton import LABELS_FILE, TritonModel, config_pbtxt, labels_text, same_interface

CONFIG = "config.pbtxt"
#: What is known of a version; Triton ignores it.
ABOUT = "redline.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFiles:
    """What goes into the folder of one version.

    Attributes:
        copied: Files to copy, by their path in that folder.
        written: Text by its path in that folder.
    """

    copied: Mapping[str, Path]
    written: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """A version that was added to a repository."""

    folder: Path
    version: int
    notes: tuple[str, ...] = ()


def check_name(name: str) -> str:
    """The name, if a model can be asked for by it.

    Raises:
        InputError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"got the model name {name!r}, expected letters, digits, '.', '_' and '-', at most 128 of them, a letter "
            "or digit first; name it: NAME=PATH"
        )
    return name


def versions_of(folder: Path) -> list[int]:
    """The versions in a model's folder, rising."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.is_dir() and _VERSION.fullmatch(path.name))


def models_in(repository: Path) -> dict[str, list[int]]:
    """Every model of a repository with its versions."""
    found = {path.name: versions_of(path) for path in sorted(repository.iterdir()) if (path / CONFIG).is_file()}
    return {name: versions for name, versions in found.items() if versions}


def add_version(repository: Path, model: TritonModel, files: VersionFiles, *, comment: str = "") -> Added:
    """Add a model, or its next version where it is there already; nothing that is there is changed.

    Raises:
        InputError: a model of that name is there and takes or gives something else.
        BusyError: somebody else adds versions of it all the time.
    """
    check_name(model.name)
    home = repository / model.name
    repository.mkdir(parents=True, exist_ok=True)
    if not home.exists():
        added = _add_first(repository, home, model, files, comment)
        if added:
            return Added(folder=home / "1", version=1)
    notes = _check_home(home, model, comment)
    with _scratch(repository, home) as scratch:
        _fill(scratch, files)
        for _ in range(_ATTEMPTS):
            version = (versions_of(home) or [0])[-1] + 1
            if _place(scratch, home / str(version)):
                return Added(folder=home / str(version), version=version, notes=notes)
    raise BusyError(f"{home} gets new versions all the time; wait for whoever writes there")


def _add_first(repository: Path, home: Path, model: TritonModel, files: VersionFiles, comment: str) -> bool:
    with _scratch(repository, repository) as scratch:
        (scratch / "1").mkdir()
        _fill(scratch / "1", files)
        if model.labelled:
            (scratch / LABELS_FILE).write_text(labels_text(model.class_names), encoding="utf-8")
        (scratch / CONFIG).write_text(config_pbtxt(model, comment=comment), encoding="utf-8")
        return _place(scratch, home)


def _check_home(home: Path, model: TritonModel, comment: str) -> tuple[str, ...]:
    """Refuse a folder whose clients expect another model; what to know of one that fits."""
    config = home / CONFIG
    try:
        existing = config.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError) as error:
        raise InputError(f"{home} is there and is no model of Triton's (no readable {CONFIG}); take another") from error
    labels = home / LABELS_FILE
    told = labels.read_text(encoding="utf-8") if labels.is_file() else ""
    if not same_interface(existing, model) or told != (labels_text(model.class_names) if model.labelled else ""):
        raise InputError(
            f"{home} has another backend, largest batch, inputs, outputs or class names than this model; export it "
            "under another name: NAME=PATH"
        )
    if _settings(existing) != _settings(config_pbtxt(model, comment=comment)):
        return (f"{config} stays as it is; its batching, instances or warm-up differ from those asked for",)
    return ()


def _settings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _fill(folder: Path, files: VersionFiles) -> None:
    for name, source in files.copied.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    for name, text in files.written.items():
        (folder / name).write_text(text, encoding="utf-8")


@contextmanager
def _scratch(repository: Path, otherwise: Path) -> Iterator[Path]:
    """A folder that goes away unless it was placed; on the same disk, so that placing is a rename.

    It lies beside the repository: within it a Triton that polls takes any folder for a model, and is not ready while
    that does not load. Where the repository is a disk of its own, or its parent is somebody else's, it lies in
    ``otherwise``.
    """
    parent = repository.resolve().parent
    beside = os.access(parent, os.W_OK) and parent.stat().st_dev == repository.stat().st_dev
    path = Path(tempfile.mkdtemp(dir=parent if beside else otherwise, prefix=".", suffix=".partial"))
    try:
        path.chmod(0o777 & ~umask())
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _place(scratch: Path, target: Path) -> bool:
    """Give a filled folder its name; False where that is taken."""
    for path in (*scratch.rglob("*"), scratch):
        flush(path)
    try:
        os.rename(scratch, target)  # noqa: PTH104 (Path.rename documents no refusal of a folder that is not empty)
    except OSError:
        if target.exists():
            return False
        raise
    flush(target.parent)
    return True
