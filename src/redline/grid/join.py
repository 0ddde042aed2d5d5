"""One grid that was measured in parts, such as half of its sizes on each of two GPUs, as one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from redline.core.errors import InputError
from redline.grid.derive import unique
from redline.measurement.environment import Environment, comparable
from redline.measurement.results import Record

# Which points of the grid were measured: what parts may differ in.
_AXES = ("models", "backends", "precisions", "devices", "loaders", "batches", "sizes", "variants")
# What is not compared: where other Pythons lie, the title, and the baseline, which is compared by device.
_FREE = (*_AXES, "interpreters", "name", "baseline")
_NAMED = ("node", "cell")


def join_grids(parts: Mapping[Path, Sequence[Record]]) -> list[Record]:
    """The records of all parts, as those of one run.

    Args:
        parts: The records of each file, the first of each its run; two files at least.

    Raises:
        InputError: they were measured under unlike conditions, or the same cell is in two of them; says which.
    """
    (first_file, first), *others = parts.items()
    where: dict[str, Path] = {}
    for file, records in parts.items():
        if reasons := _unlike(first[0], records[0]):
            raise InputError(
                f"{first_file} and {file} are not parts of one grid: {'; '.join(reasons)}; "
                "hold them against each other with redline compare"
            )
        for cell in unique(record["cell"] for record in records if record["kind"] == "cell"):
            if cell in where:
                raise InputError(f"{cell} is in {where[cell]} and in {file}; expected each cell in one of them")
            where[cell] = file
    joined: list[Record] = [_run([first[0], *(records[0] for _, records in others)])]
    for number, records in enumerate(parts.values(), 1):
        joined += [_placed(record, f"part {number}") for record in records[1:]]
    return joined


def _unlike(one: Record, other: Record) -> list[str]:
    """Why two runs cannot be one; nothing where they can."""
    settings = one["settings"], other["settings"]
    reasons = [
        f"{key} was {settings[0].get(key)!r}, is {settings[1].get(key)!r}"
        for key in unique([*settings[0], *settings[1]])
        if key not in _FREE and settings[0].get(key) != settings[1].get(key)
    ]
    baselines = [run.get("baseline") or {} for run in settings]
    reasons += [
        f"baseline on {device} was {name}, is {baselines[1][device]}"
        for device, name in baselines[0].items()
        if baselines[1].get(device, name) != name
    ]
    versions = [str(run.get("redline")) for run in (one, other)]
    if versions[0] != versions[1]:
        reasons.append(f"redline was {versions[0]}, is {versions[1]}")
    reasons += comparable(*(Environment.from_json(run["environment"]) for run in (one, other)))
    gpus = ["; ".join(f"{gpu['name']}, driver {gpu['driver']}" for gpu in _gpus(run)) or "none" for run in (one, other)]
    if gpus[0] != gpus[1]:
        reasons.append(f"GPUs were {gpus[0]}, are {gpus[1]}")
    for before, after in ((a, b) for a in one["models"] for b in other["models"] if a["name"] == b["name"]):
        if before.get("sha256") != after.get("sha256"):
            reasons.append(f"{before['name']} has other weights")
    return reasons


def _gpus(run: Record) -> list[dict[str, Any]]:
    return list(run["environment"].get("gpus") or ())


def _run(runs: Sequence[Record]) -> Record:
    settings = dict(runs[0]["settings"])
    for axis in _AXES:
        values = unique(_hashable(value) for run in runs for value in run["settings"].get(axis) or ())
        values = sorted(values) if axis in ("batches", "sizes") else values
        settings[axis] = [list(value) if isinstance(value, tuple) else value for value in values]
    settings["baseline"] = {k: v for run in runs for k, v in (run["settings"].get("baseline") or {}).items()}
    noisiest = max((run["environment"].get("noise") or {} for run in runs), key=lambda noise: noise.get("spread") or 0)
    return {
        **runs[0],
        "command": " ; ".join(str(run.get("command")) for run in runs),
        "cells": sum(run["cells"] for run in runs),
        "settings": settings,
        "models": list({model["name"]: model for run in runs for model in run["models"]}.values()),
        "environment": {**runs[0]["environment"], "noise": noisiest or None},
    }


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _placed(record: Record, place: str) -> Record:
    return (
        {**record, "node": f"{place}: {record['node']}"} if record["kind"] in _NAMED and record.get("node") else record
    )
