"""Grids that never ran, summarized once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from tests.grid.records import Run, grid_records

from redline.grid.rows import GridStudy, summarize_grid

Record = dict[str, Any]
SIZES = ((160, 160), (224, 224), (224, 320))


@cache
def usual() -> GridStudy:
    """Two devices, both loaders, three batches and sizes; some cells are skipped, some fail, one fell back."""
    return summarize_grid(grid_records(Run(sizes=SIZES, rounds=4, change=fell_back)))


def changed(change: Callable[[Record], Record | None], **fields: Any) -> GridStudy:
    """A small grid with other records."""
    small: dict[str, Any] = {"batches": (1, 4), "sizes": ((224, 224),), "rounds": 3, "repeats": 1}
    return summarize_grid(grid_records(Run(**{**small, **fields}, change=change)))


def fell_back(record: Record) -> Record:
    if record["kind"] == "variant" and record["variant"] == "torch-eager-fp16":
        return {**record, "precision": "fp32", "layers": [["fp32", 20], ["fp16", 1]]}
    return record
