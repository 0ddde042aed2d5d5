"""Studies that never ran, summarized once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from tests.studies import Record, Run, records_of, study_of

from redline.findings.conclusion import conclude
from redline.study import records as kinds
from redline.study.derive import summarize
from redline.study.rows import Study

SIZES = ((160, 160), (224, 224), (224, 320))


@cache
def usual() -> Study:
    """Two devices, both loaders, three batches and sizes; some cells are skipped, some fail, one fell back."""
    return study_of(Run(sizes=SIZES, rounds=4, change=fell_back))


def changed(change: Callable[[Record], Record | None], **fields: Any) -> Study:
    """A small grid with other records."""
    small: dict[str, Any] = {"batches": (1, 4), "sizes": ((224, 224),), "rounds": 3}
    return study_of(Run(**{**small, **fields}, change=change))


@cache
def tuned() -> Study:
    """A tune of one model on a CPU, concluded."""
    return concluded(records_of(Run(purpose="tune", devices=("cpu",), loaders=("samples",), batches=(1, 4))))


def concluded(records: Sequence[kinds.Record]) -> Study:
    """A tune's rows as they are read after its end: with the one that is recommended."""
    return summarize([*records, conclude(summarize(records), batch=1, objective="latency")])


def fell_back(record: Record) -> Record:
    if record["kind"] == "variant" and record["variant"] == "torch-eager-fp16":
        return {**record, "precision": "fp32", "layers": [["fp32", 20], ["fp16", 1]]}
    return record
