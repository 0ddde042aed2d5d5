"""The folder of a tune: held by one tune at a time, rid of what a killed one left, gone again where nothing began."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from redline.core.errors import BusyError, InputError

RESULTS = "results.jsonl"
WEIGHTS = "artifacts/weights.safetensors"
_LOCK = ".lock"


@contextmanager
def held_folder(folder: Path, *, resume: bool) -> Iterator[None]:
    """Hold ``folder``, made where it is not there, while the block runs.

    Scratch files that a killed tune left are removed first. Where the block ends before the run was recorded (a wrong
    argument, a model that does not load) nothing of it stays.

    Raises:
        BusyError: another tune holds it.
        InputError: it is a file, holds a run already, or has a ``best`` that no tune wrote.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, expected a folder to write to")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise BusyError(f"{folder} is held by another tune; wait for it or take another folder") from error
    try:
        _check(folder, resume=resume)
        _sweep(folder)
        yield
    finally:
        begun = _begun(folder)
        if not begun:
            _forget_start(folder)
            (folder / _LOCK).unlink(missing_ok=True)
        lock.release()
        if not begun:
            _remove_empty(missing)


def _check(folder: Path, *, resume: bool) -> None:
    if not _begun(folder):
        best = folder / "best"
        if best.exists() and not (best / "manifest.json").is_file():
            raise InputError(f"{best} is not of a tune and would be replaced; take another folder")
    elif not resume:
        raise InputError(f"{folder} holds a run already; go on with it by --resume, or take another folder")


def _begun(folder: Path) -> bool:
    """Whether the first line of the results, the run itself, is there whole."""
    results = folder / RESULTS
    if not results.is_file():
        return False
    with results.open("rb") as file:
        return file.readline().endswith(b"\n")


def _forget_start(folder: Path) -> None:
    """Remove what a tune writes before it records its run."""
    if not (folder / RESULTS).is_file():
        return
    (folder / WEIGHTS).unlink(missing_ok=True)
    (folder / RESULTS).unlink()
    _remove_empty([(folder / WEIGHTS).parent])


def _sweep(folder: Path) -> None:
    if not _begun(folder):
        _forget_start(folder)
    places = (folder, folder / "artifacts", *(folder / "engines").glob("*"))
    left = [*folder.glob(".work-*"), *(path for place in places for path in place.glob(".*.partial*"))]
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _remove_empty(folders: list[Path]) -> None:
    for path in folders:
        with suppress(OSError):
            path.rmdir()
