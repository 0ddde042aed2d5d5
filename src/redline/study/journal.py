"""The results file: one record a line, on the disk before the next, and what an interrupted run finished in it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

import msgspec

from redline.core.errors import ArtifactError
from redline.core.files import sha256_of
from redline.core.plain import from_text, to_line
from redline.study.derive import run_of, summarize
from redline.study.records import FORMAT, KINDS, AgreementFound, ArtifactMade, CellEnded, Record, Retry, Run
from redline.study.rows import Study

T = TypeVar("T")
#: The results of a tune, in its folder.
RESULTS = "results.jsonl"
#: Versions of Redline by the format that they write.
_READERS = {1: "0.1"}


class Journal:
    """An append-only results file; every record is on the disk when :meth:`append` returns.

    Attributes:
        records: Everything that is in it.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path``; a torn last line, left by a kill, is cut off.

        Raises:
            ArtifactError: it holds something that is no record.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.records: list[Record] = list(_read(path, repair=True)) if path.exists() else []
        self._file: IO[bytes] = path.open("ab")

    def append(self, record: Record) -> None:
        """Write one record and wait until the disk has it."""
        try:
            self._file.write(to_line(record) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            error.filename = str(self.path)
            raise
        self.records.append(record)

    @property
    def run(self) -> Run | None:
        """The first line, where there is one."""
        return run_of(self.records) if self.records else None

    def of(self, kind: type[T]) -> list[T]:
        """All records of a kind."""
        return [record for record in self.records if isinstance(record, kind)]

    def has(self, kind: type[object], **fields: object) -> bool:
        """Whether such a record was written."""
        return any(
            all(getattr(record, name) == value for name, value in fields.items())
            for record in self.records
            if isinstance(record, kind)
        )

    def whole_artifact(self, folder: Path, name: str) -> ArtifactMade | None:
        """The newest record of a file that is in ``folder`` with the very bytes that were recorded."""
        for record in reversed(self.of(ArtifactMade)):
            if record.path == name:
                path = folder / name
                return record if path.is_file() and sha256_of(path) == record.sha256 else None
        return None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def cells_of(records: Iterable[Record]) -> dict[str, CellEnded]:
    """How each finished cell came out; what a resumed run tries again is not finished."""
    found: dict[str, CellEnded] = {}
    for record in records:
        match record:
            case CellEnded():
                found[record.cell] = record
            case Retry():
                found.pop(record.cell, None)
    return found


def agreements_of(records: Iterable[Record]) -> dict[tuple[str, tuple[int, int], int, str, str], AgreementFound]:
    """The newest agreement by model, size, batch, device and variant."""
    return {
        (record.model, record.size, record.batch, record.device, record.variant): record
        for record in records
        if isinstance(record, AgreementFound)
    }


def read_records(path: Path) -> tuple[Record, ...]:
    """Read a results file, or that of a tune's folder; a torn last line is left out.

    Raises:
        ArtifactError: the file is missing, is not a results file, or has another format.
    """
    if path.is_dir():
        path = path / RESULTS
    if not path.is_file():
        raise ArtifactError(f"{path} is not a file; expected the results of redline tune or bench")
    records = _read(path, repair=False)
    if not records:
        raise ArtifactError(f"{path} is not a results file: its first line is not a run record")
    return records


def read_study(path: Path) -> Study:
    """Read a results file and derive its rows.

    Raises:
        ArtifactError: as for :func:`read_records`.
    """
    return summarize(read_records(path))


class _Head(msgspec.Struct):
    kind: str
    format: int | None = None


def _read(path: Path, *, repair: bool) -> tuple[Record, ...]:
    content = path.read_bytes()
    whole, _, torn = content.rpartition(b"\n")
    records: list[Record] = []
    for number, line in enumerate(whole.splitlines(), start=1):
        where = f"{path}:{number}"
        head = from_text(_Head, line, where=where)
        if number == 1:
            _check_head(path, head)
        if head.kind in KINDS:  # a later version may write more kinds
            records.append(from_text(KINDS[head.kind], line, where=where))
    if torn and repair:
        os.truncate(path, len(content) - len(torn))
    return tuple(records)


def _check_head(path: Path, head: _Head) -> None:
    if head.kind != "run":
        raise ArtifactError(f"{path} is not a results file: its first line is not a run record")
    if head.format != FORMAT:
        reader = _READERS.get(head.format or 0)
        told = f"read it with Redline {reader}, or" if reader else "it is of a newer Redline;"
        raise ArtifactError(
            f"{path} has format {head.format}, this Redline reads format {FORMAT}: {told} measure again"
        )
