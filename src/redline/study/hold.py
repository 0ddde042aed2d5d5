"""A results file and its folder: held by one run at a time, rid of what a killed one left, gone where nothing began."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import filelock

from redline.core.errors import BusyError, InputError
from redline.study.journal import RESULTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a study lies.

    Attributes:
        results: Its results file.
        folder: Of what it makes: model files, engines.
        lock: The file that says that a run holds it.
        what: What it is called in a message.
    """

    results: Path
    folder: Path
    lock: Path
    what: str

    @property
    def begun(self) -> bool:
        """Whether the first line of the results, the run itself, is there whole."""
        if not self.results.is_file():
            return False
        with self.results.open("rb") as file:
            return file.readline().endswith(b"\n")

    @property
    def shown(self) -> Path:
        """What a user called it by."""
        return self.folder if self.what == "tune" else self.results


def tune_place(folder: Path) -> Place:
    """A tune is a folder."""
    return Place(results=folder / RESULTS, folder=folder, lock=folder / ".lock", what="tune")


def bench_place(results: Path) -> Place:
    """A bench is a results file, with a folder beside it."""
    lock = results.with_name(f".{results.name}.lock")
    return Place(results=results, folder=results.with_suffix(".files"), lock=lock, what="run")


@contextmanager
def held(place: Place, *, resume: bool) -> Iterator[None]:
    """Hold a place, made where it is not there, while the block runs.

    Scratch files that a killed run left are removed first. Where the block ends before the run was recorded (a wrong
    argument, a model that does not load) nothing of it stays.

    Raises:
        BusyError: another run holds it.
        InputError: it holds a run already.
    """
    parent = place.lock.parent
    if parent.exists() and not parent.is_dir():
        raise InputError(f"{parent} is a file, expected a folder to write to")
    missing = [path for path in (parent, *parent.parents) if not path.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(place.lock)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise BusyError(f"{place.shown} is held by another {place.what}; wait for it or take another") from error
    try:
        if place.begun and not resume:
            raise InputError(f"{place.shown} holds a run already; go on with it by --resume, or take another")
        _sweep(place)
        yield
    finally:
        begun = place.begun
        if not begun:
            _forget_start(place)
        if not begun or place.what != "tune":
            place.lock.unlink(missing_ok=True)
        lock.release()
        if not begun:
            _remove_empty(missing)


def _sweep(place: Place) -> None:
    if not place.begun:
        _forget_start(place)
    if not place.folder.is_dir():
        return
    engines = place.folder.rglob("engines/**/.*.partial*")
    artifacts = place.folder.rglob("artifacts/.*.partial*")
    scratch = place.folder.rglob(".*.npz")
    for path in [*place.folder.glob(".*.partial*"), *place.folder.glob(".work-*"), *engines, *artifacts, *scratch]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _forget_start(place: Place) -> None:
    """Remove what a run writes before it records itself."""
    place.results.unlink(missing_ok=True)
    if place.what != "tune":
        shutil.rmtree(place.folder, ignore_errors=True)
        return
    for path in (place.folder / "artifacts").glob("*.safetensors"):
        path.unlink()
    for path in place.folder.glob(".*.npz"):
        path.unlink()
    _remove_empty([place.folder / "artifacts"])


def _remove_empty(folders: list[Path]) -> None:
    for path in folders:
        with suppress(OSError):
            path.rmdir()
