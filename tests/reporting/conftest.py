"""A made-up run with one row of every kind."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redline.measurement.summary import Study, summarize

Record = dict[str, Any]
SAMPLE = Path(__file__).parent / "data" / "sample.jsonl"
_RECORDS: list[Record] = [json.loads(line) for line in SAMPLE.read_text().splitlines()]


@pytest.fixture
def records() -> list[Record]:
    return copy.deepcopy(_RECORDS)


@pytest.fixture
def study(records: list[Record]) -> Study:
    return summarize(records)


@pytest.fixture
def without_labels(records: list[Record]) -> Study:
    for record in records:
        if record["kind"] == "agreement":
            record.update(accuracy=None, reference_accuracy=None)
    return summarize(records)


@pytest.fixture
def edited(records: list[Record]) -> Callable[[Callable[[Record], Record | None]], Study]:
    """Change or drop records of the sample, then summarize it."""

    def edit(change: Callable[[Record], Record | None]) -> Study:
        return summarize([new for record in records if (new := change(record)) is not None])

    return edit
