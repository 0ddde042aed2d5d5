"""A whole run of the grid: its conditions, its rows, what is odd in them, what follows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.core.errors import ArtifactError
from redline.grid.anomalies import Anomaly, find_anomalies
from redline.grid.conclusions import Conclusions, Finding, Recommendation, conclude
from redline.grid.derive import UNFINISHED, GridRow, Size, derive_rows, limits_of, unique
from redline.grid.scaling import Fit
from redline.measurement.results import Record, read_records
from redline.measurement.summary import about_disturbance

__all__ = [
    "Anomaly",
    "Conclusions",
    "Finding",
    "Fit",
    "GridRow",
    "GridStudy",
    "Recommendation",
    "is_grid",
    "read_grid",
    "summarize_grid",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridStudy:
    """Everything that is known after a run, finished or not.

    Attributes:
        rows: In the order of the grid: model, size, batch, device, loader, variant.
        ceilings: 1e9 operations a second by device and precision.
        bandwidth: 1e9 bytes a second by device.
        macs: Multiply-adds of one image by model and (height, width).
        nodes: The machines that cells ran on, by name.
    """

    run: Record
    rows: tuple[GridRow, ...]
    ceilings: Mapping[tuple[str, str], float]
    bandwidth: Mapping[str, float]
    macs: Mapping[tuple[str, Size], int]
    anomalies: tuple[Anomaly, ...]
    conclusions: Conclusions
    warnings: tuple[str, ...]
    nodes: Mapping[str, Record]

    @property
    def models(self) -> tuple[str, ...]:
        """Models that have rows."""
        return self._values("model")

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices that have rows."""
        return self._values("device")

    @property
    def loaders(self) -> tuple[str, ...]:
        """Loaders that have rows."""
        return self._values("loader")

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes that have rows, ascending."""
        return tuple(sorted({row.batch for row in self.rows}))

    @property
    def sizes(self) -> tuple[str, ...]:
        """Image sizes that have rows, as in ``224x224``."""
        return self._values("size")

    @property
    def variants(self) -> tuple[str, ...]:
        """Variants that have rows, in the order in which they were asked for."""
        asked = [name for name in self.run.get("settings", {}).get("variants", ()) if name in self._values("variant")]
        return tuple(unique([*asked, *self._values("variant")]))

    def at(self, **fields: Any) -> tuple[GridRow, ...]:
        """The rows that have those values, such as ``at(device="cpu", batch=1)``."""
        return tuple(row for row in self.rows if all(getattr(row, name) == value for name, value in fields.items()))

    def _values(self, name: str) -> tuple[Any, ...]:
        return tuple(unique(getattr(row, name) for row in self.rows))


def is_grid(source: Path | Sequence[Record]) -> bool:
    """Whether a results file, or its records, are those of a grid; a tune's are not.

    Raises:
        ArtifactError: as for :func:`redline.measurement.results.read_records`.
    """
    records = read_records(source) if isinstance(source, Path) else source
    return bool(records) and records[0].get("kind") == "run" and records[0].get("purpose") == "bench"


def read_grid(path: Path) -> GridStudy:
    """Read the results of a grid and summarize them.

    Raises:
        ArtifactError: the file is missing, is no results file, or is another kind of run's.
    """
    records = read_records(path)
    if not is_grid(records):
        raise ArtifactError(f"{path} is the results file of a tune; expected one that redline bench wrote")
    return summarize_grid(records)


def summarize_grid(records: Sequence[Record]) -> GridStudy:
    """Derive the rows, and what they mean, from the records of one run."""
    by_kind: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_kind[record["kind"]].append(record)
    run = records[0]
    limits = limits_of(run, by_kind)
    rows = derive_rows(run, by_kind, limits)
    return GridStudy(
        run=run,
        rows=rows,
        ceilings=limits.ceilings,
        bandwidth=limits.bandwidth,
        macs=limits.macs,
        anomalies=find_anomalies(rows),
        conclusions=conclude(run, rows),
        warnings=_warnings(run, rows),
        nodes={record["node"]: record for record in by_kind["node"]},
    )


def _warnings(run: Record, rows: Sequence[GridRow]) -> tuple[str, ...]:
    noise = (run.get("environment") or {}).get("noise") or {}
    told = [(run.get("data") or {}).get("warning"), noise.get("warning")]
    told += [_about_missing(run, rows), about_disturbance(row.samples_s for row in rows), _about_clock(rows)]
    return tuple(text for text in told if text)


def _about_missing(run: Record, rows: Sequence[GridRow]) -> str | None:
    planned, finished = run.get("cells"), sum(row.reason != UNFINISHED for row in rows)
    if not planned or finished >= planned:
        return None
    return f"the run ended early: {planned - finished} of {planned} cells have no result; resume it to measure them"


def _about_clock(rows: Sequence[GridRow]) -> str | None:
    on_host = [row for row in rows if row.device == "cuda" and row.time_s is not None and row.clock == "host"]
    if not on_host:
        return None
    names = ", ".join(unique(row.variant for row in on_host))
    return (
        f"no CUDA events were recorded in {len(on_host)} cells ({names}): their time is host to host, "
        "and they are not compared with those of the device's clock"
    )
