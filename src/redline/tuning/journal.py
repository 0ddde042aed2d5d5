"""What a run has finished already, so that a resumed one repeats nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redline.core.errors import InputError
from redline.core.files import sha256_of
from redline.measurement.environment import Environment, comparable
from redline.measurement.results import FORMAT, Record, ResultsFile


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
        self._refuse(_differences(self.results.records[0], json.loads(json.dumps(run))))
        if self.has("conclusion"):
            return
        for name in {record["variant"] for record in self.results.records if record["kind"] == "failed"}:
            self.append({"kind": "retry", "variant": name})

    def check_request(self, model: str, settings: Mapping[str, Any]) -> None:
        """Check early, before anything is loaded, that an interrupted run was of this model and these settings.

        Raises:
            InputError: it was not, or the file is not that of a run.
        """
        if not self.results.records:
            return
        old = self.results.records[0]
        if old["kind"] != "run" or old.get("format") != FORMAT:
            raise InputError(f"{self.results.path} is not a run that this Redline can go on with; take another folder")
        known = {"model": {"name": model}, "settings": json.loads(json.dumps(settings))}
        self._refuse(_changed(old, known))

    def _refuse(self, differences: list[str]) -> None:
        if differences:
            raise InputError(
                f"{self._folder} holds a run with {'; '.join(differences)}; "
                "resume with the same, or take another folder"
            )

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
    machines = (Environment.from_json(record["environment"]) for record in (old, new))
    return [*_changed(old, {part: new[part] for part in ("model", "settings", "data")}), *comparable(*machines)]


def _changed(old: Record, new: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"another {part} {key} ({old[part].get(key)!r}, now {value!r})"
        for part, values in new.items()
        for key, value in values.items()
        if old[part].get(key) != value
    ]
