"""One grid that was measured in parts, such as half of its sizes on each of two GPUs, as one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from redline.core.errors import InputError
from redline.findings.wording import unique
from redline.measurement.environment import comparable
from redline.study.config import StudyConfig
from redline.study.derive import run_of
from redline.study.records import CellEnded, Node, Record, Run

# Which points of the grid were measured: what parts may differ in.
_AXES = ("models", "backends", "precisions", "variants", "devices", "loaders", "batches", "sizes")
# What is not compared: where other Pythons lie, the title, and the baseline, which is compared by device.
_FREE = (*_AXES, "interpreters", "name", "baseline")


def join_parts(parts: Mapping[Path, Sequence[Record]]) -> tuple[Record, ...]:
    """The records of all parts, as those of one run.

    Args:
        parts: The records of each file, the first of each its run; two files at least.

    Raises:
        InputError: they were measured under unlike conditions, or the same cell is in two of them; says which.
    """
    (first_file, first), *_ = parts.items()
    where: dict[str, Path] = {}
    for file, records in parts.items():
        run = run_of(records)
        if run.purpose != "bench":
            raise InputError(f"{file} is of redline {run.purpose}; expected one file, or the parts of one grid")
        if reasons := _unlike(run_of(first), run):
            raise InputError(
                f"{first_file} and {file} are not parts of one grid: {'; '.join(reasons)}; "
                "hold them against each other with redline compare"
            )
        for cell in unique(record.cell for record in records if isinstance(record, CellEnded)):
            if cell in where:
                raise InputError(f"{cell} is in {where[cell]} and in {file}; expected each cell in one of them")
            where[cell] = file
    joined: list[Record] = [_joined([run_of(records) for records in parts.values()])]
    for number, records in enumerate(parts.values(), 1):
        joined += [_placed(record, f"part {number}") for record in records[1:]]
    return tuple(joined)


def _unlike(one: Run, other: Run) -> list[str]:
    """Why two runs cannot be one; nothing where they can."""
    settings = one.settings, other.settings
    reasons = [
        f"{key} was {getattr(settings[0], key)!r}, is {getattr(settings[1], key)!r}"
        for key in StudyConfig.__dataclass_fields__
        if key not in _FREE and getattr(settings[0], key) != getattr(settings[1], key)
    ]
    reasons += [
        f"baseline on {device} was {name}, is {other.baselines[device]}"
        for device, name in one.baselines.items()
        if other.baselines.get(device, name) != name
    ]
    if one.redline != other.redline:
        reasons.append(f"redline was {one.redline}, is {other.redline}")
    reasons += comparable(one.machine.environment, other.machine.environment)
    reasons += one.machine.other_gpus(other.machine)
    digests = {model.name: model.sha256 for model in one.models}
    reasons += [
        f"{model.name} has other weights"
        for model in other.models
        if digests.get(model.name, model.sha256) != model.sha256
    ]
    return reasons


def _joined(runs: Sequence[Run]) -> Run:
    axes: dict[str, tuple[object, ...]] = {}
    for axis in _AXES:
        values = unique(value for run in runs for value in getattr(run.settings, axis))
        axes[axis] = tuple(sorted(values)) if axis in ("batches", "sizes") else tuple(values)
    environment = max(
        (run.machine.environment for run in runs), key=lambda place: place.noise.spread if place.noise else 0.0
    )
    first = runs[0]
    return replace(
        first,
        command=" ; ".join(run.command for run in runs),
        cells=sum(run.cells for run in runs),
        settings=replace(first.settings, **axes),  # type: ignore[arg-type]
        baselines={device: name for run in runs for device, name in run.baselines.items()},
        variants=tuple(unique(name for run in runs for name in run.variants)),
        models=tuple({model.name: model for run in runs for model in run.models}.values()),
        machine=replace(first.machine, environment=replace(first.machine.environment, noise=environment.noise)),
    )


def _placed(record: Record, place: str) -> Record:
    if isinstance(record, Node | CellEnded) and record.node:
        return replace(record, node=f"{place}: {record.node}")
    return record
