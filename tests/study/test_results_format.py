"""The page on results.jsonl names every field of every record, and no other."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path

import pytest

from redline.study.records import KINDS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "results-format.md"
ROW = re.compile(r"^\| `(\w+)`[^|]*\| (.+) \|$", re.MULTILINE)


def inside(kind: object, found: dict[str, type]) -> None:
    """The dataclasses that a record holds, by name."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__name__ not in found:
        found[kind.__name__] = kind
        for hint in typing.get_type_hints(kind).values():
            inside(hint, found)
    for part in typing.get_args(kind):
        inside(part, found)


def records() -> dict[str, type]:
    held: dict[str, type] = {}
    for record in KINDS.values():
        inside(record, held)
    top = {record.__name__ for record in KINDS.values()}
    return {**KINDS, **{name: kind for name, kind in held.items() if name not in top}}


@pytest.mark.parametrize("name", sorted(records()))
def test_a_record_is_described_with_all_its_fields(name: str) -> None:
    told = dict(ROW.findall(PAGE.read_text()))
    # What follows a colon, or stands in brackets, explains.
    listed = re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", told[name]).partition(":")[0])
    fields = [field.name for field in dataclasses.fields(records()[name]) if field.name != "kind"]
    assert sorted(listed) == sorted(fields)
