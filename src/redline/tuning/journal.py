"""What a run has finished already, so that a resumed one repeats nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redline.core.errors import InputError
from redline.core.files import sha256_of
from redline.measurement.environment import Environment, comparable
from redline.measurement.results import Record, ResultsFile


class Journal:
    """A results file that is asked what it has."""

    def __init__(self, results: ResultsFile, folder: Path) -> None:
        self.results = results
        self._folder = folder

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record to the disk."""
        self.results.append(record)

    def begin(self, run: Record) -> None:
        """Write the run record, or check that it is the one of the interrupted run.

        Raises:
            InputError: the interrupted run was of another model, other settings, data or another machine.
        """
        if not self.results.records:
            self.append(run)
            return
        differences = _differences(self.results.records[0], json.loads(json.dumps(run)))
        if differences:
            raise InputError(
                f"{self._folder} holds a run with {'; '.join(differences)}; "
                "resume with the same, or take another folder"
            )
        if self.has("conclusion"):
            return
        for name in {record["variant"] for record in self.results.records if record["kind"] == "failed"}:
            self.append({"kind": "retry", "variant": name})

    def has(self, kind: str, **fields: object) -> bool:
        """Whether such a record was written."""
        return self.find(kind, **fields) is not None

    def find(self, kind: str, **fields: object) -> Record | None:
        """The newest such record."""
        for record in reversed(self.results.records):
            if record["kind"] == kind and all(record.get(key) == value for key, value in fields.items()):
                return record
        return None

    def whole_artifact(self, name: str) -> Record | None:
        """The record of a file that is on the disk with the very bytes that were recorded."""
        record = self.find("artifact", name=name)
        if record is None:
            return None
        path = self._folder / record["path"]
        return record if path.is_file() and sha256_of(path) == record["sha256"] else None

    def rounds(self, batch: int) -> set[tuple[str, int]]:
        """Pairs of variant and round that are measured at this batch size."""
        return {
            (record["variant"], record["round"])
            for record in self.results.records
            if record["kind"] == "samples" and record["batch"] == batch
        }


def _differences(old: Record, new: Record) -> list[str]:
    found = []
    for part in ("model", "settings", "data"):
        for key, value in new[part].items():
            if old[part].get(key) != value:
                found.append(f"another {part} {key} ({old[part].get(key)!r}, now {value!r})")
    machines = (Environment.from_json(record["environment"]) for record in (old, new))
    return [*found, *comparable(*machines)]
