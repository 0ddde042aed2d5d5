"""The results file: one JSON object a line, appended and flushed to disk, readable after any interruption.

Format 1. ``kind`` says what a line is: ``run`` (first line: model, settings, data, environment), ``ceiling`` and
``bandwidth`` (what this machine could do), ``macs`` (what one sample asks of it), ``dependence`` (do the reference's
answers depend on its input), ``artifact`` (a file that was made), ``variant`` (one way to run the model),
``agreement`` (does it answer as the reference does), ``load``, ``samples`` (raw seconds of one window of one round),
``memory``, ``failed``, ``retry`` (a resumed run forgets the failures so far), ``skipped`` and, last, ``conclusion``.
Units are in the names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from redline.core.errors import ArtifactError

FORMAT = 1
Record = dict[str, Any]


class ResultsFile:
    """An append-only results file; every record is on the disk when :meth:`append` returns."""

    def __init__(self, path: Path) -> None:
        """Open ``path``; a torn last line, left by a kill, is cut off."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.records: list[Record] = _read(path, repair=True) if path.exists() else []
        self._file: IO[bytes] = path.open("ab")

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record and wait until the disk has it."""
        value = dict(record)
        line = json.dumps(value, allow_nan=False, default=_plain) + "\n"
        try:
            self._file.write(line.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            error.filename = str(self.path)
            raise
        self.records.append(json.loads(line))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_records(path: Path) -> list[Record]:
    """Read a results file; a torn last line is left out.

    Raises:
        ArtifactError: the file is missing, is not a results file, or has another format.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is not a file; expected the results.jsonl of a run")
    records = _read(path, repair=False)
    if not records or records[0].get("kind") != "run":
        raise ArtifactError(f"{path} is not a results file: its first line is not a run record")
    if records[0].get("format") != FORMAT:
        raise ArtifactError(f"{path} has format {records[0].get('format')}, this Redline reads {FORMAT}")
    return records


def _read(path: Path, *, repair: bool) -> list[Record]:
    content = path.read_bytes()
    whole, _, torn = content.rpartition(b"\n")
    records: list[Record] = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ArtifactError(f"{path}:{number} is not JSON; expected the results.jsonl of a run") from error
        if not isinstance(record, dict) or "kind" not in record:
            raise ArtifactError(f"{path}:{number} is not a result record")
        records.append(record)
    if torn and repair:
        os.truncate(path, len(content) - len(torn))
    return records


def _plain(value: object) -> object:
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
